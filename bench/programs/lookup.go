package programs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"egate/bench/measure"
	"egate/internal/testutil/frames"
)

const (
	// askedBelow is the domain that all names are below which test runs ask for.
	askedBelow = "cdn.example.com"
	// firstLabel stands for the label that each look-up has of its own.
	firstLabel = "aaaaaaaa"
	// together is how many questions leave before their answers come. The
	// table of questions has room for four times as many.
	together = 2048
)

// The resolver, and who asks it.
var (
	asker    = netip.MustParseAddr("192.0.2.1")
	resolver = netip.MustParseAddr("192.0.2.53")
)

// shape is what an answer consists of.
type shape struct {
	name      string
	aliases   int
	addresses int // at most 8
}

// message is a DNS message as a frame.
type message struct {
	frame     []byte
	addresses [8]uint16 // where addresses are in it, 0 behind the last one
}

func (s shape) question() (*dns.Msg, *message, error) {
	m := new(dns.Msg)
	m.SetQuestion(firstLabel+"."+askedBelow+".", dns.TypeA)
	m.SetEdns0(1232, false)
	payload, err := m.Pack()
	if err != nil {
		return nil, nil, fmt.Errorf("write question: %w", err)
	}
	return m, &message{frame: frames.UDP(asker, resolver, 0x8000, 53, payload)}, nil
}

func (s shape) answer(question *dns.Msg) (*message, error) {
	m := new(dns.Msg)
	m.SetReply(question)
	m.Compress = true
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 300}
	}
	owner := question.Question[0].Name
	for i := range s.aliases {
		alias := fmt.Sprintf("edge-%d.region.example.net.", i)
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: alias})
		owner = alias
	}
	marks := make([]net.IP, s.addresses)
	for i := range marks {
		marks[i] = net.IPv4(203, 0, 113, byte(1+i)).To4()
		m.Answer = append(m.Answer, &dns.A{Hdr: header(owner, dns.TypeA), A: marks[i]})
	}
	m.SetEdns0(1232, false)
	payload, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	out := &message{frame: frames.UDP(resolver, asker, 53, 0x8000, payload)}
	for i, mark := range marks {
		at := bytes.Index(out.frame, mark)
		if at < 0 {
			return nil, fmt.Errorf("write answer: %v is not in it", mark)
		}
		out.addresses[i] = uint16(at)
	}
	return out, nil
}

// way is a program under test with the messages that go one way through it.
type way struct {
	frame   []byte
	objects lookupObjects
}

// lookups are questions and answers, which go through two programs in turn.
type lookups struct {
	questions, answers way
	next               uint32
	done               uint64 // answers so far, at least
}

// newLookups makes look-ups of that many different names, a power of two or 0
// for 2^32, whose addresses begin with a byte. The caller closes.
func newLookups(egress, ingress *ebpf.Program, s shape, names uint32, network uint8) (*lookups, error) {
	l := &lookups{}
	asked, question, err := s.question()
	if err != nil {
		return nil, err
	}
	answer, err := s.answer(asked)
	if err != nil {
		return nil, err
	}
	if err := l.questions.load(egress, question, names, network); err != nil {
		return nil, err
	}
	if err := l.answers.load(ingress, answer, names, network); err != nil {
		return nil, errors.Join(err, l.questions.objects.Close())
	}
	return l, nil
}

func (w *way) load(p *ebpf.Program, m *message, names uint32, network uint8) error {
	spec, err := loadLookup()
	if err != nil {
		return fmt.Errorf("load program lookup: %w", err)
	}
	err = errors.Join(spec.Variables["mask"].Set(names-1), spec.Variables["network"].Set(network),
		spec.Variables["answers"].Set(bit(m.addresses[0] != 0)), spec.Variables["addresses"].Set(m.addresses))
	if err != nil {
		return fmt.Errorf("load program lookup: %w", err)
	}
	if err := spec.LoadAndAssign(&w.objects, nil); err != nil {
		return fmt.Errorf("load program lookup: %w", err)
	}
	if err := w.objects.Contender.Put(uint32(0), p); err != nil {
		return errors.Join(fmt.Errorf("put program under test: %w", err), w.objects.Close())
	}
	w.frame = m.frame
	return nil
}

func (l *lookups) Close() error {
	return errors.Join(l.questions.objects.Close(), l.answers.objects.Close())
}

// run sends messages, beginning with that number, and returns the mean of what
// one took in nanoseconds, and whether a signal broke it off, so that it had to
// begin again.
func (w *way) run(from uint32, messages int) (ns float64, again bool, err error) {
	var failed error
	begin := func() {
		if err := w.objects.Next.Set(from); err != nil {
			failed = fmt.Errorf("start with message %d: %w", from, err)
		}
	}
	begin()
	verdict, took, err := w.objects.Lookup.Benchmark(w.frame, messages, func() { again = true; begin() })
	if err := errors.Join(err, failed); err != nil {
		return 0, again, err
	}
	if verdict != passed {
		return 0, again, fmt.Errorf("run program: the last message returned %#x, want %#x", verdict, passed)
	}
	return float64(took.Nanoseconds()), again, nil
}

// some makes some look-ups and returns what a question and an answer took.
func (l *lookups) some(count int) (question, answer float64, err error) {
	for tries := 0; ; tries++ {
		var again bool
		if question, _, err = l.questions.run(l.next, count); err != nil {
			return 0, 0, fmt.Errorf("ask: %w", err)
		}
		if answer, again, err = l.answers.run(l.next, count); err != nil {
			return 0, 0, fmt.Errorf("answer: %w", err)
		}
		// Of answers that came twice the second one has no question.
		if !again || tries == 10 {
			break
		}
	}
	l.next += uint32(count)
	l.done += uint64(count)
	return question, answer, nil
}

// price makes so many look-ups, some at a time, and returns the medians of what
// a question and an answer took, in nanoseconds.
func (l *lookups) price(count int) (question, answer float64, err error) {
	var questions, answers []float64
	for ; count > 0; count -= together {
		q, a, err := l.some(min(count, together))
		if err != nil {
			return 0, 0, err
		}
		questions, answers = append(questions, q), append(answers, a)
	}
	return measure.Quantile(questions, 0.5), measure.Quantile(answers, 0.5), nil
}

// errNotLearned says that answers opened nothing.
var errNotLearned = errors.New("answers were not learned")

// checkLearned tells whether all answers to look-ups through the gate opened
// addresses; else it returns errNotLearned.
func (g *gate) checkLearned(all ...*lookups) error {
	learned, err := g.answersLearned()
	if err != nil {
		return err
	}
	want := uint64(0)
	for _, l := range all {
		want += l.done
	}
	if learned < want {
		return fmt.Errorf("%w: %d of %d were", errNotLearned, learned, want)
	}
	return nil
}

package readers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/testutil"
)

// check reads a message and holds what comes out to the oracle.
func (r *dnsReader) check(t testing.TB, msg []byte, base int) (dnsReading, []learnedAddress) {
	t.Helper()
	d, learned := r.read(t, msg, base)
	o := oracleRead(msg)
	if err := sameReading(&d, learned, &o, base); err != nil {
		t.Fatalf("%v\nmessage of %d bytes: %x", err, len(msg), msg[:min(len(msg), 1024)])
	}
	if d.Question >= 0 && strings.Count(dottedName(o.name), ".") <= max(0, o.labels-1) {
		want := testKey.Hash(dottedName(o.name))
		if d.Hash != want {
			t.Fatalf("hash %#x of %q, want %#x", d.Hash, o.name, want)
		}
	}
	if err := hasLearned(msg, learned); err != nil {
		t.Fatalf("%v\nmessage of %d bytes: %x", err, len(msg), msg[:min(len(msg), 1024)])
	}
	return d, learned
}

// dottedName joins labels with dots. With a dot in a label it is no name.
func dottedName(wire []byte) string {
	var labels []string
	for ; wire[0] != 0; wire = wire[1+wire[0]:] {
		labels = append(labels, string(wire[1:1+wire[0]]))
	}
	return strings.Join(labels, ".")
}

func TestDNSReadsWhatServersSend(t *testing.T) {
	r := newDNSReader(t)
	for what, msg := range serverMessages() {
		t.Run(what, func(t *testing.T) {
			for _, base := range []int{0, 2, 255} {
				if len(msg)+base <= maxMessage {
					if d, _ := r.check(t, msg, base); d.Question < 0 || d.Answers < 0 {
						t.Errorf("behind %d bytes: read as malformed: %x", base, msg)
					}
				}
			}
			for n := 1; n < len(msg); n += 1 + len(msg)/300 {
				r.check(t, msg[:n], 0)
			}
		})
	}
}

// What comes out of some messages, written down: the oracle's own mistakes
// would not show otherwise.
func TestDNSLearns(t *testing.T) {
	r := newDNSReader(t)
	many := func(n int) (l []string) {
		for i := range n {
			l = append(l, fmt.Sprintf("198.51.%d.%d/60", i>>8, i&255))
		}
		return l
	}
	messages := serverMessages()
	for what, want := range map[string][]string{
		"question":                          nil,
		"both families":                     {"192.0.2.1/300", "2001:db8::1/400"},
		"chain":                             {"192.0.2.1/20", "192.0.2.2/60"},
		"chain of three, eight addresses":   {"198.51.0.0/30", "198.51.0.1/30", "198.51.0.2/30", "198.51.0.3/30", "198.51.0.4/30", "198.51.0.5/30", "198.51.0.6/30", "198.51.0.7/30"},
		"chain to the name's own suffix":    {"2001:db8::2/5"},
		"0x20":                              {"192.0.2.1/20"},
		"EDNS behind":                       {"192.0.2.1/300"},
		"signed":                            {"192.0.2.1/300"},
		"DNAME":                             {"192.0.2.7/0"},
		"chain that is cut":                 nil,
		"chain out of order":                nil,
		"chain in a circle":                 {"192.0.2.7/60"},
		"someone else's address":            {"192.0.2.7/60"},
		"two chains":                        {"192.0.2.7/60"},
		"other class":                       {"192.0.2.7/60"},
		"service":                           {"192.0.2.1/300", "192.0.2.2/300", "2001:db8::1/300", "2001:db8::2/300"},
		"two services":                      {"192.0.2.1/300", "2001:db8::7/200"},
		"service alias":                     nil,
		"service behind a chain":            {"192.0.2.1/100"},
		"service that nobody asked for":     {"192.0.2.1/300"},
		"root":                              {"192.0.2.9/5"},
		"odd bytes":                         {"192.0.2.7/60"},
		"127 labels":                        {"192.0.2.7/60"},
		"widest labels":                     {"192.0.2.7/60"},
		"chain of 60":                       {"192.0.2.7/941"},
		"300 addresses":                     many(300),
		"300 addresses without compression": many(300),
		"1000 addresses":                    many(1000),
	} {
		msg, ok := messages[what]
		if !ok {
			t.Errorf("there is no message %q", what)
			continue
		}
		_, learned := r.check(t, msg, 0)
		if got := texts(learned); !slices.Equal(got, want) {
			t.Errorf("%s: learned %q, want %q", what, got, want)
		}
	}
}

func texts(learned []learnedAddress) (s []string) {
	for _, l := range learned {
		s = append(s, fmt.Sprintf("%s/%d", l.addr, l.ttl))
	}
	return s
}

func TestDNSQuestions(t *testing.T) {
	r := newDNSReader(t)
	const first = 12 // where the question stands
	long := labels(strings.Repeat("abcdefg.", 31) + "12345")
	for _, test := range []struct {
		what   string
		msg    []byte
		behind int32 // -1: malformed
	}{
		{"as it should be", message(name("a.example"), 1, 0), first + 11 + 4},
		{"root", message(name(""), 1, 0), first + 1 + 4},
		{"255 bytes", message(append(long, 0), 1, 0), first + 255 + 4},
		{"256 bytes", message(append(append(long[:248:248], 6, 'a', 'b', 'c', 'd', 'e', 'f'), 0), 1, 0), -1},
		{"label of 63 bytes", message(name(strings.Repeat("x", 63)), 1, 0), first + 65 + 4},
		{"label type 01", message(append([]byte{0x40}, make([]byte, 65)...), 1, 0), -1},
		{"label type 10", message(append([]byte{0x80}, make([]byte, 129)...), 1, 0), -1},
		{"label behind the end", message([]byte{20, 'a'}, 1, 0), -1},
		{"name without end", message(labels("a.example"), 1, 0)[:first+10], -1},
		{"pointer to itself", message(pointer(first), 1, 0), -1},
		{"pointer to its own labels", message(join(labels("a"), pointer(first)), 1, 0), -1},
		{"pointer ahead", message(join(pointer(first+2), name("a")), 1, 0), -1},
		{"pointer into the header", message(pointer(4), 1, 0), -1},
		{"pointer to the last byte of the header", message(pointer(first-1), 1, 0), -1},
		{"half a pointer", message(nil, 1, 0)[:first:first], -1},
		{"nothing behind the name", message(name("a.example"), 1, 0)[:first+11], -1},
		{"no class", message(name("a.example"), 1, 0)[:first+13], -1},
		{"half a class", message(name("a.example"), 1, 0)[:first+14], -1},
		{"no question", []byte{0, 1, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}, -1},
		{"two questions", change(message(name("a.example"), 1, 0), 5, 2), -1},
		{"257 questions", change(message(name("a.example"), 1, 0), 4, 1), -1},
		{"operation UPDATE", change(message(name("a.example"), 1, 0), 2, 0x28), -1},
		{"operation IQUERY", change(message(name("a.example"), 1, 0), 2, 0x88), -1},
		{"half a header", message(name("a.example"), 1, 0)[:11], -1},
		{"one byte", []byte{1}, -1},
	} {
		d, _ := r.check(t, test.msg, 0)
		if d.Question != test.behind {
			t.Errorf("%s: question read up to %d, want %d", test.what, d.Question, test.behind)
		}
	}
}

// change sets one byte.
func change(msg []byte, at int, to byte) []byte {
	msg = slices.Clone(msg)
	msg[at] = to
	return msg
}

func TestDNSMalformedAnswers(t *testing.T) {
	const (
		a, cname, txt, aaaa, svcb, https = 1, 5, 16, 28, 64, 65
		first                            = 12           // where the asked name stands
		records                          = 12 + 11 + 4  // the first record, with this name:
		second                           = records + 16 // behind an address that is owned by a pointer
	)
	asked := name("a.example")
	own := pointer(first)
	v4, v6 := address("192.0.2.1"), address("2001:db8::1")
	// each begins with an address that is learned in any case
	answer := func(askedType, answers uint16) wireMessage {
		return message(asked, askedType, answers).record(own, a, 60, address("192.0.2.7")...)
	}
	service := func(params ...[]byte) wireMessage {
		return answer(https, 2).record(own, https, 60, join([]byte{0, 1}, name("t.example"), join(params...))...)
	}
	r := newDNSReader(t)
	for _, test := range []struct {
		what      string
		msg       []byte
		malformed bool
		learned   string // behind the first
	}{
		{"as it should be", answer(a, 2).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"fewer records than counted", answer(a, 2), true, ""},
		{"more records than counted", answer(a, 1).record(own, a, 60, v4...), false, ""},
		{"65535 records counted", answer(a, 65535), true, ""},
		{"bytes behind the records", append(answer(a, 1), 1, 2, 3), false, ""},
		{"record without type", answer(a, 2).record(own, a, 60, v4...)[:second+2], true, ""},
		{"record without length", answer(a, 2).record(own, a, 60, v4...)[:second+10], true, ""},
		{"record without data", answer(a, 2).record(own, a, 60, v4...)[:second+12], true, ""},
		{"record with half its data", answer(a, 2).record(own, a, 60, v4...)[:second+14], true, ""},
		{"record of no use, beyond the message", answer(a, 2).recordOf(own, txt, 60, 5, 'a', 'b'), true, ""},
		{"record of no use, of no bytes", answer(a, 3).record(own, txt, 60).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"record of no use, its data no text", answer(a, 3).record(own, txt, 60, 99).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"address of 3 bytes", answer(a, 2).record(own, a, 60, v4[:3]...), true, ""},
		{"address of 5 bytes", answer(a, 2).record(own, a, 60, append(v4, 0)...), true, ""},
		{"address of no bytes", answer(a, 2).record(own, a, 60), true, ""},
		{"someone else's address of 3 bytes", answer(a, 2).record(name("b"), a, 60, v4[:3]...), true, ""},
		{"v6 address of 4 bytes", answer(a, 2).record(own, aaaa, 60, v4...), true, ""},
		{"v6 address of 17 bytes", answer(a, 2).record(own, aaaa, 60, append(v6, 0)...), true, ""},
		{"TTL with its top bit set", answer(a, 2).record(own, a, 1<<31, v4...), false, "192.0.2.1/0"},
		{"the longest TTL", answer(a, 2).record(own, a, 1<<31-1, v4...), false, "192.0.2.1/2147483647"},
		{"chain of a TTL with its top bit set", answer(a, 3).record(own, cname, 1<<32-1, name("b")...).record(name("b"), a, 60, v4...), false, "192.0.2.1/0"},
		{"owner in mixed case", answer(a, 2).record(name("A.eXample"), a, 60, v4...), false, "192.0.2.1/60"},
		{"owner by a pointer to a part", answer(a, 2).record(join(labels("A"), pointer(first+2)), a, 60, v4...), false, "192.0.2.1/60"},
		{"owner by a pointer to a pointer", answer(a, 2).record(pointer(records), a, 60, v4...), false, "192.0.2.1/60"},
		{"owner without the first label", answer(a, 2).record(pointer(first+2), a, 60, v4...), false, ""},
		{"owner with a label more", answer(a, 2).record(join(labels("x"), own), a, 60, v4...), false, ""},
		{"owner ahead", answer(a, 2).record(pointer(second+2), a, 60, v4...), true, ""},
		{"owner is itself", answer(a, 2).record(pointer(second), a, 60, v4...), true, ""},
		{"owner leads into itself", answer(a, 2).record(join(labels("x"), pointer(second)), a, 60, v4...), true, ""},
		{"owner in the header", answer(a, 2).record(pointer(4), a, 60, v4...), true, ""},
		{"owner behind the end", answer(a, 2).record(pointer(0x3fff), a, 60, v4...), true, ""},
		{"owner runs into itself", answer(a, 2).record(pointer(second-1), a, 60, v4...), true, ""},
		// a pointer whose second byte is the first of the pointer to it: 0xc0c0, to a root at 192
		{"owner overlaps the pointer that it leads to", answer(a, 4).record(own, txt, 60, make([]byte, 180)...).record(own, a, 60, 192, 0, 2, 192).
			record(pointer(second+12+180+15), a, 60, v4...), true, "192.0.2.192/60"},
		{"owner of a reserved label", answer(a, 2).record([]byte{0x80, 0}, a, 60, v4...), true, ""},
		{"owner of a record of no use, malformed", answer(a, 2).record([]byte{0x80, 0}, txt, 60), true, ""},
		{"half a pointer at the end", append(answer(a, 2), 0xc0), true, ""},
		{"target longer than its record", answer(a, 3).recordOf(own, cname, 60, 2, name("b")...).record(own, a, 60, v4...), true, ""},
		{"target shorter than its record", answer(a, 3).record(own, cname, 60, append(name("b"), 0)...).record(own, a, 60, v4...), true, ""},
		{"target of no bytes", answer(a, 3).record(own, cname, 60).record(own, a, 60, v4...), true, ""},
		{"target ahead", answer(a, 3).record(own, cname, 60, pointer(second+14)...).record(own, a, 60, v4...), true, ""},
		{"target is itself", answer(a, 3).record(own, cname, 60, pointer(second+12)...).record(own, a, 60, v4...), true, ""},
		{"someone else's target malformed", answer(a, 3).record(name("b"), cname, 60, 0x80).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"target by a pointer", answer(a, 3).record(own, cname, 50, pointer(first+2)...).record(pointer(first+2), a, 60, v4...), false, "192.0.2.1/50"},
		{"target by a pointer, owner by a pointer to it", answer(a, 3).record(own, cname, 50, pointer(first+2)...).record(pointer(second+12), a, 60, v4...), false, "192.0.2.1/50"},
		{"the asked name, led on from", answer(a, 3).record(own, cname, 50, name("b")...).record(own, a, 60, v4...), false, ""},
		{"target is the name that it has", answer(a, 3).record(own, cname, 50, own...).record(own, a, 60, v4...), false, "192.0.2.1/50"},

		{"service with hints", service(param(4, v4...), param(6, v6...)), false, "192.0.2.1/60 2001:db8::1/60"},
		{"service without parameters", service(), false, ""},
		{"service of unknown parameters", service(param(0, 0, 4), param(3, 0, 99), param(4, v4...), param(65534)), false, "192.0.2.1/60"},
		{"service of the key that is invalid", service(param(4, v4...), param(65535)), true, ""},
		{"service of the same key twice", service(param(4, v4...), param(4, v4...)), true, ""},
		{"service of descending keys", service(param(6, v6...), param(4, v4...)), true, ""},
		{"service with 0 twice", service(param(0, 0, 4), param(0, 0, 4)), true, ""},
		{"service with half a parameter", service(param(4, v4...), []byte{0, 9, 0}), true, ""},
		{"service with a parameter beyond it", service(param(4, v4...), paramOf(9, 1)), true, ""},
		{"v4 hint of no bytes", service(param(4)), true, ""},
		{"v4 hint of 6 bytes", service(param(4, 1, 2, 3, 4, 5, 6)), true, ""},
		{"v6 hint of no bytes", service(param(4, v4...), param(6)), true, ""},
		{"v6 hint of 20 bytes", service(param(4, v4...), param(6, append(v6, v4...)...)), true, ""},
		{"service without a target", answer(https, 2).record(own, https, 60, 0, 1), true, ""},
		{"service with half a priority", answer(https, 2).record(own, https, 60, 0), true, ""},
		{"service of no bytes", answer(https, 2).record(own, https, 60), true, ""},
		{"service whose target leaves it", answer(https, 2).recordOf(own, https, 60, 4, join([]byte{0, 1}, name("t.example"))...), true, ""},
		{"service alias with hints", answer(https, 2).record(own, https, 60, join([]byte{0, 0}, name("t"), param(4, v4...))...), false, ""},
		{"service alias of descending keys", answer(https, 2).record(own, https, 60, join([]byte{0, 0}, name("t"), param(9), param(4, v4...))...), true, ""},
		{"someone else's service, malformed", answer(https, 3).record(name("b"), https, 60, 7).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"malformed service that nobody asked for", answer(a, 3).record(own, https, 60, 7).record(own, a, 60, v4...), false, "192.0.2.1/60"},
		{"SVCB for a question of HTTPS", answer(https, 2).record(own, svcb, 60, join([]byte{0, 1}, name("t"), param(4, v4...))...), false, "192.0.2.1/60"},
		{"two services, the second malformed", service(param(4, v4...)).more().record(own, https, 60, 7), true, "192.0.2.1/60"},
		{"address behind a service", service(param(4, v4...), param(6, v6...)).more().record(own, a, 50, address("192.0.2.2")...), false, "192.0.2.1/60 2001:db8::1/60 192.0.2.2/50"},
	} {
		t.Run(test.what, func(t *testing.T) {
			d, learned := r.check(t, test.msg, 0)
			if malformed := d.Answers == -1; malformed != test.malformed {
				t.Errorf("read as malformed: %v, want %v", malformed, test.malformed)
			}
			want := strings.Fields("192.0.2.7/60 " + test.learned)
			if got := texts(learned); !slices.Equal(got, want) {
				t.Errorf("learned %q, want %q", got, want)
			}
		})
	}
}

// more counts one answer more.
func (m wireMessage) more() wireMessage {
	m = slices.Clone(m)
	m[7]++
	return m
}

// A chain of pointers without labels is followed to a bound, and no further:
// each of them leads back, so nothing else ends it early.
func TestDNSPointerChains(t *testing.T) {
	r := newDNSReader(t)
	for _, test := range []struct {
		pointers  int
		malformed bool
	}{{1, false}, {2, false}, {125, false}, {126, false}, {127, true}, {1000, true}, {2500, true}} {
		// the pointers are the data of a record that nobody needs; the owner is the last
		m := message(name("a.example"), 1, 2)
		var chain []byte
		at, to := len(m)+12, 12
		for range test.pointers - 1 {
			chain = append(chain, pointer(to)...)
			to = at
			at += 2
		}
		m = m.record(pointer(12), 16, 60, chain...).record(pointer(to), 1, 60, 192, 0, 2, 1)
		d, learned := r.check(t, m, 0)
		if malformed := d.Answers == -1; malformed != test.malformed || len(learned) == 1 == test.malformed {
			t.Errorf("%d pointers: malformed %v, learned %v, want malformed %v", test.pointers, malformed, learned, test.malformed)
		}
	}
}

// A name of one label at the end of each of many pointers' labels: the longest
// that there can be, and one too long.
func TestDNSNamesOfManyPointers(t *testing.T) {
	r := newDNSReader(t)
	for n := 1; n <= 130; n++ {
		m := message(name("a"), 1, 2)
		var chain []byte
		at, to := len(m)+12, 12
		for range n - 1 {
			chain = append(chain, append(labels("B"), pointer(to)...)...)
			to = at
			at += 4
		}
		m = m.record(pointer(12), 16, 60, chain...).record(pointer(to), 1, 60, 192, 0, 2, 1)
		d, learned := r.check(t, m, 0)
		// n labels of 2 bytes and the root's
		if malformed, want := d.Answers == -1, n > 126; malformed != want {
			t.Errorf("%d labels and pointers: malformed %v, want %v", n, malformed, want)
		}
		if owns := len(learned) == 1; owns != (n == 1) {
			t.Errorf("%d labels: learned %v", n, learned)
		}
	}
}

// The room is read to its last byte, and not beyond: what stands behind a
// message is none of it.
func TestDNSMessagesThatFillTheRoom(t *testing.T) {
	r := newDNSReader(t)
	m := message(name("a.example"), 1, 1024)
	for len(m)+16 <= maxMessage {
		m = m.record(pointer(12), 1, 60, 192, 0, byte(len(m)>>8), byte(len(m)))
	}
	records := (len(m) - 27) / 16
	m[6], m[7] = byte(records>>8), byte(records)
	d, _ := r.check(t, m, 0)
	if d.Answers != int32(records) {
		t.Errorf("%d answers, want %d", d.Answers, records)
	}
	// of one more there is room only for the beginning
	m[6], m[7] = byte((records+1)>>8), byte(records+1)
	whole := append(m, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
	for n := len(m); n <= maxMessage; n++ {
		if d, _ := r.check(t, whole[:n], 0); d.Answers != -1 {
			t.Errorf("%d bytes: %d answers, want malformed", n, d.Answers)
		}
	}
}

// Random changes to messages of all kinds.
func TestDNSDifferential(t *testing.T) {
	r := newDNSReader(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("EGATE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("EGATE_SEED=%d repeats this", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var seeds [][]byte
	for _, msg := range serverMessages() {
		if len(msg) <= 600 {
			seeds = append(seeds, msg)
		}
	}
	slices.SortFunc(seeds, slices.Compare)
	rounds := 20_000
	if _, ok := testutil.InVM(); ok {
		rounds = 3_000 // as long there
	}
	read, malformed := 0, 0
	for range rounds {
		msg := mutate(random, seeds)
		if d, _ := r.check(t, msg, random.IntN(256)); d.Question >= 0 && d.Answers >= 0 {
			read++
		} else {
			malformed++
		}
	}
	if read < rounds/20 || malformed < rounds/20 {
		t.Errorf("%d read, %d malformed: the changes are too strong or too weak", read, malformed)
	}
}

func mutate(random *rand.Rand, seeds [][]byte) []byte {
	msg := slices.Clone(seeds[random.IntN(len(seeds))])
	for range 1 + random.IntN(3) {
		at := random.IntN(len(msg))
		switch random.IntN(6) {
		case 0:
			msg[at] = byte(random.Uint32())
		case 1:
			msg[at] ^= 1 << random.IntN(8)
		case 2: // a small number
			msg[at] = byte(random.IntN(20))
		case 3: // a pointer to anywhere near
			if at+1 < len(msg) {
				msg[at], msg[at+1] = 0xc0, byte(random.IntN(len(msg)))
			}
		case 4:
			msg = slices.Delete(msg, at, min(len(msg)-1, at+1+random.IntN(4)))
		case 5:
			from := random.IntN(len(msg))
			msg = slices.Insert(msg, at, msg[from:min(len(msg), from+1+random.IntN(16))]...)
		}
	}
	return msg
}

func TestReadDotted(t *testing.T) {
	r := newDNSReader(t)
	label := strings.Repeat("x", 63)
	most := strings.Repeat(label+".", 3) + strings.Repeat("y", 61) // 253 bytes
	for _, test := range []struct {
		name string
		want string // "": none
	}{
		{"example.com", "example.com"},
		{"WWW.Example.COM", "www.example.com"},
		{"@[`{AZaz09-_~!", "@[`{azaz09-_~!"},
		{"example.com.", "example.com"},
		{"a", "a"},
		{"a.", "a"},
		{"", ""},
		{".", ""},
		{"..", ""},
		{".a", ""},
		{"a..", ""},
		{"a..b", ""},
		{"a.b..", ""},
		{label, label},
		{label + ".com", label + ".com"},
		{label + "x", ""},
		{label + "x.com", ""},
		{"com." + label + "x", ""},
		{most, most},
		{most + ".", most},
		{most + "y", ""},
		{most[1:] + ".y", ""},
		{strings.Repeat("a.", 126) + "b", strings.Repeat("a.", 126) + "b"},
		{strings.Repeat("a.", 127) + "b", ""},
		{strings.Repeat("a.", 5000), ""},
		{"a b", ""},
		{" a", ""},
		{"a ", ""},
		{"a\x00b", ""},
		{"a\x1f", ""},
		{"a\x7f", ""},
		{"bücher.example", ""},
		{"a\xff", ""},
		{"192.0.2.1", "192.0.2.1"},
		{"a/b:c@d", "a/b:c@d"},
	} {
		result, d := r.readDotted(t, []byte(test.name))
		if test.want == "" {
			if result != -1 {
				t.Errorf("%q: read, want none", test.name)
			}
			continue
		}
		if result != 0 {
			t.Errorf("%q: refused", test.name)
			continue
		}
		want := name(test.want)
		if got := d.Wire[:d.NameBytes]; !slices.Equal(got, want) {
			t.Errorf("%q: name %q, want %q", test.name, got, want)
			continue
		}
		longest := 0
		all := strings.Split(test.want, ".")
		for i, l := range all {
			longest = max(longest, len(l))
			if start := int(d.Starts[i]); start != wireStart(want, i) {
				t.Errorf("%q: label %d starts at %d", test.name, i, start)
			}
		}
		if int(d.Labels) != len(all) || int(d.Longest) != longest {
			t.Errorf("%q: %d labels, longest %d, want %d, %d", test.name, d.Labels, d.Longest, len(all), longest)
		}
		if want := testKey.Hash(test.want); d.Hash != want {
			t.Errorf("%q: hash %#x, want %#x", test.name, d.Hash, want)
		}
	}
}

// What the verifier looked at must stay far below its limit of a million.
func TestDNSVerifierEffort(t *testing.T) {
	r := newDNSReader(t)
	for what, p := range map[string]*ebpf.Program{"egate_read_dns": r.program, "egate_read_dotted": r.dotted} {
		found := processed.FindStringSubmatch(p.VerifierLog)
		if found == nil {
			t.Fatalf("%s: the verifier says %q", what, p.VerifierLog)
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d instructions verified", what, n)
		if n > 60_000 {
			t.Errorf("%s: %d instructions verified, it was about 10,000", what, n)
		}
	}
}

package daemon

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"egate/internal/datapath"
)

// Bounds of the daemon's own questions, for each gate: who floods a resolver's
// client with answers that can't be read must not make the daemon flood the
// resolver.
const (
	questionsAtOnce = 8
	questionEvery   = 50 * time.Millisecond
	sameAgainAfter  = 5 * time.Second
	questionTime    = 3 * time.Second
	readAgainAfter  = time.Second
	dnsPort         = 53
)

// asker asks what the programs of a gate could not read.
type asker struct {
	gate     *served
	log      *log.Logger
	slots    chan struct{}
	stopped  chan struct{}
	answered atomic.Uint64

	mu    sync.Mutex
	asked map[question]time.Time // when, of those that may not be asked again yet
}

// question is what makes one the same as another.
type question struct {
	name   string
	server netip.Addr
	kind   uint16
}

func newAsker(gate *served, l *log.Logger) *asker {
	return &asker{
		gate: gate, log: l, slots: make(chan struct{}, questionsAtOnce), stopped: make(chan struct{}),
		asked: map[question]time.Time{},
	}
}

// stop ends run; questions that wait for their answers go on to their time limit.
func (a *asker) stop() { close(a.stopped) }

// run asks until the gate is off or the asker is stopped.
func (a *asker) run() {
	pace := time.NewTicker(questionEvery)
	defer pace.Stop()
	complained := ""
	for {
		u, err := a.gate.unread.Read()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			if complained != err.Error() {
				complained = err.Error()
				a.logf("%v", err)
			}
			if !a.wait(readAgainAfter) {
				return
			}
			continue
		}
		complained = ""
		if !a.isNew(question{u.Name, u.Server, u.Type}, time.Now()) {
			continue
		}
		select {
		case <-a.stopped:
			return
		case <-pace.C:
		}
		select {
		case <-a.stopped:
			return
		case a.slots <- struct{}{}:
		}
		go func() {
			defer func() { <-a.slots }()
			a.answer(&u)
		}()
	}
}

// wait waits; false if the asker was stopped meanwhile.
func (a *asker) wait(d time.Duration) bool {
	select {
	case <-a.stopped:
		return false
	case <-time.After(d):
		return true
	}
}

func (a *asker) logf(format string, args ...any) {
	a.log.Printf("gate "+a.gate.name+": "+format, args...)
}

// isNew tells whether a question was not asked lately, and notes it.
func (a *asker) isNew(q question, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, at := range a.asked {
		if now.Sub(at) >= sameAgainAfter {
			delete(a.asked, old)
		}
	}
	if _, known := a.asked[q]; known {
		return false
	}
	a.asked[q] = now
	return true
}

// answer asks, and lets the gate learn the answer.
func (a *asker) answer(u *datapath.Unread) {
	addresses, err := a.ask(u)
	if err != nil && a.wait(readAgainAfter) { // once more: a connection may fail
		addresses, err = a.ask(u)
	}
	opened := 0
	if err == nil {
		opened, err = datapath.Vouch(a.gate.name, u, addresses)
	}
	if errors.Is(err, datapath.ErrNoGate) {
		return
	}
	kind := dns.Type(u.Type).String()
	if err != nil {
		a.logf("the answer of %v about %s (%s) could not be read (%s), and asking for it failed: %v", u.Server, u.Name, kind, u.Outcome, err)
		return
	}
	a.answered.Add(1)
	a.logf("the answer of %v about %s (%s) could not be read (%s); asked for it, and opened %d addresses", u.Server, u.Name, kind, u.Outcome, opened)
}

// ask asks the same server over TCP for what was asked, and also for addresses:
// when the gate lets answers about the name pass that it can't read, it does so
// whatever was asked.
func (a *asker) ask(u *datapath.Unread) ([]datapath.AddressTTL, error) {
	server := netip.AddrPortFrom(u.Server, dnsPort)
	c, err := net.DialTimeout("tcp", server.String(), questionTime)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	// Every gate on the way reads what comes in, and drops what it can't read.
	gates, err := datapath.Gates()
	if err != nil {
		return nil, err
	}
	local, remote := addrPortOf(c.LocalAddr()), addrPortOf(c.RemoteAddr())
	for _, gate := range gates {
		if err := datapath.PassUnread(gate, local, remote); err != nil && gate == a.gate.name {
			return nil, err
		}
	}
	found, err := exchange(c, u.Name, u.Type)
	if err != nil {
		return nil, err
	}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if kind == u.Type {
			continue
		}
		// Policies may forbid to ask for one of them, and applications then have
		// no answer either.
		if more, err := exchange(c, u.Name, kind); err == nil {
			found = append(found, more...)
		}
	}
	return found, nil
}

func addrPortOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// exchange asks one question on a connection.
func exchange(c net.Conn, name string, kind uint16) ([]datapath.AddressTTL, error) {
	if err := c.SetDeadline(time.Now().Add(questionTime)); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	client := &dns.Client{Net: "tcp", Timeout: questionTime}
	in, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: c})
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask: %w", err)
	case !in.Response || in.Opcode != dns.OpcodeQuery || in.Truncated:
		return nil, errors.New("ask: what came is no whole answer")
	case !slices.ContainsFunc(in.Question, func(q dns.Question) bool {
		return len(in.Question) == 1 && strings.EqualFold(q.Name, m.Question[0].Name) && q.Qtype == kind
	}):
		return nil, errors.New("ask: what came answers another question")
	case in.Rcode != dns.RcodeSuccess:
		return nil, fmt.Errorf("ask: the server says %s", dns.RcodeToString[in.Rcode])
	}
	return addressesOf(in, name, kind), nil
}

package datapath

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
	"egate/internal/verdict"
)

// serveDNS answers every A question with the outer end of the cable.
func serveDNS(t *testing.T, n *testutil.Netns, addr string) {
	t.Helper()
	var conn net.PacketConn
	var err error
	n.Run(func() { conn, err = net.ListenPacket("udp", net.JoinHostPort(addr, "53")) })
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{
		PacketConn: conn, NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(outsideAddr),
			}}
			// Who asked may be gone; the test sees that there is no answer.
			_ = w.WriteMsg(m)
		}),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-failed; err != nil {
			t.Error(err)
		}
	})
}

// resolve asks a server from the inside.
func (w *world) resolve(server, name string) {
	w.t.Helper()
	w.inside.Run(func() {
		conn, err := net.Dial("udp", net.JoinHostPort(server, "53"))
		if err != nil {
			w.t.Fatal(err)
		}
		defer conn.Close()
		c := &dns.Client{Timeout: testutil.Patience(2 * time.Second)}
		answer, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), &dns.Conn{Conn: conn})
		if err != nil {
			w.t.Fatalf("resolve %s: %v", name, err)
		}
		if len(answer.Answer) != 1 {
			w.t.Fatalf("resolve %s: %v", name, answer)
		}
	})
}

// TestNamesOpenThroughRealSockets asks a server outside, and stubs inside that
// are reached over loopback.
func TestNamesOpenThroughRealSockets(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		for _, server := range []string{outsideAddr, "127.0.0.53", insideAddr} {
			t.Run(server, func(t *testing.T) {
				w := newWorld(t, hook)
				at := w.inside
				if server == outsideAddr {
					at = w.outside
				}
				serveDNS(t, at, server)
				p := w.newProbe(1000, 2000)
				w.apply("interfaces: [eth0]\negress:\n  default: drop\n  rules:\n    - {name: named, action: allow, to: {domains: [\"*.example\"], ports: [udp/1000]}}\ndns: {servers: [" + server + "]}\n")
				p.expect("before", map[int]bool{1000: false, 2000: false})
				w.resolve(server, "a.test")
				p.expect("another name", map[int]bool{1000: false, 2000: false})
				w.resolve(server, "a.example")
				p.expect("after", map[int]bool{1000: true, 2000: false})

				names, err := ReadNames(w.gate)
				if err != nil || len(names) != 1 {
					t.Fatalf("names %+v, %v; want one", names, err)
				}
				n := names[0]
				if n.Name != "a.example" || !slices.Equal(n.Rules, []string{"named"}) || n.Connections != 1 || len(n.Addresses) != 1 ||
					n.Addresses[0].Address != netip.MustParseAddr(outsideAddr) || time.Since(n.Seen).Abs() > 10*time.Second {
					t.Errorf("name %+v", n)
				} else if left := time.Until(n.Addresses[0].Expires); left < 290*time.Second || left > 301*time.Second {
					t.Errorf("%v left, want 300 s", left)
				}
				s := w.status().Names
				if !s.InUse || len(s.Servers) != 1 || s.Servers[0].String() != server || s.Addresses.New != 1 || s.Texts.New != 1 || s.Bound != 1 {
					t.Errorf("status %+v", s)
				}
				var met []string
				for _, m := range s.Messages {
					met = append(met, m.Outcome)
				}
				if got := strings.Join(met, " "); got != "asked learned not-listed" {
					t.Errorf("messages %q, want asked, learned and not-listed", got)
				}
				for _, table := range s.Tables {
					if (table.Evicted != nil && *table.Evicted != 0) || table.Known > table.Max {
						t.Errorf("table %+v", table)
					}
				}
			})
		}
	})
}

// TestRulesOfNames tells them by the maps of a policy of several words.
func TestRulesOfNames(t *testing.T) {
	w := newWorld(t, HookAuto)
	var text strings.Builder
	text.WriteString("interfaces: [eth0]\negress:\n  default: drop\n  rules:\n")
	for i := range 150 { // to be 3 words
		name := map[int]string{0: "[a.example]", 70: "[a.example, b.example]", 149: "[\"*.example\"]"}[i]
		if name == "" {
			text.WriteString("    - {action: allow, to: {ports: [udp/" + string(rune('1'+i%9)) + "]}, from: {addresses: [10.1.0.0/16]}, name: r" + strings.Repeat("x", i%60) + string(rune('a'+i/60)) + "}\n")
			continue
		}
		text.WriteString("    - {action: allow, name: names-" + string(rune('a'+i/60)) + ", to: {domains: " + name + "}}\n")
	}
	w.apply(text.String() + "dns: {servers: [10.9.0.2]}\n")
	for _, name := range []string{"a.example", "b.example", "c.b.example", "other.test"} {
		w.learnByHand(name, netip.MustParseAddr("192.0.2.1"), time.Hour)
	}
	names, err := ReadNames(w.gate)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range names {
		got[n.Name] = strings.Join(n.Rules, " ")
	}
	want := map[string]string{"a.example": "names-a names-b names-c", "b.example": "names-b names-c", "c.b.example": "names-c", "other.test": ""}
	for name, rules := range want {
		if got[name] != rules {
			t.Errorf("%s: rules %q, want %q", name, got[name], rules)
		}
	}
	if len(got) != len(want) {
		t.Errorf("names %v, want %v", got, want)
	}
}

func TestNoNames(t *testing.T) {
	w := newWorld(t, HookAuto)
	_, err := ReadNames(w.gate)
	wantError(t, "no gate", err, ErrNoGate)
	_, err = ReadNames("a b")
	wantError(t, "name", err, ErrGateName)
	w.apply(onlyPorts(1000))
	if names, err := ReadNames(w.gate); err != nil || len(names) != 0 {
		t.Errorf("names %v, %v; want none", names, err)
	}
}

// TestRingTellsNames reads events with and without the name's text behind them.
func TestRingTellsNames(t *testing.T) {
	w := newWorld(t, HookAuto)
	serveDNS(t, w.outside, outsideAddr)
	p := w.newProbe(1000)
	w.apply("interfaces: [eth0]\negress:\n  default: drop\n  events: all\n  rules:\n    - {action: allow, to: {domains: [a.example]}, events: all}\ndns: {servers: [10.9.0.2]}\n")
	r, err := OpenRing(w.gate)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.resolve(outsideAddr, "b.example")
	w.resolve(outsideAddr, "a.example")
	p.expect("", map[int]bool{1000: true})
	for _, want := range []struct {
		reason verdict.Reason
		name   string
	}{{verdict.ReasonDNS, "b.example"}, {verdict.ReasonDNS, "a.example"}, {verdict.ReasonRule, "a.example"}} {
		var e RingEvent
		if err := r.Read(&e); err != nil {
			t.Fatal(err)
		}
		if got := r.Name(&e); verdict.Reason(e.Reason) != want.reason || got != want.name {
			t.Errorf("%v with name %q, want %v with %q", verdict.Reason(e.Reason), got, want.reason, want.name)
		}
	}
}

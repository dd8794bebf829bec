package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// dnsServer answers outside over UDP and TCP, with as many addresses as a name's
// first label says, of which outsideAddr is the first.
type dnsServer struct{ asked atomic.Int64 }

func (s *dnsServer) ServeDNS(out dns.ResponseWriter, q *dns.Msg) {
	s.asked.Add(1)
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	var count int
	name := q.Question[0].Name
	if _, err := fmt.Sscanf(name, "n%d.", &count); err != nil {
		m.Rcode = dns.RcodeNameError
	}
	if q.Question[0].Qtype == dns.TypeA {
		for i := range count {
			ip := net.IPv4(192, 0, byte(2+i/250), byte(1+i%250))
			if i == 0 {
				ip = net.ParseIP(outsideAddr)
			}
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: ip})
		}
	}
	// A test that misses its answer says so itself.
	_ = out.WriteMsg(m)
}

func (w *world) serveDNS() *dnsServer {
	w.t.Helper()
	s := &dnsServer{}
	var err error
	udp, tcp := &dns.Server{Handler: s}, &dns.Server{Handler: s}
	var echo net.Listener
	w.outside.Run(func() {
		if udp.PacketConn, err = net.ListenPacket("udp4", outsideAddr+":53"); err != nil {
			return
		}
		if tcp.Listener, err = net.Listen("tcp4", outsideAddr+":53"); err != nil {
			return
		}
		echo, err = net.Listen("tcp4", outsideAddr+":7000")
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, server := range []*dns.Server{udp, tcp} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		w.t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				w.t.Errorf("stop DNS server: %v", err)
			}
			<-done
		})
	}
	return s
}

// lookUp asks from inside, and gives the number of addresses in the answer.
func (w *world) lookUp(network, name string, patience time.Duration) (int, error) {
	w.t.Helper()
	patience = testutil.Patience(patience)
	var c net.Conn
	var err error
	w.inside.Run(func() { c, err = net.DialTimeout(network, outsideAddr+":53", patience) })
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(8192, false)
	client := &dns.Client{Net: network, Timeout: patience, UDPSize: 8192}
	in, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: c, UDPSize: 8192})
	if err != nil {
		return 0, err
	}
	return len(in.Answer), nil
}

func (w *world) connects() bool {
	w.t.Helper()
	var c net.Conn
	var err error
	w.inside.Run(func() { c, err = net.DialTimeout("tcp4", outsideAddr+":7000", testutil.Patience(900*time.Millisecond)) }) // one SYN: the next comes after a second
	if err == nil {
		c.Close()
	}
	return err == nil
}

const names = `interfaces: [eth0]
dns: {servers: [` + outsideAddr + `]}
egress:
  default: drop
  rules:
    - {name: listed, action: allow, to: {domains: ["*.example"]}}
`

// TestAsksWhatCouldNotBeRead: an answer of 20 KB over TCP, and one in fragments
// over UDP, do not pass without a daemon, and do with one, together with what
// they open.
func TestAsksWhatCouldNotBeRead(t *testing.T) {
	for _, c := range []struct {
		network, name string
		count         int
		outcome       string
	}{
		{"tcp4", "n1250.example.", 1250, "too-long"},
		{"udp4", "n200.example.", 200, "fragmented"},
	} {
		t.Run(c.outcome, func(t *testing.T) {
			w := newWorld(t)
			server := w.serveDNS()
			w.apply("g", names)
			if n, err := w.lookUp(c.network, c.name, 300*time.Millisecond); err == nil {
				t.Errorf("without a daemon the answer passes, with %d addresses", n)
			}
			if w.connects() {
				t.Error("without a daemon the address is open")
			}
			d := w.start("all")
			// What was told while there was no daemon, it asks now.
			d.logs(strings.TrimSuffix(c.name, ".") + " (A) could not be read (" + c.outcome + "); asked for it")
			if !w.connects() {
				t.Errorf("with a daemon the address is closed:\n%s", d.text())
			}
			began := time.Now()
			n, err := w.lookUp(c.network, c.name, 3*time.Second)
			if err != nil || n != c.count {
				t.Errorf("with a daemon: %d addresses, %v; want %d\n%s", n, err, c.count, d.text())
			}
			t.Logf("the answer, vouched for, after %v", time.Since(began))

			// A name that was never asked for: TCP sends again what was dropped.
			if c.network == "tcp4" {
				began = time.Now()
				if n, err = w.lookUp(c.network, "n1251.example.", 5*time.Second); err != nil || n != 1251 {
					t.Errorf("another name: %d addresses, %v\n%s", n, err, d.text())
				}
				t.Logf("the first answer after %v", time.Since(began))
			}
			before := server.asked.Load()
			if n, err := w.lookUp("udp4", "n3.example.", time.Second); err != nil || n != 3 {
				t.Errorf("a short answer: %d, %v", n, err)
			}
			if more := server.asked.Load() - before; more != 1 {
				t.Errorf("for an answer that can be read, %d questions", more)
			}
			d.killed()
			if !w.connects() {
				t.Error("after the daemon's end the address is closed")
			}
			s := w.status("g")
			if s.State != datapath.Enforcing {
				t.Errorf("%s: %q", s.State, s.Problems)
			}
		})
	}
}

// TestTwoGatesOnTheWay: the daemon's own question passes both, though neither
// can read its answer.
func TestTwoGatesOnTheWay(t *testing.T) {
	w := newWorld(t)
	w.serveDNS()
	w.apply("one", names)
	w.apply("two", names)
	d := w.start("all")
	d.logs("gate two: served")
	if n, err := w.lookUp("tcp4", "n1250.example.", 10*time.Second); err != nil || n != 1250 {
		t.Errorf("%d addresses, %v\n%s", n, err, d.text())
	}
	if !w.connects() {
		t.Errorf("closed\n%s", d.text())
	}
}

func TestAskerBoundsItself(t *testing.T) {
	a := newAsker(&served{name: "g"}, nil)
	now := time.Unix(1000, 0)
	q := question{"a.example", netip.MustParseAddr("192.0.2.53"), dns.TypeA}
	other := q
	other.kind = dns.TypeAAAA
	for _, step := range []struct {
		q     question
		after time.Duration
		want  bool
	}{
		{q, 0, true}, {q, 0, false}, {other, 0, true}, {q, sameAgainAfter - 1, false}, {q, sameAgainAfter, true}, {q, sameAgainAfter + 1, false},
	} {
		if got := a.isNew(step.q, now.Add(step.after)); got != step.want {
			t.Errorf("%v after %v: new %v, want %v", step.q, step.after, got, step.want)
		}
	}
	if len(a.asked) != 1 {
		t.Errorf("%d questions are remembered, want the one that may not be asked again", len(a.asked))
	}
	a.stop()
	if a.wait(time.Hour) {
		t.Error("a stopped asker waits")
	}
}

func TestAddressesOf(t *testing.T) {
	for _, c := range []struct {
		what    string
		asked   uint16
		records []string
		want    string
	}{
		{"an address", dns.TypeA, []string{"a.example. 300 IN A 192.0.2.1"}, "192.0.2.1 5m0s"},
		{"another name's", dns.TypeA, []string{"b.example. 300 IN A 192.0.2.1"}, ""},
		{"case", dns.TypeA, []string{"A.eXample. 300 IN A 192.0.2.1"}, "192.0.2.1 5m0s"},
		{"a chain, which shortens lives", dns.TypeAAAA, []string{
			"a.example. 30 IN CNAME b.test.", "b.test. 20 IN CNAME c.test.", "c.test. 300 IN AAAA 2001:db8::1", "c.test. 10 IN AAAA 2001:db8::2",
		}, "2001:db8::1 20s, 2001:db8::2 10s"},
		{"a chain in the wrong order", dns.TypeA, []string{"b.test. 20 IN A 192.0.2.1", "a.example. 30 IN CNAME b.test."}, ""},
		{"of a name that the chain has left", dns.TypeA, []string{
			"a.example. 30 IN CNAME b.test.", "a.example. 20 IN A 192.0.2.1", "b.test. 20 IN A 192.0.2.2",
		}, "192.0.2.2 20s"},
		{"another class", dns.TypeA, []string{"a.example. 300 CH A 192.0.2.1"}, ""},
		{"both families", dns.TypeA, []string{"a.example. 300 IN AAAA 2001:db8::1", "a.example. 300 IN A 192.0.2.1"}, "2001:db8::1 5m0s, 192.0.2.1 5m0s"},
		{"hints", dns.TypeHTTPS, []string{
			"a.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1",
			"a.example. 60 IN HTTPS 0 b.test.",
		}, "192.0.2.1 1m0s, 192.0.2.2 1m0s, 2001:db8::1 1m0s"},
		{"hints that were not asked for", dns.TypeA, []string{"a.example. 60 IN HTTPS 1 . ipv4hint=192.0.2.1"}, ""},
		{"no records", dns.TypeA, nil, ""},
	} {
		m := new(dns.Msg)
		for _, text := range c.records {
			r, err := dns.NewRR(text)
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			m.Answer = append(m.Answer, r)
		}
		var got []string
		for _, a := range addressesOf(m, "a.example", c.asked) {
			got = append(got, fmt.Sprintf("%v %v", a.Address, a.TTL))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: %q, want %q", c.what, text, c.want)
		}
	}
	negative := new(dns.Msg)
	negative.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.example.", Class: dns.ClassINET, Ttl: 1 << 31}, A: net.IPv4(192, 0, 2, 1)}}
	if got := addressesOf(negative, "a.example", dns.TypeA); !slices.Equal(got, []datapath.AddressTTL{{Address: netip.MustParseAddr("192.0.2.1")}}) {
		t.Errorf("a life with the top bit set: %v, want 0", got)
	}
}

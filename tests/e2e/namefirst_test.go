package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// The rule of these tests: every name below n.test, at a port where names are
// not verified.
const listedRule = `name: listed, action: allow, to: {domains: ["*.n.test"], ports: [tcp/8080]}`

// unlisted numbers lie apart from all others.
const unlistedNumbers = 0x10000

// TestFirstPacketOfEachName: names that nobody has asked for before are looked
// up and connected to at once. Every first packet passes, of both families,
// whether DNS came over UDP or TCP. No daemon runs.
func TestFirstPacketOfEachName(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("drop", listedRule)) + dnsSection())
	names, unlisted := 10_000, 200
	if _, vm := testutil.InVM(); vm {
		names, unlisted = 300, 20
	}
	// A SYN that is dropped is sent again a second later.
	again := sentAgain(t, w.client.Netns)
	from := 0
	for _, c := range []struct {
		network string
		names   int
	}{{"udp", names}, {"tcp", names / 10}} {
		begin := time.Now()
		eachOf(4, c.names, func(i int) error { return w.visit(c.network, from+i) }, t.Error)
		t.Logf("%d names over %s in %v", c.names, c.network, time.Since(begin).Round(time.Millisecond))
		from += c.names
	}
	if n := sentAgain(t, w.client.Netns) - again; n != 0 {
		t.Errorf("%d SYN were sent a second time, want none", n)
	}
	s := w.status("host")
	if got := stoppedTCP(s); got != 0 {
		t.Errorf("%d packets to listed names were stopped, want none; all counters:\n  %s", got, countersOf(s))
	}

	// The same server has the others' addresses too.
	var addrs []netip.Addr
	for i := range unlisted {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			addrs = append(addrs, w.mustAsk(query{name: fmt.Sprintf("a%d.u.test", unlistedNumbers+i), qtype: qtype})...)
		}
	}
	if len(addrs) != 2*unlisted {
		t.Fatalf("%d addresses of %d unlisted names", len(addrs), unlisted)
	}
	eachOf(200, len(addrs), func(i int) error {
		c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(addrs[i], servicePort), wait)
		if err == nil {
			c.Close()
			return fmt.Errorf("%v, of a name that is not listed, was reached", addrs[i])
		}
		return nil
	}, t.Error)
	if got := stoppedTCP(w.status("host")); got < uint64(len(addrs)) {
		t.Errorf("%d packets to %d addresses of unlisted names were stopped", got, len(addrs))
	}
	w.run("off")
}

// visit looks up a name of its own by its number and connects to its address.
// Families alternate, of the address and of the server.
func (w *nameWorld) visit(network string, n int) error {
	q := query{name: fmt.Sprintf("a%d.n.test", n), network: network, qtype: dns.TypeA}
	want, want6 := numbered(n)
	if n%2 == 1 {
		q.qtype, want = dns.TypeAAAA, want6
	}
	q.to = netip.AddrPortFrom(w.serverAddr()[n/2%2], 53)
	answer, _, err := w.ask(q)
	if err != nil {
		return fmt.Errorf("ask %v for %s: %w", q.to, q.name, err)
	}
	addrs := addressesIn(answer)
	if len(addrs) != 1 || addrs[0] != want {
		return fmt.Errorf("the addresses of %s are %v, want %v", q.name, addrs, want)
	}
	// Less than the second after which a dropped SYN is sent again.
	c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(want, servicePort), testutil.Patience(900*time.Millisecond))
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	return c.Close()
}

// stoppedTCP counts the packets of TCP that were not let out. Of other protocols
// there are some that no test sends: a stub that has its answer already tells a
// second server by ICMP that nobody waits for one more.
func stoppedTCP(s *datapath.Status) uint64 {
	for _, p := range s.Totals[0].Protocols {
		if p.Number == unix.IPPROTO_TCP {
			return p.Blocked.Packets
		}
	}
	return 0
}

// eachOf calls f for 0 to count-1, several at once, and reports the first ten
// errors.
func eachOf(atOnce, count int, f func(i int) error, report func(...any)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	next := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					if failed++; failed <= 10 {
						report(err)
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
	if failed > 10 {
		report(fmt.Sprintf("and %d more", failed-10))
	}
}

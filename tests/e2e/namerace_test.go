package e2e

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// TestNamesWhilePoliciesSwitch: every first packet passes also while one policy
// after the other, all of which list the name, takes over.
func TestNamesWhilePoliciesSwitch(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	policies := []string{
		policyFor("veth0", egress("reject", listedRule)) + dnsSection(),
		policyFor("veth0", egress("reject", `name: udp, action: drop, to: {domains: ["*.u.test"], ports: [udp/9]}`, listedRule)) + dnsSection("names: listed"),
	}
	w.apply(policies[0])
	switches, atOnce := 6, 4
	if _, vm := testutil.InVM(); vm { // where loading a policy takes seconds of a processor
		switches, atOnce = 2, 1
	}
	var visited atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			first := int(visited.Load())
			eachOf(atOnce, 50, func(i int) error { return w.visit("udp", (first+i)%0x20000) }, t.Error)
			visited.Add(50)
		}
	}()
	for i := range switches {
		before := visited.Load()
		w.apply(policies[(i+1)%2])
		eventually(t, 10*time.Second, "names that are visited under the next policy", func() bool { return visited.Load() > before+50 })
	}
	close(stop)
	<-stopped
	if n := stoppedTCP(w.status("host")); n != 0 {
		t.Errorf("%d packets to %d listed names were stopped, want none", n, visited.Load())
	}
	t.Logf("%d names while %d policies took over", visited.Load(), switches)
	w.run("off")
}

// TestLearnedForOpenSockets: what was refused before its name was learned passes
// afterwards, from the same port.
func TestLearnedForOpenSockets(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	v4, v6 := numbered(1)
	setUp(t, w.server.Netns, "lo", netip.PrefixFrom(v6, 128))
	w.apply(policyFor("veth0", egress("reject", `name: echo, action: allow, to: {domains: ["*.n.test"], ports: [udp/7]}`)) + dnsSection())
	for _, to := range []netip.Addr{v4, v6} {
		serveEchoAt(t, w.server.Netns, netip.AddrPortFrom(to, 7))
		c, err := dial(w.client.Netns, "udp", netip.AddrPortFrom(to, 7), wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 3 {
			if got := outcomeOf(exchange(c, 10, testutil.Patience(longWait))); got != refused {
				t.Errorf("a datagram to %v, whose name nobody asked for, %s", to, got)
			}
		}
		qtype := dns.TypeA
		if to.Is6() {
			qtype = dns.TypeAAAA
		}
		w.mustAsk(query{name: "a1.n.test", qtype: qtype})
		if got := outcomeOf(exchange(c, 10, testutil.Patience(longWait))); got != passes {
			t.Errorf("a datagram to %v, now that its name is known, %s", to, got)
		}
	}
	w.run("off")
}

// TestSpecialAddresses: no name opens loopback, link-local or multicast
// addresses, such as that of a cloud's metadata.
func TestSpecialAddresses(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	metadata := netip.MustParseAddr("169.254.169.254")
	setUp(t, w.server.Netns, "lo", netip.PrefixFrom(metadata, 32))
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection())
	honest, _ := numbered(1)
	special := []netip.Addr{metadata, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("224.0.0.1"),
		netip.MustParseAddr("::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")}
	w.names.setForge(func(rw dns.ResponseWriter, question *dns.Msg) bool {
		// A client that has gone is no error of the server.
		_ = rw.WriteMsg(answerFrom(map[string][]netip.Addr{"a1.n.test.": append(slices.Clone(special), honest)}, question))
		return true
	})
	w.look("a1.n.test")
	w.reach(honest, passes)
	w.reach(metadata, refused)
	if got := w.status("host").Names.Addresses; got.Special != uint64(len(special)) || got.New != 1 {
		t.Errorf("addresses are counted as %+v, want %d special ones and 1 new", got, len(special))
	}
	w.run("off")
}

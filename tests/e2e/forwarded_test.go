package e2e

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"egate/internal/testutil"
)

// route is a client and a server with a router between them.
type route struct {
	client, inner, outer, server testutil.Link
}

func newRoute(t *testing.T) route {
	t.Helper()
	client, router, server := quietNetns(t), quietNetns(t), quietNetns(t)
	// Before the interfaces exist: joining the routers' groups is reported too.
	router.Sysctl("net.ipv4.ip_forward", "1")
	router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	var r route
	r.client, r.inner = testutil.VethPair(t,
		testutil.Port{Netns: client, Name: "veth0", Addrs: testutil.Addrs("10.77.1.2/24", "fd77:1::2/64")},
		testutil.Port{Netns: router, Name: "inner", Addrs: testutil.Addrs("10.77.1.1/24", "fd77:1::1/64")})
	r.server, r.outer = testutil.VethPair(t,
		testutil.Port{Netns: server, Name: "veth0", Addrs: testutil.Addrs("10.77.2.2/24", "fd77:2::2/64")},
		testutil.Port{Netns: router, Name: "outer", Addrs: testutil.Addrs("10.77.2.1/24", "fd77:2::1/64")})
	testutil.KnowEachOther(t, r.client, r.inner)
	testutil.KnowEachOther(t, r.server, r.outer)
	for _, to := range []string{"0.0.0.0/0", "::/0"} {
		prefix := netip.MustParsePrefix(to)
		family := 0
		if prefix.Addr().Is6() {
			family = 1
		}
		testutil.Route(t, r.client, prefix, addrsOf(r.inner)[family])
		testutil.Route(t, r.server, prefix, addrsOf(r.outer)[family])
	}
	settle(t, r.client, r.inner, r.outer, r.server)
	return r
}

// TestForwarded: a router judges what it forwards, and answers the client that
// sent it, wherever the gate stands.
func TestForwarded(t *testing.T) {
	t.Parallel()
	rules := []string{
		`name: no-web, action: reject, to: {ports: [tcp/80]}`,
		`name: no-time, action: reject, to: {ports: [udp/123]}`,
		`name: no-ping, action: reject, to: {icmp: [echo-request]}`,
		`name: no-dns, action: drop, to: {ports: [53]}`,
		`name: bulk, action: allow, to: {ports: [tcp/9]}`,
	}
	for _, c := range []struct {
		name   string
		iface  string
		policy string
		judged string // the direction in which the client's packets are judged
		answer string // and their answers, which are not
	}{
		{"outer interface", "outer", egress("drop", rules...), "egress", "ingress"},
		{"inner interface", "inner", ingress("drop", rules...), "ingress", "egress"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRoute(t)
			sink := newCountingSink(t, r.server.Netns, 9)
			e := newEgate(t, r.inner.Netns)
			e.apply(policyFor(c.iface, c.policy))
			for _, to := range addrsOf(r.server) {
				curl(80).check(t, r.client.Netns, to, refused)
				echo(123, 100).check(t, r.client.Netns, to, refused)
				ping(1).check(t, r.client.Netns, to, refused)
				connect(53).check(t, r.client.Netns, to, silent)
				connect(2222).check(t, r.client.Netns, to, silent)
				sink.sendAll(t, r.client.Netns, netip.AddrPortFrom(to, 9), 4<<20)
			}
			s := e.wantCounters(counts{
				// 1 packet of each family, and its answer.
				c.judged + " no-web rejected": 2, c.judged + " no-time rejected": 2, c.judged + " no-ping rejected": 2,
				c.answer + ": own-answer":    6,
				c.judged + " no-dns dropped": 2, c.judged + " default dropped": 2, c.judged + ": default": 2,
				c.judged + " bulk allowed": some, c.judged + ": rule": some,
				// The acknowledgments of the transfer, in the open direction.
				c.answer + " default allowed": some, c.answer + ": default": some,
			})
			for _, chain := range s.Chains {
				for _, rule := range chain.Rules {
					// 4 MiB of each family in segments of at most 1,460 bytes (1,500 less
					// 40 of headers): at least 5,746, however few GSO packets they came in.
					if rule.Name == "bulk" && rule.Allowed.Packets < 2*(4<<20)/1460 {
						t.Errorf("bulk counts %d packets for 8 MiB", rule.Allowed.Packets)
					}
				}
			}
		})
	}
}

// countingSink is a server that tells a client how much it has received.
type countingSink struct{ received chan int64 }

func newCountingSink(t *testing.T, in *testutil.Netns, port uint16) *countingSink {
	t.Helper()
	s := &countingSink{make(chan int64, 1)}
	l := listenTCP(t, in, port)
	go accept(l, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c) // a broken connection shows in the number
		s.received <- n
	})
	return s
}

// sendAll sends size bytes over a connection of its own and waits until the
// server has them all.
func (s *countingSink) sendAll(t *testing.T, from *testutil.Netns, to netip.AddrPort, size int) {
	t.Helper()
	c, err := dial(from, "tcp", to, testutil.Patience(longWait))
	if err != nil {
		t.Fatalf("connect to %v: %v", to, err)
	}
	_, err = c.Write(make([]byte, size))
	if closing := c.Close(); err != nil || closing != nil {
		t.Fatalf("send to %v: %v %v", to, err, closing)
	}
	if n := <-s.received; n != int64(size) {
		t.Errorf("%v received %d of %d bytes", to, n, size)
	}
}

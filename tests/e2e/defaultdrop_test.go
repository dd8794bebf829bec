package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"egate/internal/testutil"
)

// guardedPair is a pair whose second host, the server, is the guarded one.
func guardedPair(t *testing.T) (p pair, e *egate) {
	t.Helper()
	p = newPair(t)
	for _, n := range []*testutil.Netns{p.client.Netns, p.server.Netns} {
		serveHTTP(t, n, 80)
		serveEcho(t, n, 7)
	}
	return p, newEgate(t, p.server.Netns)
}

// TestDefaultDrop: a host that may open nothing still serves.
func TestDefaultDrop(t *testing.T) {
	t.Parallel()
	t.Run("a server answers and opens nothing", func(t *testing.T) {
		t.Parallel()
		p, e := guardedPair(t)
		before := readWire(t, p.server)
		e.apply(policyFor("veth0", egress("drop")))
		for _, to := range p.serverAddr() {
			curl(80).check(t, p.client.Netns, to, passes)
			ping(2).check(t, p.client.Netns, to, passes)
			echo(7, 100).check(t, p.client.Netns, to, passes)
			// The host's own ICMP error: nothing listens there.
			closedPort(t, p.client.Netns, netip.AddrPortFrom(to, 1234))
		}
		for _, to := range p.clientAddr() {
			curl(80).check(t, p.server.Netns, to, silent)
			ping(1).check(t, p.server.Netns, to, silent)
			echo(7, 100).check(t, p.server.Netns, to, silent)
		}
		waitForCalm(t, p.server)
		before.checkWire(t, e.wantCounters(counts{
			// Of each family the host's own SYN, echo request and datagram.
			"egress default dropped": 6, "egress: default": 6,
			// 2 port unreachable.
			"egress: reply-error": 2,
			// 4 echo replies, 2 datagrams and the connection's segments.
			"egress: reply": some, "egress default allowed": some,
			"ingress default allowed": some, "ingress: default": some,
		}))
	})

	t.Run("neighbours are found", func(t *testing.T) {
		t.Parallel()
		p := newTalkingPair(t)
		settle(t, p.client, p.server)
		e := newEgate(t, p.server.Netns)
		e.apply(policyFor("veth0", egress("drop"), ingress("drop", `name: ping, action: allow, to: {icmp: [echo-request]}`)))
		for range 2 {
			for _, n := range []*testutil.Netns{p.client.Netns, p.server.Netns} {
				n.Exec("ip", "neigh", "flush", "all")
			}
			for _, to := range p.serverAddr() {
				ping(1).check(t, p.client.Netns, to, passes)
			}
		}
		e.wantCounters(counts{
			// 2 rounds, 2 families.
			"ingress ping allowed": 4, "ingress: rule": 4, "egress: reply": 4,
			// At least one ARP request or answer and as many of IPv6, both ways.
			"egress: control-frame": some, "egress: neighbour-discovery": some, "egress default allowed": some,
			"ingress: control-frame": some, "ingress: neighbour-discovery": some, "ingress default allowed": some,
		})
	})

	t.Run("replies false silences it", func(t *testing.T) {
		t.Parallel()
		p, e := guardedPair(t)
		e.apply(policyFor("veth0", egress("drop\nreplies: false")))
		for _, to := range p.serverAddr() {
			connect(80).check(t, p.client.Netns, to, silent)
			ping(1).check(t, p.client.Netns, to, silent)
			echo(7, 100).check(t, p.client.Netns, to, silent)
		}
		s := e.steadyStatus()
		got := countersOf(s)
		// The SYN-ACK is sent again each second; nobody waits for that, but one
		// could come. The echo reply and the datagram are 1 each.
		if n := got["egress default dropped"]; n < 6 || n > 8 || n != got["egress: default"] {
			t.Errorf("dropped %d packets, want 6 to 8; all counters:\n  %s", n, got)
		}
		// Of each family an echo request, a datagram, and a SYN or two of a busy machine.
		if n := got["ingress default allowed"]; n < 6 || n > 8 {
			t.Errorf("%d packets came in, want 6 to 8", n)
		}
		checkSums(t, s)
	})
}

// closedPort sends a datagram that is answered with "port unreachable".
func closedPort(t *testing.T, from *testutil.Netns, to netip.AddrPort) {
	t.Helper()
	c, err := dial(from, "udp", to, wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := exchange(c, 10, testutil.Patience(longWait)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("datagram to closed port %v: %v, want port unreachable", to, err)
	}
}

// TestConnectionsBeforeApply: what was there before a policy begins to drop
// goes on if a peer opened it, and is cut if the host did.
func TestConnectionsBeforeApply(t *testing.T) {
	t.Parallel()
	p, e := guardedPair(t)
	for _, n := range []*testutil.Netns{p.client.Netns, p.server.Netns} {
		l := listenTCP(t, n, 9)
		go accept(l, func(c net.Conn) {
			buf := make([]byte, 64)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				c.Write(buf[:n])
			}
		})
	}
	type conversation struct {
		net.Conn
		what string
		want outcome
	}
	var all []conversation
	open := func(from *testutil.Netns, network string, to netip.AddrPort, what string, want outcome) {
		c, err := dial(from, network, to, testutil.Patience(longWait))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Cleanup(func() { c.Close() })
		if err := exchange(c, 10, testutil.Patience(longWait)); err != nil {
			t.Fatalf("%s, before: %v", what, err)
		}
		all = append(all, conversation{c, what + " to " + to.String(), want})
	}
	// An earlier policy that remembers who opened what, but lets all out.
	e.apply(policyFor("veth0", egress("allow"), ingress("drop",
		`name: all, action: allow, from: {addresses: [10.77.0.0/24, "fd77::/64"]}`)))
	for _, to := range p.serverAddr() {
		open(p.client.Netns, "tcp", netip.AddrPortFrom(to, 9), "connection of a peer", passes)
	}
	for _, to := range p.clientAddr() {
		open(p.server.Netns, "tcp", netip.AddrPortFrom(to, 9), "connection of the host", silent)
		open(p.server.Netns, "udp", netip.AddrPortFrom(to, 7), "datagrams of the host", silent)
	}
	e.run("off")
	// Again without any policy: no program saw these begin.
	for _, to := range p.serverAddr() {
		open(p.client.Netns, "tcp", netip.AddrPortFrom(to, 9), "unseen connection of a peer", passes)
	}
	for _, to := range p.clientAddr() {
		open(p.server.Netns, "tcp", netip.AddrPortFrom(to, 9), "unseen connection of the host", silent)
		open(p.server.Netns, "udp", netip.AddrPortFrom(to, 7), "unseen datagrams of the host", silent)
	}

	waitForCalm(t, p.server) // delayed acknowledgments would come before there is a gate
	before := readWire(t, p.server)
	e.apply(policyFor("veth0", egress("drop")))
	for _, c := range all {
		limit := wait
		if c.want != silent {
			limit = testutil.Patience(longWait)
		}
		if got := outcomeOf(exchange(c, 10, limit)); got != c.want {
			t.Errorf("%s %s, want that it %s", c.what, got, c.want)
		}
	}
	s := e.steadyStatus()
	got := countersOf(s)
	// 4 connections of peers: each has the echo of 10 bytes, and may have an
	// acknowledgment before it. 4 connections and 4 flows of the host: a segment
	// and its repetitions, a datagram.
	if n := got["egress: reply"]; n < 4 || n > 8 {
		t.Errorf("%d replies, want 4 to 8; all counters:\n  %s", n, got)
	}
	if n := got["egress default dropped"]; n < 8 {
		t.Errorf("%d dropped, want at least 8; all counters:\n  %s", n, got)
	}
	checkSums(t, s)
	before.checkWire(t, s)
}

// TestUDPAcrossSwitch: a flow that the host opened under a policy which
// remembers nothing is not taken for a peer's when a policy comes that does:
// the peer's datagram that arrives next does not open it.
func TestUDPAcrossSwitch(t *testing.T) {
	t.Parallel()
	p, e := guardedPair(t)
	peer := listenUDP(t, p.client.Netns, 5000)
	e.apply(policyFor("veth0", egress("allow")))
	type flow struct {
		host net.Conn
		addr netip.AddrPort // of the host, as the peer sees it
	}
	var flows []flow
	buf := make([]byte, 64)
	for _, to := range p.clientAddr() {
		c, err := dial(p.server.Netns, "udp", netip.AddrPortFrom(to, 5000), wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("first")); err != nil {
			t.Fatal(err)
		}
		n, from, err := peer.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != "first" {
			t.Fatalf("the peer received %q, %v", buf[:n], err)
		}
		flows = append(flows, flow{c, from})
	}

	e.apply(policyFor("veth0", egress("drop")))
	for _, f := range flows {
		if _, err := peer.WriteToUDPAddrPort([]byte("late"), f.addr); err != nil {
			t.Fatal(err)
		}
		if n, err := f.host.Read(buf); err != nil || string(buf[:n]) != "late" {
			t.Errorf("the host received %q, %v", buf[:n], err)
		}
		if _, err := f.host.Write([]byte("second")); err != nil {
			t.Errorf("send after the switch: %v", err)
		}
	}
	if err := peer.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := peer.ReadFromUDPAddrPort(buf); err == nil {
		t.Errorf("the peer received %q from %v after a switch to default drop", buf[:n], from)
	}
	e.wantCounters(counts{
		// 1 datagram of each family before the switch.
		"egress default allowed": 2,
		// And 1 after it.
		"egress default dropped": 2, "egress: default": 4,
		// The late datagrams.
		"ingress default allowed": 2, "ingress: default": 2,
	})
}

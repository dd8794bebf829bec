package e2e

import (
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// line is a way between two hosts, with a gate on it.
type line struct {
	near, far *testutil.Netns // what near sends to far leaves by the guarded interface
	gate      *testutil.Netns // where that is: near, or a host between the two
	iface     string
	addrs     [][2]netip.Addr // near's and far's, of each family that the line carries
}

// TestLinkTypes: allowed, dropped and rejected, both ways, on each kind of
// interface. Every kernel that tests run on has Ethernet, lo, a bridge's port
// and plain IP (tun); the other kinds are tried where the kernel has them.
func TestLinkTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind string
		make func(t *testing.T) line
	}{
		{"veth", vethLine},
		{"lo", loLine},
		{"bridge port", bridgeLine},
		{"tun", func(t *testing.T) line { return tunLine(t, unix.IFF_TUN) }},
		{"tap", func(t *testing.T) line { return tunLine(t, unix.IFF_TAP) }},
		{"ipip", func(t *testing.T) line { return tunnelLine(t, "ipip", 0) }},
		{"sit", func(t *testing.T) line { return tunnelLine(t, "sit", 0) }},
		{"ip6tnl", func(t *testing.T) line { return tunnelLine(t, "ip6tnl", 1) }},
		{"wireguard", wireguardLine},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			c.make(t).check(t)
		})
	}
	t.Run("dummy", func(t *testing.T) {
		t.Parallel()
		checkDummy(t)
	})
}

// check guards the line and tries each verdict in each direction. What comes
// between the gate and the hosts is attached when the gate is there.
func (l line) check(t *testing.T, between ...func()) {
	t.Helper()
	for _, n := range slices.Compact([]*testutil.Netns{l.near, l.far}) { // lo has one
		serveSink(t, n, 8080)
		serveEcho(t, n, 5000)
	}
	e := newEgate(t, l.gate)
	e.apply(policyFor(l.iface,
		egress("allow",
			`name: no-web, action: reject, to: {ports: [tcp/80]}`,
			`name: no-time, action: reject, to: {ports: [udp/123]}`,
			`name: no-dns, action: drop, to: {ports: [53]}`,
			`name: echo, action: allow, to: {ports: [udp/5000]}`),
		ingress("allow",
			`name: no-smtp, action: reject, to: {ports: [tcp/25]}`,
			`name: no-snmp, action: reject, to: {ports: [udp/161]}`,
			`name: no-ldap, action: drop, to: {ports: [389]}`)))
	for _, attach := range between {
		attach()
	}
	for _, pair := range l.addrs {
		near, far := pair[0], pair[1]
		connect(80).check(t, l.near, far, refused)
		echo(123, 100).check(t, l.near, far, refused)
		connect(53).check(t, l.near, far, silent)
		echo(53, 100).check(t, l.near, far, silent)
		echo(5000, 100).check(t, l.near, far, passes)
		connect(8080).check(t, l.near, far, passes)
		ping(1).check(t, l.near, far, passes)

		connect(25).check(t, l.far, near, refused)
		echo(161, 100).check(t, l.far, near, refused)
		connect(389).check(t, l.far, near, silent)
		connect(8080).check(t, l.far, near, passes)
	}
	n := uint64(len(l.addrs))
	want := counts{
		"egress no-web rejected":   n, // 1 SYN of each family
		"egress no-time rejected":  n, // 1 datagram
		"egress no-dns dropped":    2 * n,
		"egress echo allowed":      n,
		"egress: rule":             5 * n,
		"ingress no-smtp rejected": n,
		"ingress no-snmp rejected": n,
		"ingress no-ldap dropped":  n,
		"ingress: rule":            3 * n,
		"ingress: own-answer":      2 * n, // to no-web and no-time
		"egress: own-answer":       2 * n, // to no-smtp and no-snmp
		// Connections, pings, echoes, and what the hosts need to find each other.
		"egress default allowed": some, "egress: default": some,
		"ingress default allowed": some, "ingress: default": some,
	}
	if l.near == l.far {
		// All answers leave lo, and what leaves it comes in again.
		want["egress: own-answer"], want["ingress: own-answer"] = 4*n, 4*n
	}
	got := countersOf(e.status("host"))
	for _, direction := range []string{"egress", "ingress"} {
		if got[direction+": non-ip"] > 0 { // ARP, on Ethernet
			want[direction+": non-ip"] = some
		}
	}
	e.wantCounters(want)
	e.run("off")
}

func lineOf(near, far testutil.Link) line {
	l := line{near: near.Netns, far: far.Netns, gate: near.Netns, iface: near.Name}
	for i := range near.Addrs {
		l.addrs = append(l.addrs, [2]netip.Addr{near.Addrs[i].Addr(), far.Addrs[i].Addr()})
	}
	return l
}

func vethLine(t *testing.T) line {
	p := newPair(t)
	return lineOf(p.client, p.server)
}

func loLine(t *testing.T) line {
	n := quietNetns(t)
	l := line{near: n, far: n, gate: n, iface: "lo"}
	for _, a := range []string{"127.0.0.1", "::1"} {
		l.addrs = append(l.addrs, [2]netip.Addr{netip.MustParseAddr(a), netip.MustParseAddr(a)})
	}
	return l
}

// bridgeLine guards the port of a bridge that leads to the far host. The
// bridge has no address: it only forwards frames.
func bridgeLine(t *testing.T) line {
	near, between, far := quietNetns(t), quietNetns(t), quietNetns(t)
	a, _ := testutil.VethPair(t, testutil.Port{Netns: near, Name: "veth0", Addrs: clientAddrs}, testutil.Port{Netns: between, Name: "port1"})
	b, _ := testutil.VethPair(t, testutil.Port{Netns: far, Name: "veth0", Addrs: serverAddrs}, testutil.Port{Netns: between, Name: "port2"})
	between.Exec("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	for _, args := range []string{"br0 up", "port1 master br0", "port2 master br0"} {
		between.Exec("ip", append([]string{"link", "set"}, strings.Fields(args)...)...)
	}
	settle(t, a, b)
	l := lineOf(a, b)
	l.gate, l.iface = between, "port2"
	return l
}

// tunLine joins two tun or tap interfaces: what the one sends is written to
// the other, as a VPN would.
func tunLine(t *testing.T, mode uint16) line {
	near, far := quietNetns(t), quietNetns(t)
	a, b := openTun(t, near, mode), openTun(t, far, mode)
	for _, way := range [][2]*os.File{{a, b}, {b, a}} {
		go func() {
			buf := make([]byte, 65536)
			for {
				n, err := way[0].Read(buf)
				if err == io.EOF || err != nil && strings.Contains(err.Error(), os.ErrClosed.Error()) {
					return
				}
				if err == nil {
					// An interface that is not up yet refuses, and a packet is lost.
					_, _ = way[1].Write(buf[:n])
				}
			}
		}()
	}
	return lineOf(setUp(t, near, "tun0", clientAddrs...), setUp(t, far, "tun0", serverAddrs...))
}

// openTun makes tun0 in a namespace.
func openTun(t *testing.T, in *testutil.Netns, mode uint16) *os.File {
	t.Helper()
	request, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(mode | unix.IFF_NO_PI)
	var fd int
	in.Run(func() {
		// The file belongs to the namespace it is opened in.
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			t.Fatalf("open /dev/net/tun: %v", err)
		}
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Fatalf("make tun0: %v", err)
	}
	f := os.NewFile(uintptr(fd), "tun0")
	t.Cleanup(func() { f.Close() })
	return f
}

// tunnelLine is a tunnel through a pair of hosts, between their addresses of
// one family: 0 for IPv4, 1 for IPv6.
func tunnelLine(t *testing.T, kind string, family int) line {
	p := newPair(t)
	ends := []testutil.Link{p.client, p.server}
	// Which families it carries: ipip IPv4, sit IPv6, ip6tnl both.
	addrs := [][]netip.Prefix{
		testutil.Addrs("10.78.0.1/24", "fd78::1/64"),
		testutil.Addrs("10.78.0.2/24", "fd78::2/64"),
	}
	var made []testutil.Link
	for i, end := range ends {
		carried := addrs[i]
		switch kind {
		case "ipip":
			carried = carried[:1]
		case "sit":
			carried = carried[1:]
		}
		args := []string{"local", addrsOf(end)[family].String(), "remote", addrsOf(ends[1-i])[family].String()}
		if kind == "ip6tnl" {
			args = append(args, "mode", "any")
		}
		addLink(t, end.Netns, "tunnel0", kind, args...)
		made = append(made, setUp(t, end.Netns, "tunnel0", carried...))
	}
	return lineOf(made[0], made[1])
}

// checkDummy: nobody is behind a dummy interface, so what passes is only
// counted there, but an answer comes back.
func checkDummy(t *testing.T) {
	n := quietNetns(t)
	addLink(t, n, "dummy0", "dummy")
	setUp(t, n, "dummy0", clientAddrs...)
	e := newEgate(t, n)
	e.apply(policyFor("dummy0", egress("allow",
		`name: no-web, action: reject, to: {ports: [tcp/80]}`,
		`name: dns, action: allow, to: {ports: [53]}`,
		`name: no-time, action: drop, to: {ports: [123]}`)))
	for _, prefix := range serverAddrs {
		connect(80).check(t, n, prefix.Addr(), refused)
		echo(53, 100).check(t, n, prefix.Addr(), silent)
		echo(123, 100).check(t, n, prefix.Addr(), silent)
	}
	want := counts{
		// 1 of each family.
		"egress no-web rejected": 2, "ingress: own-answer": 2,
		"egress dns allowed": 2, "egress no-time dropped": 2, "egress: rule": 6,
	}
	if got := countersOf(e.status("host")); got["egress: default"] > 0 { // listener reports
		want["egress: default"], want["egress default allowed"] = some, some
	}
	e.wantCounters(want)
	e.run("off")
}

// addLink makes an interface, or skips the test where the kernel does not have
// this kind.
func addLink(t *testing.T, in *testutil.Netns, name, kind string, args ...string) {
	t.Helper()
	if !tryAddLink(t, in, name, kind, args...) {
		t.Skipf("the kernel has no %s interfaces", kind)
	}
}

// tryAddLink tells whether the kernel has this kind of interface.
func tryAddLink(t *testing.T, in *testutil.Netns, name, kind string, args ...string) bool {
	t.Helper()
	r := in.Try("ip", append([]string{"link", "add", "name", name, "type", kind}, args...)...)
	if r.Code != 0 && hasAny(r.Stderr, "Unknown device type", "not supported") {
		return false
	}
	if r.Code != 0 {
		t.Fatalf("make %s interface %s: %s", kind, name, r.Stderr)
	}
	return true
}

// setUp gives an interface addresses and sets it up.
func setUp(t *testing.T, in *testutil.Netns, name string, addrs ...netip.Prefix) testutil.Link {
	t.Helper()
	in.Exec("ip", "link", "set", name, "up")
	for _, a := range addrs {
		args := []string{"addr", "add", a.String(), "dev", name}
		if a.Addr().Is6() {
			args = append(args, "nodad")
		}
		in.Exec("ip", args...)
	}
	l, err := in.Handle().LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return testutil.Link{Netns: in, Name: name, Index: l.Attrs().Index, MAC: l.Attrs().HardwareAddr, Addrs: addrs}
}

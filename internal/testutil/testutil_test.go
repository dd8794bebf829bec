package testutil

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestEffectiveCaps(t *testing.T) {
	got, err := effectiveCaps([]byte("Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\n"))
	if err != nil || got != 0x1ffffffffff {
		t.Errorf("effectiveCaps = %#x, %v; want 0x1ffffffffff", got, err)
	}
	if _, err := effectiveCaps([]byte("Name:\tx\n")); err == nil {
		t.Error("effectiveCaps of a text without CapEff: no error")
	}
}

func TestParseRelease(t *testing.T) {
	for _, c := range []struct {
		release      string
		major, minor int
		ok           bool
	}{
		{"6.1.0-32-cloud-amd64", 6, 1, true},
		{"6.12.117+deb12-cloud-amd64", 6, 12, true},
		{"6", 0, 0, false},
		{"next", 0, 0, false},
	} {
		major, minor, err := parseRelease(c.release)
		if (err == nil) != c.ok || c.ok && (major != c.major || minor != c.minor) {
			t.Errorf("parseRelease(%q) = %d, %d, %v; want %d, %d", c.release, major, minor, err, c.major, c.minor)
		}
	}
}

func TestNetnsName(t *testing.T) {
	if got, want := netnsName("TestA/b c_d", 7, 2), "TestA-b-c-d-7-2"; got != want {
		t.Errorf("netnsName = %q, want %q", got, want)
	}
	if got := netnsName(strings.Repeat("x", 300), 7, 2); len(got) > 60 {
		t.Errorf("netnsName of a long test name has %d bytes", len(got))
	}
}

func TestNetnsCarriesTrafficOfBothFamilies(t *testing.T) {
	client, server := NewNetns(t), NewNetns(t)
	a, b := VethPair(t,
		Port{client, "veth0", Addrs("10.1.0.1/24", "fd00:1::1/64")},
		Port{server, "veth0", Addrs("10.1.0.2/24", "fd00:1::2/64")})
	KnowEachOther(t, a, b)
	for _, addr := range []string{"10.1.0.2:7", "[fd00:1::2]:7"} {
		var listener net.Listener
		var err error
		server.Run(func() { listener, err = net.Listen("tcp", addr) })
		if err != nil {
			t.Fatalf("listen on %s: %v", addr, err)
		}
		defer listener.Close()
		var conn net.Conn
		client.Run(func() { conn, err = net.DialTimeout("tcp", addr, Patience(2*time.Second)) })
		if err != nil {
			t.Fatalf("connect to %s: %v", addr, err)
		}
		conn.Close()
	}
	neighbours, err := client.Handle().NeighList(a.Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT == 0 && n.IP.IsGlobalUnicast() {
			t.Errorf("neighbour %v was resolved on the wire, state %#x", n.IP, n.State)
		}
	}
}

func TestRunLeavesTheNamespace(t *testing.T) {
	n := NewNetns(t)
	outside := ownNetns(t)
	var inside, nested string
	n.Run(func() {
		inside = ownNetns(t)
		n.Run(func() { nested = ownNetns(t) })
		if got := ownNetns(t); got != inside {
			t.Errorf("after a nested Run the thread is in %s, want %s", got, inside)
		}
	})
	if inside == outside || nested != inside {
		t.Errorf("namespaces outside, inside, nested: %s, %s, %s", outside, inside, nested)
	}
	func() {
		defer func() { recover() }()
		n.Run(func() { panic("a test's own failure") })
	}()
	if got := ownNetns(t); got != outside {
		t.Errorf("after a panic in Run the thread is in %s, want %s", got, outside)
	}
}

func ownNetns(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCommandsRunInTheNamespace(t *testing.T) {
	n := NewNetns(t)
	n.Sysctl("net.ipv4.ip_forward", "1")
	if got := n.Exec("cat", "/proc/sys/net/ipv4/ip_forward"); got != "1\n" {
		t.Errorf("ip_forward in the namespace is %q, want 1", got)
	}
	r := n.Try("sh", "-c", "echo out; echo err >&2; exit 3")
	if r.Code != 3 || r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("Try = %+v, want code 3, out, err", r)
	}
	p := n.Start("sh", "-c", "sleep 1000 & echo ready $!; wait")
	p.WaitFor("ready")
	child := strings.TrimSpace(strings.TrimPrefix(p.Stop(), "ready "))
	for limit := time.Now().Add(Patience(time.Second)); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("child %s of the stopped process still runs: %s", child, stat)
		}
	}
}

func TestNetnsIsRemoved(t *testing.T) {
	RequireRoot(t)
	var path string
	t.Run("inner", func(t *testing.T) {
		n := NewNetns(t)
		n.Start("sleep", "1000")
		path = n.Path()
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("the namespace is not listed: %v", err)
		}
	})
	if left, _ := filepath.Glob(path); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

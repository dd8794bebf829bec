package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// privateBPFFS keeps the pins of a test apart from those of the host.
func privateBPFFS(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(datapath.EnvBPFFS, dir)
}

// TestCommandsOnThisKernel goes through a gate's life with the real commands.
func TestCommandsOnThisKernel(t *testing.T) {
	testutil.RequireRoot(t)
	privateBPFFS(t)
	n := testutil.NewNetns(t)
	file := policyFile(t, "version: 1\nname: test\ninterfaces: [lo]\negress:\n  default: allow\n  rules:\n"+
		"    - {name: no-discard, action: drop, to: {ports: [udp/9]}}\n")
	egate := func(args ...string) (r result) {
		var stdout, stderr bytes.Buffer
		n.Run(func() {
			r.code = Run(context.Background(), Process{
				Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
				Env: func(string) string { return "" },
			})
		})
		r.stdout, r.stderr = stdout.String(), stderr.String()
		return r
	}
	egate("status").expect(t, ExitOK, "there is no gate")
	egate("off").expect(t, ExitRefused, "no such gate")
	// Where this test itself runs over SSH, nobody knows the way to its client in here.
	egate("apply", file, "--gate", "test", "--confirm", "1m", "--accept-risk", "lose-ssh").
		expect(t, ExitOK, "test: policy test (1 egress rule and 0 ingress rules) is in force on lo (", "egate confirm --gate test")
	egate("status").expect(t, ExitOK, "gate test: policy test, pending", file)
	egate("confirm", "--gate", "test").expect(t, ExitOK)
	egate("confirm", "--gate", "test").expect(t, ExitRefused, "no confirmation pending")

	stop := make(chan struct{})
	var sender net.Conn
	n.Run(func() {
		var err error
		if sender, err = net.Dial("udp", "127.0.0.1:9"); err != nil {
			t.Fatal(err)
		}
	})
	defer sender.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				// A drop is silent, but nothing here depends on it.
				_, _ = sender.Write([]byte("x"))
			}
		}
	}()
	events := egate("events", "--gate", "test", "--rule", "no-discard", "--count", "2")
	close(stop)
	<-done
	events.expect(t, ExitOK, "no-discard", "udp 127.0.0.1:", "-> 127.0.0.1:9")

	status := egate("status", "--gate", "test")
	status.expect(t, ExitOK, "gate test: policy test, enforcing", "egate/test", "no-discard", "udp")
	egate("doctor").expect(t, ExitOK, "egate/test")
	egate("off", "--all").expect(t, ExitOK, "test: off")
	egate("status", "-o", "json").expect(t, ExitOK, `"gates": []`)
	left, err := os.ReadDir(filepath.Join(os.Getenv(datapath.EnvBPFFS), "egate"))
	if err == nil && len(left) > 0 {
		t.Errorf("off leaves %v", left)
	}
}

func TestRealRoutes(t *testing.T) {
	testutil.RequireRoot(t)
	n := testutil.NewNetns(t)
	n.Run(func() {
		if names, known := (realRoutes{}).interfaces(netip.MustParseAddr("192.0.2.9")); known {
			t.Errorf("without a route the way is %q", names)
		}
		if names, known := (realRoutes{}).defaults(); !known || len(names) > 0 {
			t.Errorf("default routes by %q, %v", names, known)
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0"}, PeerName: "port1"}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		for _, l := range []netlink.Link{port, bridge} {
			if err := netlink.LinkAdd(l); err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			t.Fatal(err)
		}
		for _, prefix := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
			address, err := netlink.ParseAddr(prefix)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.AddrAdd(bridge, address); err != nil {
				t.Fatal(err)
			}
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Index, Gw: net.IPv4(192, 0, 2, 2)}); err != nil {
			t.Fatal(err)
		}
		for client, want := range map[string]string{
			"192.0.2.9": "[br0 port0]", "198.51.100.7": "[br0 port0]", "2001:db8::9": "[br0 port0]",
			"127.0.0.1": "[lo]", "fe80::9%br0": "[br0 port0]",
		} {
			names, known := (realRoutes{}).interfaces(netip.MustParseAddr(client))
			if got := fmt.Sprint(names); !known || got != want {
				t.Errorf("the way to %s is %s, %v; want %s", client, got, known, want)
			}
		}
		if names, known := (realRoutes{}).defaults(); !known || !slices.Equal(names, []string{"br0"}) {
			t.Errorf("default routes by %q, %v", names, known)
		}
	})
}

func TestWithLower(t *testing.T) {
	links := []netlink.Link{
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "eth0", MasterIndex: 3}},
		&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 2, Name: "eth1"}},
		&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: 3, Name: "br0"}},
		&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Index: 4, Name: "br0.7", ParentIndex: 3}},
		&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Index: 5, Name: "wg0"}},
		&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: 6, Name: "veth0", ParentIndex: 2}}, // the peer's number, in its namespace
	}
	for _, c := range []struct {
		from  int
		want  string
		known bool
	}{
		{2, "[eth1]", true},
		{3, "[br0 eth0]", true},
		{4, "[br0.7 br0 eth0]", true},
		{5, "[]", false},
		{6, "[veth0]", true},
		{99, "[]", false},
	} {
		names, known := withLower(links, []int{c.from})
		if got := fmt.Sprint(names); got != c.want || known != c.known {
			t.Errorf("from %d: %s, %v; want %s, %v", c.from, got, known, c.want, c.known)
		}
	}
}

package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Netns is a network namespace made for one test. It is removed, with its
// interfaces and the processes started in it, when the test ends. Its methods
// may be called from several goroutines at once.
type Netns struct {
	// Name is the namespace's name as `ip netns` lists it: the test's name,
	// shortened, the process id and a number.
	Name string

	fd netns.NsHandle
	t  testing.TB
}

var netnsCount atomic.Uint32

// NewNetns makes a network namespace with lo up and IPv6 on. It calls
// RequireRoot. What a killed test leaves behind is shown by `ip netns`.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	RequireRoot(t)
	n := &Netns{Name: netnsName(t.Name(), os.Getpid(), netnsCount.Add(1)), t: t}

	// NewNamed moves the calling thread into the namespace it makes.
	back := enter(t, netns.None())
	fd, err := netns.NewNamed(n.Name)
	back()
	if err != nil {
		t.Fatalf("make network namespace %s: %v", n.Name, err)
	}
	n.fd = fd
	t.Cleanup(func() {
		if err := netns.DeleteNamed(n.Name); err != nil {
			t.Errorf("delete network namespace %s: %v", n.Name, err)
		}
		if err := n.fd.Close(); err != nil {
			t.Errorf("close network namespace %s: %v", n.Name, err)
		}
	})

	n.Sysctl("net.ipv6.conf.all.disable_ipv6", "0")
	n.Sysctl("net.ipv6.conf.default.disable_ipv6", "0")
	// Without these two an address is unusable for a second and tests meet
	// packets that no sender of theirs sent.
	n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	n.Sysctl("net.ipv6.conf.default.router_solicitations", "0")
	n.Run(func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatalf("find lo in %s: %v", n.Name, err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatalf("set lo up in %s: %v", n.Name, err)
		}
	})
	return n
}

// netnsName turns a test's name into one that `ip netns` and a file system take.
func netnsName(test string, pid int, number uint32) string {
	const longest = 40
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, test)
	if len(clean) > longest {
		clean = clean[:longest]
	}
	return fmt.Sprintf("%s-%d-%d", clean, pid, number)
}

// Path is the file that stands for the namespace, under /run/netns.
func (n *Netns) Path() string { return filepath.Join("/run/netns", n.Name) }

// Run calls f with the calling goroutine's thread inside the namespace and
// comes back when f returns, panics or ends the test. Sockets, netlink
// handles and processes that f makes belong to the namespace and go on doing
// so afterwards. Goroutines that f starts do not run inside: open sockets in
// f itself, then hand them over. Calls may be nested.
func (n *Netns) Run(f func()) {
	n.t.Helper()
	defer enter(n.t, n.fd)()
	f()
}

// enter locks the goroutine to its thread and moves it to a namespace
// (netns.None: stays where it is); the function it returns moves it back.
func enter(t testing.TB, to netns.NsHandle) (back func()) {
	t.Helper()
	runtime.LockOSThread()
	origin, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		t.Fatalf("open own network namespace: %v", err)
	}
	if to != netns.None() {
		if err := netns.Set(to); err != nil {
			origin.Close()
			runtime.UnlockOSThread()
			t.Fatalf("enter network namespace: %v", err)
		}
	}
	return func() {
		err := netns.Set(origin)
		origin.Close()
		if err != nil {
			// Still locked, so that the thread dies with the goroutine and
			// no other one runs in the wrong namespace.
			t.Fatalf("leave network namespace: %v", err)
		}
		runtime.UnlockOSThread()
	}
}

// Sysctl writes a setting of the namespace, for example
// Sysctl("net.ipv4.ip_forward", "1").
func (n *Netns) Sysctl(key, value string) {
	n.t.Helper()
	file := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	n.Run(func() {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			n.t.Fatalf("set %s=%s in %s: %v", key, value, n.Name, err)
		}
	})
}

// Handle returns a netlink handle whose requests go to the namespace, from
// any goroutine. It is closed when the test ends.
func (n *Netns) Handle() *netlink.Handle {
	n.t.Helper()
	handle, err := netlink.NewHandleAt(n.fd)
	if err != nil {
		n.t.Fatalf("open netlink in %s: %v", n.Name, err)
	}
	n.t.Cleanup(handle.Close)
	return handle
}

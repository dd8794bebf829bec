package demo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses and ports of the demo, from the ranges that RFC 5737 and RFC 3849
// keep for examples.
const (
	insideLink  = "demo0"
	outsideLink = "demo1"
	echoPort    = 9000
)

var (
	inside4  = netip.MustParsePrefix("192.0.2.1/24")
	inside6  = netip.MustParsePrefix("2001:db8::1/64")
	outside4 = netip.MustParsePrefix("192.0.2.2/24")
	outside6 = netip.MustParsePrefix("2001:db8::2/64")
	webPorts = []uint16{80, 443, 8080}
)

// namespace is a network namespace without a name: it lasts as long as its
// file descriptor and the sockets in it, so nothing is left even of a process
// that is killed.
type namespace struct{ file *os.File }

func newNamespace() (*namespace, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		done <- result{file, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("make network namespace: %w", r.err)
	}
	return &namespace{r.file}, nil
}

// run calls f on a thread inside the namespace and waits for it. Sockets and
// processes that f makes belong to the namespace.
func (n *namespace) run(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (n *namespace) close() error { return n.file.Close() }

// network is the demo's world: two namespaces joined by a cable.
type network struct {
	inside, outside *namespace
	hasIPv6         bool
	servers         []io.Closer
	wait            sync.WaitGroup
}

func newNetwork() (*network, error) {
	n := &network{}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) build() (err error) {
	if n.inside, err = newNamespace(); err != nil {
		return err
	}
	if n.outside, err = newNamespace(); err != nil {
		return err
	}
	err = n.inside.run(func() error {
		cable := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: insideLink}, PeerName: outsideLink,
			PeerNamespace: netlink.NsFd(int(n.outside.file.Fd())),
		}
		if err := netlink.LinkAdd(cable); err != nil {
			return fmt.Errorf("make veth pair: %w", err)
		}
		n.hasIPv6 = enableIPv6()
		return n.configure(insideLink, inside4, inside6)
	})
	if err != nil {
		return err
	}
	err = n.outside.run(func() error {
		n.hasIPv6 = enableIPv6() && n.hasIPv6
		if err := n.configure(outsideLink, outside4, outside6); err != nil {
			return err
		}
		if err := waitForCarrier(outsideLink); err != nil {
			return err
		}
		return n.serve()
	})
	if err != nil {
		return err
	}
	return n.inside.run(func() error { return waitForCarrier(insideLink) })
}

// waitForCarrier waits until the kernel has noticed that both ends of the cable
// are up; before that it drops what is sent.
func waitForCarrier(name string) error {
	const limit = 5 * time.Second
	for begin := time.Now(); time.Since(begin) < limit; time.Sleep(5 * time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
	}
	return fmt.Errorf("wait for %s: it has no carrier after %v", name, limit)
}

// enableIPv6 switches IPv6 on in the current namespace; false where the kernel
// has none.
func enableIPv6() bool {
	for _, set := range []struct{ key, value string }{
		{"all/disable_ipv6", "0"},
		{"default/disable_ipv6", "0"},
		{"default/accept_dad", "0"}, // else an address may not be used for a second
		{"default/router_solicitations", "0"},
	} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+set.key, []byte(set.value), 0); err != nil {
			return false
		}
	}
	return true
}

func (n *network) configure(name string, addresses ...netip.Prefix) error {
	for _, up := range []string{"lo", name} {
		link, err := netlink.LinkByName(up)
		if err != nil {
			return fmt.Errorf("find %s: %w", up, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", up, err)
		}
		if up != name {
			continue
		}
		for _, a := range addresses {
			if a.Addr().Is6() && !n.hasIPv6 {
				continue
			}
			address := &netlink.Addr{
				IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())},
				Flags: unix.IFA_F_NODAD,
			}
			if err := netlink.AddrAdd(link, address); err != nil {
				return fmt.Errorf("add %v to %s: %w", a, name, err)
			}
		}
	}
	return nil
}

// serve starts a web server on each port, and a UDP echo, for both families.
func (n *network) serve() error {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello from outside")
	})
	for _, a := range n.targets() {
		for _, port := range webPorts {
			l, err := net.Listen("tcp", netip.AddrPortFrom(a, port).String())
			if err != nil {
				return fmt.Errorf("start web server: %w", err)
			}
			server := &http.Server{Handler: page, ReadHeaderTimeout: time.Second}
			n.servers = append(n.servers, server)
			n.wait.Go(func() {
				// It ends by being closed.
				_ = server.Serve(l)
			})
		}
		echo, err := net.ListenPacket("udp", netip.AddrPortFrom(a, echoPort).String())
		if err != nil {
			return fmt.Errorf("start UDP server: %w", err)
		}
		n.servers = append(n.servers, echo)
		n.wait.Go(func() { echoAll(echo) })
	}
	return nil
}

// echoAll sends every datagram back until the socket is closed.
func echoAll(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		size, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			// A datagram that gets lost shows in the table.
			_, _ = c.WriteTo(buf[:size], from)
		}
	}
}

// targets are the outside's addresses.
func (n *network) targets() []netip.Addr {
	targets := []netip.Addr{outside4.Addr()}
	if n.hasIPv6 {
		targets = append(targets, outside6.Addr())
	}
	return targets
}

// close ends the servers and gives the namespaces up; the cable goes with them.
func (n *network) close() error {
	var err error
	for _, s := range n.servers {
		err = errors.Join(err, s.Close())
	}
	n.wait.Wait()
	for _, ns := range []*namespace{n.inside, n.outside} {
		if ns != nil {
			err = errors.Join(err, ns.close())
		}
	}
	return err
}

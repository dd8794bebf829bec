package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is the sender's interface, which every contender guards.
const Link = "bench0"

const peerLink = "bench1"

// Addresses of both ends, from the ranges that RFC 5737 and RFC 3849 keep for
// examples. The lists that are measured never hold them.
var (
	Own4  = netip.MustParsePrefix("192.0.2.1/24")
	Own6  = netip.MustParsePrefix("2001:db8::1/64")
	Peer4 = netip.MustParsePrefix("192.0.2.2/24")
	Peer6 = netip.MustParsePrefix("2001:db8::2/64")
)

// World is one sender and one peer. All destinations are routed to the peer,
// and no address is ever asked for on the cable.
type World struct {
	Sender, Peer *Namespace

	closers []io.Closer
	sink    bool // see Sink
}

// New makes a world and waits until its cable carries packets.
func New() (*World, error) {
	w := &World{}
	if err := w.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("make world: %w", err), w.Close())
	}
	return w, nil
}

// KeepUntilClose closes what stands on the world before the world goes.
func (w *World) KeepUntilClose(c io.Closer) { w.closers = append(w.closers, c) }

// Close takes the world down with all in it.
func (w *World) Close() error {
	var err error
	for i := len(w.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, w.closers[i].Close())
	}
	for _, n := range []*Namespace{w.Sender, w.Peer} {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return err
}

func (w *World) build() (err error) {
	if w.Sender, err = NewNamespace(); err != nil {
		return err
	}
	if w.Peer, err = NewNamespace(); err != nil {
		return err
	}
	for _, n := range []*Namespace{w.Sender, w.Peer} {
		if err := n.Run(quietIPv6); err != nil {
			return err
		}
	}
	err = w.Sender.Run(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: Link}, PeerName: peerLink,
			PeerNamespace: netlink.NsFd(int(w.Peer.file.Fd())),
		})
	})
	if err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	var own, peer net.HardwareAddr
	if err := w.Sender.Run(func() (err error) { own, err = configure(Link, Own4, Own6); return err }); err != nil {
		return err
	}
	if err := w.Peer.Run(func() (err error) { peer, err = configure(peerLink, Peer4, Peer6); return err }); err != nil {
		return err
	}
	if err := w.Peer.Run(func() error { return know(peerLink, own, Own4, Own6) }); err != nil {
		return err
	}
	return w.Sender.Run(func() error {
		if err := know(Link, peer, Peer4, Peer6); err != nil {
			return err
		}
		if err := routeAllTo(Link, Peer4, Peer6); err != nil {
			return err
		}
		return waitForCarrier(Link)
	})
}

// quietIPv6 switches IPv6 on without the packets and delays by which it finds
// its surroundings.
func quietIPv6() error {
	for _, set := range []struct{ key, value string }{
		{"all/disable_ipv6", "0"},
		{"default/disable_ipv6", "0"},
		{"default/accept_dad", "0"},
		{"default/router_solicitations", "0"},
	} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+set.key, []byte(set.value), 0); err != nil {
			return fmt.Errorf("switch IPv6 on: %w", err)
		}
	}
	return nil
}

func configure(name string, addresses ...netip.Prefix) (net.HardwareAddr, error) {
	var mac net.HardwareAddr
	for _, up := range []string{"lo", name} {
		link, err := netlink.LinkByName(up)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", up, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("set %s up: %w", up, err)
		}
		if up != name {
			continue
		}
		mac = link.Attrs().HardwareAddr
		for _, a := range addresses {
			address := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrAdd(link, address); err != nil {
				return nil, fmt.Errorf("add %v to %s: %w", a, name, err)
			}
		}
	}
	return mac, nil
}

// know enters the other end's addresses as neighbours for good.
func know(name string, mac net.HardwareAddr, others ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, other := range others {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: other.Addr().AsSlice(), HardwareAddr: mac,
		})
		if err != nil {
			return fmt.Errorf("enter neighbour %v on %s: %w", other.Addr(), name, err)
		}
	}
	return nil
}

func routeAllTo(name string, gateways ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, gateway := range gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gateway.Addr().Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(all), Gw: gateway.Addr().AsSlice(),
		})
		if err != nil {
			return fmt.Errorf("route all to %v: %w", gateway.Addr(), err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// waitForCarrier waits until the kernel has noticed that both ends of the cable
// are up; before that it drops what is sent.
func waitForCarrier(name string) error {
	const limit = 10 * time.Second
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

// Sent is how many packets have gone onto the cable: what a contender drops
// never gets there.
func (w *World) Sent() (packets uint64, err error) {
	err = w.Sender.Run(func() error {
		link, err := netlink.LinkByName(Link)
		if err != nil {
			return fmt.Errorf("find %s: %w", Link, err)
		}
		packets = link.Attrs().Statistics.TxPackets
		return nil
	})
	return packets, err
}

// Kept finds what was given to KeepUntilClose by its type.
func Kept[T io.Closer](w *World) (kept T, ok bool) {
	for _, c := range w.closers {
		if kept, ok = c.(T); ok {
			return kept, true
		}
	}
	return kept, false
}

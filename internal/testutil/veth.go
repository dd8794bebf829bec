package testutil

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Port is one end of a VethPair: where it lives, its name of at most 15 bytes,
// and its addresses of both families with their prefix lengths.
type Port struct {
	Netns *Netns
	Name  string
	Addrs []netip.Prefix
}

// Link is an interface that a test made.
type Link struct {
	Netns *Netns
	Name  string
	Index int
	MAC   net.HardwareAddr
	Addrs []netip.Prefix
}

// Addrs parses addresses with prefix lengths, for the literals of a test.
func Addrs(prefixes ...string) []netip.Prefix {
	addrs := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		addrs[i] = netip.MustParsePrefix(p)
	}
	return addrs
}

// VethPair makes a pair of virtual Ethernet interfaces, one end in each port's
// namespace, gives them their addresses and sets them up. IPv6 addresses
// work at once: duplicate address detection is off.
func VethPair(t testing.TB, a, b Port) (Link, Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	pair := netlink.NewVeth(attrs)
	pair.PeerName = b.Name
	pair.PeerNamespace = netlink.NsFd(int(b.Netns.fd))
	if err := a.Netns.Handle().LinkAdd(pair); err != nil {
		t.Fatalf("make veth pair %s, %s: %v", a.Name, b.Name, err)
	}
	return bringUp(t, a), bringUp(t, b)
}

// bringUp gives the interface of a port its addresses and sets it up.
func bringUp(t testing.TB, p Port) Link {
	t.Helper()
	h := p.Netns.Handle()
	link, err := h.LinkByName(p.Name)
	if err != nil {
		t.Fatalf("find %s in %s: %v", p.Name, p.Netns.Name, err)
	}
	for _, prefix := range p.Addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{
			IP:   prefix.Addr().AsSlice(),
			Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		}}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			t.Fatalf("add %s to %s in %s: %v", prefix, p.Name, p.Netns.Name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatalf("set %s up in %s: %v", p.Name, p.Netns.Name, err)
	}
	return Link{
		Netns: p.Netns, Name: p.Name, Index: link.Attrs().Index,
		MAC: link.Attrs().HardwareAddr, Addrs: p.Addrs,
	}
}

// KnowEachOther enters two links' addresses in each other's neighbour tables
// for good, so that a test which counts packets exactly meets no ARP and no
// neighbour discovery.
func KnowEachOther(t testing.TB, a, b Link) {
	t.Helper()
	know(t, a, b)
	know(t, b, a)
}

func know(t testing.TB, who, whom Link) {
	t.Helper()
	h := who.Netns.Handle()
	for _, addr := range whom.Addrs {
		err := h.NeighSet(&netlink.Neigh{
			LinkIndex: who.Index, State: netlink.NUD_PERMANENT,
			IP: addr.Addr().AsSlice(), HardwareAddr: whom.MAC,
		})
		if err != nil {
			t.Fatalf("enter neighbour %s on %s: %v", addr.Addr(), who.Name, err)
		}
	}
}

// Route adds a route to a prefix via a gateway, in the namespace of the link
// it leaves by. An invalid gateway (netip.Addr{}) makes an on-link route.
func Route(t testing.TB, by Link, to netip.Prefix, via netip.Addr) {
	t.Helper()
	route := &netlink.Route{
		LinkIndex: by.Index,
		Dst: &net.IPNet{
			IP:   to.Masked().Addr().AsSlice(),
			Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen()),
		},
	}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	}
	if err := by.Netns.Handle().RouteAdd(route); err != nil {
		t.Fatalf("add route to %s on %s: %v", to, by.Name, err)
	}
}

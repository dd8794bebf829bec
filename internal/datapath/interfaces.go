package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of the map `ifaces`, which is indexed by ifindex.
const (
	minIfaceEntries = 16384 // 128 KiB, for interfaces to come
	maxIfindex      = 1<<20 - 1
)

// guarded is an interface that a policy guards. Index stays the same when the
// interface is renamed.
type guarded struct {
	Name  string `json:"name"`
	Index int    `json:"ifindex"`
	Link  uint8  `json:"link"` // enum egate_link
}

// defaultPattern stands for the interfaces that carry a default route.
const defaultPattern = "default"

// resolveInterfaces finds the interfaces of this network namespace that the
// patterns mean, sorted by ifindex, up or down. Warnings name patterns that
// match nothing at present. Errors wrap ErrNoInterface where none matches, and
// ErrInterface where one cannot be guarded.
func resolveInterfaces(patterns []string) (found []guarded, warnings []string, err error) {
	links, err := listLinks()
	if err != nil {
		return nil, nil, err
	}
	wanted := map[int]netlink.Link{}
	for _, pattern := range patterns {
		matches, err := matchLinks(pattern, links)
		if err != nil {
			return nil, nil, err
		}
		if len(matches) == 0 {
			what := fmt.Sprintf("no interface matches %q at present", pattern)
			if pattern == defaultPattern {
				what = "no interface carries a default route at present"
			}
			warnings = append(warnings, what)
		}
		for _, l := range matches {
			wanted[l.Attrs().Index] = l
		}
	}
	if len(wanted) == 0 {
		if len(patterns) == 1 && patterns[0] == defaultPattern {
			return nil, nil, fmt.Errorf("find interfaces: none carries a default route; name them in the policy; this network namespace has %s: %w", linkNames(links), ErrNoInterface)
		}
		return nil, nil, fmt.Errorf("find interfaces: none matches %s; this network namespace has %s: %w",
			quoteList(patterns), linkNames(links), ErrNoInterface)
	}
	for _, l := range wanted {
		g, err := guardedOf(l.Attrs())
		if err != nil {
			return nil, nil, err
		}
		found = append(found, g)
	}
	slices.SortFunc(found, func(a, b guarded) int { return cmp.Compare(a.Index, b.Index) })
	return found, warnings, nil
}

// listLinks lists the interfaces. A dump that the kernel calls interrupted,
// because interfaces changed meanwhile, is taken again.
func listLinks() ([]netlink.Link, error) {
	for tries := 0; ; tries++ {
		links, err := netlink.LinkList()
		if err == nil {
			return links, nil
		}
		if tries == 10 || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
	}
}

func matchLinks(pattern string, links []netlink.Link) ([]netlink.Link, error) {
	var matches []netlink.Link
	if pattern == defaultPattern {
		indexes, err := defaultRouteLinks()
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if indexes[l.Attrs().Index] {
				matches = append(matches, l)
			}
		}
		return matches, nil
	}
	for _, l := range links {
		ok, err := path.Match(pattern, l.Attrs().Name)
		if err != nil {
			return nil, fmt.Errorf("match interfaces with %q: %w", pattern, err)
		}
		if ok {
			matches = append(matches, l)
		}
	}
	return matches, nil
}

// defaultRouteLinks gives the ifindexes that default routes of either family
// in the main table leave by.
func defaultRouteLinks() (map[int]bool, error) {
	indexes := map[int]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
		routes, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Type != unix.RTN_UNICAST {
				continue // unreachable, blackhole
			}
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
					continue
				}
			}
			if r.LinkIndex > 0 {
				indexes[r.LinkIndex] = true
			}
			for _, hop := range r.MultiPath {
				indexes[hop.LinkIndex] = true
			}
		}
	}
	return indexes, nil
}

// linkLayers tells what stands before the IP header when a packet meets the TC
// hooks, by the names that package netlink gives to ARPHRD types. GRE is not
// among them: its header_ops put the outer header in front on egress, and on
// ingress the mac header is where the outer IP header was, so a program sees
// the tunnel's packet and not the one inside.
var linkLayers = map[string]abiEgateLink{
	"ether":    abiEgateLinkEGATE_LINK_ETHERNET,
	"loopback": abiEgateLinkEGATE_LINK_ETHERNET,
	"none":     abiEgateLinkEGATE_LINK_NONE, // tun, wireguard
	"ipip":     abiEgateLinkEGATE_LINK_NONE, // ARPHRD_TUNNEL
	"tunnel6":  abiEgateLinkEGATE_LINK_NONE,
	"sit":      abiEgateLinkEGATE_LINK_NONE,
	"ppp":      abiEgateLinkEGATE_LINK_NONE, // the PPP header comes behind the hooks
	"rawip":    abiEgateLinkEGATE_LINK_NONE,
}

// arphrdRawIP has no name in package netlink.
const arphrdRawIP = "unknown519"

func guardedOf(a *netlink.LinkAttrs) (guarded, error) {
	encap := a.EncapType
	if encap == arphrdRawIP {
		encap = "rawip"
	}
	layer, ok := linkLayers[encap]
	switch {
	case !ok:
		return guarded{}, fmt.Errorf("guard interface %s: its link type is %q, and egate reads Ethernet and plain IP (tun, wireguard, ipip, sit, ppp): %w", a.Name, encap, ErrInterface)
	case a.Index > maxIfindex:
		return guarded{}, fmt.Errorf("guard interface %s: its ifindex %d is over %d: %w", a.Name, a.Index, maxIfindex, ErrInterface)
	}
	return guarded{Name: a.Name, Index: a.Index, Link: uint8(layer)}, nil
}

// ifaceEntries is the size of the map `ifaces` for these interfaces and for as
// many more indexes to come: the kernel counts them up.
func ifaceEntries(found []guarded) uint32 {
	largest := found[len(found)-1].Index // sorted
	return min(max(minIfaceEntries, uint32(2)<<bits.Len32(uint32(largest))), maxIfindex+1)
}

func linkNames(links []netlink.Link) string {
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func quoteList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(quoted, ", ")
}

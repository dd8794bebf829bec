package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// acceptLoseSSH is the word by which an operator takes the risk.
const acceptLoseSSH = "lose-ssh"

// routeFinder tells where the packets to a client leave.
type routeFinder interface {
	// way names the interface by which packets to the address leave; "" where
	// the kernel does not tell.
	way(to netip.Addr) string
	// interfaces gives the names of the interfaces that packets to the address
	// pass through; known is false where the kernel does not tell.
	interfaces(to netip.Addr) (names []string, known bool)
	// defaults is the names of the interfaces that carry a default route.
	defaults() (names []string, known bool)
}

// guardSSH refuses a policy that would cut a session this command runs in.
func (a *app) guardSSH(s *source) error {
	if s.set.Audit {
		return nil
	}
	sessions, err := a.sessions.find()
	if err != nil {
		return err
	}
	for _, session := range sessions {
		if !a.guards(s.set.Interfaces, session.client.Addr()) {
			continue
		}
		// Only if the client is known to have opened it do the server's packets
		// pass as replies.
		state := tables.State{Reply: a.sessions.isIncoming(session)}
		if why := sessionCut(s.set, session, state); why != "" {
			return fmt.Errorf("%s would cut the SSH session that you are in (%v): %s\n"+
				"Add a rule that allows it, or take the risk with --accept-risk=%s, best together with\n"+
				"--confirm 60s: unless you confirm in time, the policy before comes back by itself",
				s.name, session, why, acceptLoseSSH)
		}
	}
	return nil
}

// sessionCut says what keeps the session's packets from passing, or "".
func sessionCut(set *tables.Set, s session, remembered tables.State) string {
	for _, d := range verdict.Directions {
		key := sessionPacket(s, d)
		// What comes in on the session is never a reply: the client opened it.
		state := tables.State{}
		if d == verdict.Egress && set.Chains[verdict.Ingress].Track {
			state = remembered
		}
		if res := set.Lookup(&key, state); res.Action != verdict.Allow {
			whose := "the server's packets"
			if d == verdict.Ingress {
				whose = "the client's packets"
			}
			return fmt.Sprintf("%s would %v %s (%s)", decider(&set.Chains[d], d, res), res.Action, whose, key.String())
		}
	}
	return ""
}

func decider(c *tables.Chain, d verdict.Direction, res tables.Result) string {
	if res.Rule == tables.NoRule {
		return fmt.Sprintf("the %v default", d)
	}
	rule := &c.Rules[res.Rule]
	return fmt.Sprintf("%v rule %s (%s)", d, rule.Label, rule.Lines())
}

// sessionPacket is a packet in the middle of a session.
func sessionPacket(s session, d verdict.Direction) packet.Key {
	from, to := s.server, s.client
	if d == verdict.Ingress {
		from, to = to, from
	}
	k := packet.Key{
		Direction:  d,
		IP:         true,
		EtherType:  0x0800,
		Have:       packet.HaveSrc | packet.HaveDst | packet.HaveProto | packet.HaveTransport,
		Src:        ipset.FromNetip(from.Addr().WithZone("")),
		Dst:        ipset.FromNetip(to.Addr().WithZone("")),
		Family:     4,
		HopLimit:   64,
		Proto:      packet.ProtoTCP,
		Selector:   to.Port(),
		SourcePort: from.Port(),
		TCPFlags:   packet.FlagACK,
	}
	if !k.Src.Is4() {
		k.Family, k.EtherType = 6, 0x86dd
	}
	return k
}

// guards tells whether one of the patterns covers an interface on the way to
// the client. Where that is not known it says yes: to ask once too often is
// better than to cut off.
func (a *app) guards(patterns []string, client netip.Addr) bool {
	names, known := a.routes.interfaces(client)
	if !known {
		return true
	}
	for _, pattern := range patterns {
		if pattern == "default" {
			defaults, known := a.routes.defaults()
			if !known || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(defaults, n) }) {
				return true
			}
			continue
		}
		for _, name := range names {
			if matched, err := path.Match(pattern, name); matched || err != nil {
				return true
			}
		}
	}
	return false
}

// realRoutes asks the kernel.
type realRoutes struct{}

func (realRoutes) interfaces(to netip.Addr) ([]string, bool) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, false
	}
	if to.Zone() != "" {
		for _, l := range links {
			if l.Attrs().Name == to.Zone() {
				return withLower(links, []int{l.Attrs().Index})
			}
		}
		return nil, false
	}
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, false
	}
	var found []int
	for _, r := range routes {
		if r.LinkIndex == 0 {
			return nil, false
		}
		found = append(found, r.LinkIndex)
	}
	return withLower(links, found)
}

// withLower adds the interfaces below: a bridge's ports, a bond's members, the
// parent of a VLAN, through which the same packets pass. What is carried inside
// other packets (a tunnel) is not seen below, so there the answer is not known.
func withLower(links []netlink.Link, indexes []int) (names []string, known bool) {
	for i := 0; i < len(indexes); i++ {
		for _, l := range links {
			attrs := l.Attrs()
			switch {
			case attrs.Index == indexes[i]:
				names = append(names, attrs.Name)
				if isTunnel(l.Type()) {
					return nil, false
				}
				if parent := attrs.ParentIndex; parent > 0 && l.Type() != "veth" && !slices.Contains(indexes, parent) {
					indexes = append(indexes, parent)
				}
			case attrs.MasterIndex == indexes[i] && !slices.Contains(indexes, attrs.Index):
				indexes = append(indexes, attrs.Index)
			}
		}
	}
	return names, len(names) > 0
}

func isTunnel(kind string) bool {
	return slices.Contains([]string{"wireguard", "tuntap", "tun", "vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "ip6tnl", "sit", "vti", "vti6", "xfrm"}, kind)
}

func (realRoutes) way(to netip.Addr) string {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return ""
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return l.Attrs().Name
}

func (realRoutes) defaults() ([]string, bool) {
	var names []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, false
		}
		for _, r := range routes {
			if r.Dst != nil && !isDefault(r.Dst.String()) {
				continue
			}
			indexes := []int{r.LinkIndex}
			for _, hop := range r.MultiPath {
				indexes = append(indexes, hop.LinkIndex)
			}
			for _, index := range indexes {
				if l, err := netlink.LinkByIndex(index); err == nil {
					names = append(names, l.Attrs().Name)
				}
			}
		}
	}
	return names, true
}

func isDefault(prefix string) bool {
	return strings.HasSuffix(prefix, "/0")
}

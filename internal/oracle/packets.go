package oracle

import (
	"net/netip"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// Key makes a packet that is likely to lie at a boundary of the policy. It
// keeps to what package packet can read from a frame, so that one can be
// built from it.
func (g *Generator) Key(p *policy.Policy) packet.Key {
	k := packet.Key{Direction: pick(g, verdict.Egress, verdict.Ingress)}
	switch n := g.rand.IntN(100); {
	case n < 5:
		g.nonIP(&k)
		return k
	case n < 8:
		k.IP = true
		k.EtherType = pick(g, uint16(0x0800), 0x86dd)
		k.Problem = pick(g, verdict.ReasonTruncated, verdict.ReasonBadIPHeader, verdict.ReasonBadLength, verdict.ReasonVLANDepth)
		return k
	}
	k.IP = true
	k.Have = packet.HaveSrc | packet.HaveDst | packet.HaveProto
	k.Family, k.EtherType = 4, 0x0800
	if g.oneIn(2) {
		k.Family, k.EtherType = 6, 0x86dd
	}
	k.HopLimit = pick(g, uint8(1), 64, 254, 255)
	rules := p.Chains[k.Direction].Rules
	k.Dst = g.address(rules, k.Family, func(r *policy.Rule) *ipset.Set { return r.To })
	k.Src = g.address(rules, k.Family, func(r *policy.Rule) *ipset.Set { return r.From })
	if g.oneIn(25) {
		k.Have &^= packet.HaveDst
		problem(&k, verdict.ReasonSourceRoute)
	}
	if g.oneIn(25) && k.Family == 6 {
		k.Have &^= packet.HaveProto
		problem(&k, pick(g, verdict.ReasonTruncated, verdict.ReasonExtensionDepth))
		return k
	}
	g.transport(&k, p)
	return k
}

// problem notes a reason; the first one met is kept.
func problem(k *packet.Key, r verdict.Reason) {
	if k.Problem == verdict.ReasonRule {
		k.Problem = r
	}
}

func (g *Generator) nonIP(k *packet.Key) {
	if k.Control = g.oneIn(2); k.Control {
		k.EtherType = pick(g, uint16(0x0806), 0x8035, 0x88cc, 0x888e)
		return
	}
	k.EtherType = pick(g, uint16(0x8847), 0x8863, 0x88b5)
}

// transport fills in what is behind the IP header.
func (g *Generator) transport(k *packet.Key, p *policy.Policy) {
	rules := p.Chains[k.Direction].Rules
	switch g.rand.IntN(25) {
	case 0:
		g.neighbour(k)
		return
	case 1:
		g.dhcp(k)
		return
	case 2, 3:
		g.wellKnown(k, p.DNS.Servers)
		return
	}
	proto, ok := g.protocol(rules)
	if !ok {
		proto = pick(g, uint8(6), 17, 132, 1, 58, 47, 50, 0x59)
	}
	k.Proto = proto
	switch g.rand.IntN(12) {
	case 0:
		k.Fragment, k.FragmentID = packet.LaterFragment, g.rand.Uint32()
		return
	case 1:
		k.Fragment, k.FragmentID = packet.FirstFragment, g.rand.Uint32()
	}
	switch proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6:
	default:
		return // nothing is read of other protocols
	}
	if g.oneIn(15) {
		problem(k, pick(g, verdict.ReasonTruncated, verdict.ReasonBadTransport))
		return
	}
	k.Have |= packet.HaveTransport
	k.Selector = g.selector(rules, proto, func(r *policy.Rule) []policy.Service { return r.Services })
	k.SourcePort = g.selector(rules, proto, func(r *policy.Rule) []policy.Service { return r.SourcePorts })
	switch kind := k.Selector >> 8; proto {
	case packet.ProtoTCP:
		k.TCPFlags = uint8(g.rand.Uint32()) & 0x1f
	case packet.ProtoICMP:
		if kind != 0 && kind != 8 {
			k.SourcePort = 0
		}
	case packet.ProtoICMPv6:
		if kind != 128 && kind != 129 {
			k.SourcePort = 0
		}
	}
}

// neighbour makes neighbour discovery, or what just fails to be it.
func (g *Generator) neighbour(k *packet.Key) {
	k.Have |= packet.HaveTransport
	k.Proto = packet.ProtoICMPv6
	k.Selector = pick(g, uint16(129), 130, 131, 132, 133, 135, 136, 137, 138, 143, 144)<<8 | uint16(g.rand.IntN(2))
	k.HopLimit = pick(g, uint8(1), 255, 255, 254, 2)
	if k.Selector>>8 == 129 {
		k.SourcePort = uint16(g.rand.Uint32())
	}
	if g.oneIn(10) {
		k.Fragment = packet.FirstFragment
	}
}

// dhcp makes client traffic, or what just fails to be it.
func (g *Generator) dhcp(k *packet.Key) {
	k.Have |= packet.HaveTransport
	k.Proto = packet.ProtoUDP
	k.SourcePort, k.Selector = 68, 67
	if k.Family == 6 != g.oneIn(6) {
		k.SourcePort, k.Selector = 546, 547
	}
	if k.Direction == verdict.Ingress != g.oneIn(6) {
		k.SourcePort, k.Selector = k.Selector, k.SourcePort
	}
	if g.oneIn(10) {
		k.Fragment = packet.FirstFragment
	}
}

// wellKnown makes DNS and HTTPS, to the policy's servers, to known resolvers and
// to others, or what just fails to be it.
func (g *Generator) wellKnown(k *packet.Key, servers []netip.Addr) {
	k.Have |= packet.HaveTransport
	k.Proto = pick(g, uint8(packet.ProtoTCP), packet.ProtoUDP, packet.ProtoUDP, packet.ProtoSCTP)
	k.SourcePort, k.Selector = 40000, pick(g, uint16(53), 53, 53, 443, 443, 80, 853, 5353)
	if len(servers) == 0 || g.oneIn(3) {
		servers = KnownResolvers
	}
	a := ipset.FromNetip(pick(g, servers...))
	if a.Is4() != (k.Family == 4) || g.oneIn(3) {
		return
	}
	if k.Direction == verdict.Egress {
		k.Dst = a
		return
	}
	k.Src = a
	if g.oneIn(2) {
		k.SourcePort, k.Selector = k.Selector, k.SourcePort
	}
}

// address gives an address of a family, most often at a boundary of what one
// of the rules asks for.
func (g *Generator) address(rules []policy.Rule, family uint8, field func(*policy.Rule) *ipset.Set) ipset.Addr {
	for range 4 {
		if len(rules) == 0 || g.oneIn(8) {
			break
		}
		set := field(&rules[g.rand.IntN(len(rules))])
		if set == nil || set.IsEmpty() {
			continue
		}
		r := pick(g, set.Ranges()...)
		a := pick(g, r.First, r.Last, r.First.Prev(), r.Last.Next(), g.inside(r))
		// A v4-mapped address can stand in an IPv6 packet, though it should not.
		if a.Is4() == (family == 4) || a.Is4() && g.oneIn(50) {
			return a
		}
	}
	if family == 4 {
		return ipset.From4(g.rand.Uint32())
	}
	return ipset.Addr{Hi: 0x2000000000000000 | g.rand.Uint64()>>3, Lo: g.rand.Uint64()}
}

// inside gives an address of a range, its low or its high half drawn anew.
func (g *Generator) inside(r ipset.Range) ipset.Addr {
	a := ipset.Addr{Hi: r.First.Hi, Lo: g.rand.Uint64()}
	if span := r.Last.Hi - r.First.Hi; span > 0 {
		a.Hi += g.rand.Uint64() % span
	} else if span := r.Last.Lo - r.First.Lo; span != ^uint64(0) {
		a.Lo = r.First.Lo + a.Lo%(span+1)
	}
	if a.Less(r.First) {
		return r.First
	}
	return a
}

// protocol gives the protocol of something that a rule asks for.
func (g *Generator) protocol(rules []policy.Rule) (uint8, bool) {
	if len(rules) == 0 || g.oneIn(6) {
		return 0, false
	}
	r := &rules[g.rand.IntN(len(rules))]
	list := r.Services
	if len(list) == 0 {
		list = r.SourcePorts
	}
	if len(list) == 0 {
		return 0, false
	}
	return pick(g, list...).Proto, true
}

// selector gives a selector at a boundary of what a rule asks for.
func (g *Generator) selector(rules []policy.Rule, proto uint8, field func(*policy.Rule) []policy.Service) uint16 {
	for range 6 {
		if len(rules) == 0 || g.oneIn(10) {
			break
		}
		for _, s := range field(&rules[g.rand.IntN(len(rules))]) {
			if s.Proto == proto && !s.Whole && g.oneIn(2) {
				return pick(g, s.First, s.Last, s.First-1, s.Last+1, s.First+(s.Last-s.First)/2)
			}
		}
	}
	return uint16(g.rand.Uint32())
}

// State makes what the kernel might remember of a packet, and fills in what the
// policy's world knows.
func (g *Generator) State(p *policy.Policy, k *packet.Key) tables.State {
	st := tables.State{Reply: g.oneIn(6), ReplyError: g.oneIn(8), FragmentRule: tables.NoRule}
	if k.Fragment == packet.LaterFragment && g.oneIn(2) {
		st.FragmentSeen = true
		st.FragmentAction = pick(g, verdict.Allow, verdict.Drop, verdict.Reject)
		if n := len(p.Chains[k.Direction].Rules); n > 0 && g.oneIn(2) {
			st.FragmentRule = g.rand.IntN(n)
		}
	}
	if g.world == nil || g.world.policy != p {
		g.world = WorldOf(p)
	}
	g.world.Tell(k, &st)
	return st
}

package oracle

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// KnownResolvers is what stands in the random worlds for the resolvers that
// answer DNS over HTTPS.
var KnownResolvers = []netip.Addr{
	netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700:4700::1111"),
}

// World is what is known of addresses in the random tests of one policy. It
// is a function of the policy and the address alone, so a test of the kernel
// side can fill in an address when a packet goes there. It is safe for
// concurrent use.
type World struct {
	policy *policy.Policy
	near   []string // names at, below and beside those that the policy lists
}

// maxNear bounds the names that a World draws from.
const maxNear = 512

// WorldOf makes the world of a policy.
func WorldOf(p *policy.Policy) *World {
	w := &World{policy: p, near: []string{"elsewhere.test"}}
	for _, r := range p.Chains[verdict.Egress].Rules {
		if r.Domains == nil || len(w.near) > maxNear {
			continue
		}
		for _, pattern := range r.Domains.Patterns() {
			w.near = append(w.near, pattern.Name, "x."+pattern.Name, "y.x."+pattern.Name)
			if _, above, ok := strings.Cut(pattern.Name, "."); ok {
				w.near = append(w.near, above, "z"+pattern.Name, "z."+above)
			}
		}
	}
	return w
}

// Names is what an address was learned under: often nothing, at most four names.
func (w *World) Names(a ipset.Addr) []string {
	r := rand.New(rand.NewPCG(a.Hi^0x6e616d65, a.Lo))
	var out []string
	for range max(0, r.IntN(7)-2) {
		out = append(out, w.near[r.IntN(len(w.near))])
	}
	return out
}

// Resolver tells whether an address is a server of the policy's DNS.
func (w *World) Resolver(a ipset.Addr) bool { return holdsAddr(w.policy.DNS.Servers, a) }

// Tell fills in what is known of the packet's remote address.
func (w *World) Tell(k *packet.Key, st *tables.State) {
	remote, readable := k.Dst, k.Have&packet.HaveDst != 0
	if k.Direction == verdict.Ingress {
		remote, readable = k.Src, k.Have&packet.HaveSrc != 0
	}
	if !readable {
		return
	}
	st.Resolver = w.Resolver(remote)
	st.Known = holdsAddr(KnownResolvers, remote)
	if k.Direction == verdict.Egress {
		st.Names = w.Names(remote)
	}
}

func holdsAddr(list []netip.Addr, a ipset.Addr) bool {
	for _, other := range list {
		if ipset.FromNetip(other) == a {
			return true
		}
	}
	return false
}

// listed tells whether a rule's domains hold one of the names, label by label.
func listed(set *domain.Set, names []string) bool {
	for _, p := range set.Patterns() {
		want := strings.Split(p.Name, ".")
		for _, name := range names {
			labels := strings.Split(name, ".")
			extra := len(labels) - len(want)
			if p.Below && extra < 1 || !p.Below && extra != 0 {
				continue
			}
			same := true
			for i := range want {
				same = same && want[i] == labels[extra+i]
			}
			if same {
				return true
			}
		}
	}
	return false
}

// dns makes what a policy says of DNS; nothing for half of those without names.
func (g *Generator) dns(named bool) policy.DNS {
	if !named && g.oneIn(2) {
		return policy.DNS{}
	}
	d := policy.DNS{
		Given:     true,
		MaxLabel:  domain.MaxLabel,
		Elsewhere: pick(g, verdict.Allow, verdict.Allow, verdict.Drop, verdict.Reject),
	}
	for range 1 + g.rand.IntN(3) {
		d.Servers = append(d.Servers, pick(g,
			netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53"), KnownResolvers[1],
			netip.AddrFrom4([4]byte{192, 0, 2, byte(g.rand.Uint32())})))
	}
	return d
}

// names gives names that lie above, below and beside each other.
func (g *Generator) names() []string {
	var out []string
	for range 2 + g.rand.IntN(8) {
		labels := []string{pick(g, "com", "net", "com", "example")}
		for range g.rand.IntN(4) {
			labels = append([]string{pick(g, "a", "b", "example", "cdn")}, labels...)
		}
		out = append(out, strings.Join(labels, "."))
	}
	return out
}

// domains gives a set of the pool, an equal copy of one, or a new one.
func (g *Generator) domains(p *pool) *domain.Set {
	switch g.rand.IntN(4) {
	case 0:
		return domain.New(append([]domain.Pattern(nil), pick(g, p.domains...).Patterns()...))
	case 1:
		return g.domainSet(p)
	}
	return pick(g, p.domains...)
}

func (g *Generator) domainSet(p *pool) *domain.Set {
	if g.oneIn(40) {
		return domain.New(nil)
	}
	var patterns []domain.Pattern
	for range 1 + g.rand.IntN(4) {
		patterns = append(patterns, domain.Pattern{Name: pick(g, p.names...), Below: g.oneIn(3)})
	}
	return domain.New(patterns)
}

// askNames lets a rule ask for names, or for none.
func (g *Generator) askNames(p *pool, r *policy.Rule) {
	r.Domains = nil
	if len(p.domains) > 0 && !g.oneIn(3) {
		r.Domains = g.domains(p)
		if g.oneIn(2) { // as people write such rules
			https := policy.Service{Proto: pick(g, uint8(packet.ProtoTCP), packet.ProtoUDP), First: 443, Last: 443}
			r.To, r.From, r.SourcePorts = nil, nil, nil
			r.Services = pick(g, nil, []policy.Service{https})
		}
	}
	g.verify(r)
}

// verify draws what a rule wants to see of names, if it may want it.
func (g *Generator) verify(r *policy.Rule) {
	r.Verify, r.DropECH, r.DropQUIC = policy.VerifyNone, false, false
	if r.Domains == nil || r.Action != verdict.Allow {
		return
	}
	r.Verify = pick(g, policy.VerifyNone, policy.VerifyWellKnown, policy.VerifyWellKnown, policy.VerifyAll)
	r.DropECH, r.DropQUIC = g.oneIn(4), g.oneIn(3)
}

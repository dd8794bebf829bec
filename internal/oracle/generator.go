package oracle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// SeedVariable is the environment variable that repeats a random test.
const SeedVariable = "EGATE_SEED"

// Seed gives the seed from SeedVariable, or one from the clock. Tests log it.
func Seed() (uint64, error) {
	text := os.Getenv(SeedVariable)
	if text == "" {
		return uint64(time.Now().UnixNano()), nil
	}
	seed, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", SeedVariable, err)
	}
	return seed, nil
}

// Generator makes random policies and packets. Equal seeds give equal
// sequences. It is not safe for concurrent use.
type Generator struct {
	rand  *rand.Rand
	world *World // of the policy that State was last asked about
}

// NewGenerator starts a sequence.
func NewGenerator(seed uint64) *Generator {
	return &Generator{rand: rand.New(rand.NewPCG(seed, 0x65676174652d6c73))}
}

// Rand is the generator's source, for callers that choose on their own.
func (g *Generator) Rand() *rand.Rand { return g.rand }

// oneIn is true once in n times.
func (g *Generator) oneIn(n int) bool { return g.rand.IntN(n) == 0 }

func pick[T any](g *Generator, from ...T) T { return from[g.rand.IntN(len(from))] }

// Policy makes a policy of any size, most of them small.
func (g *Generator) Policy() *policy.Policy {
	switch n := g.rand.IntN(1000); {
	case n < 20:
		return g.PolicyOf(0)
	case n < 500:
		return g.PolicyOf(1 + g.rand.IntN(8))
	case n < 930:
		return g.PolicyOf(9 + g.rand.IntN(70))
	case n < 995:
		return g.PolicyOf(100 + g.rand.IntN(400))
	}
	return g.PolicyOf(1000 + g.rand.IntN(tables.MaxRules-999))
}

// PolicyOf makes a policy with at most the given number of rules in each
// direction. Rules take their addresses and ports from small pools, so that
// boundaries coincide, touch and overlap.
func (g *Generator) PolicyOf(rules int) *policy.Policy {
	p := &policy.Policy{
		Name:       fmt.Sprintf("random-%d", g.rand.IntN(1000)),
		Interfaces: []string{pick(g, "eth0", "wg*", "default")},
		Audit:      g.oneIn(8),
		MaxFlows:   policy.DefaultFlows,
	}
	named := g.oneIn(2)
	p.DNS = g.dns(named)
	for _, dir := range verdict.Directions {
		n := rules
		if rules > 0 && g.oneIn(4) {
			n = g.rand.IntN(rules + 1)
		}
		// Positions are distinct over both directions.
		p.Chains[dir] = g.chain(n, 10+int(dir)*3*tables.MaxRules, named && dir == verdict.Egress)
	}
	return p
}

func (g *Generator) chain(rules, line int, named bool) policy.Chain {
	c := policy.Chain{
		Pos:     policy.Pos{File: "random.yaml", Line: line - 2, Column: 1},
		Default: pick(g, verdict.Allow, verdict.Drop, verdict.Reject),
		Replies: !g.oneIn(3),
		Events:  g.events(),
	}
	pool := g.newPool(rules, named)
	continues := 0
	likeBefore := pick(g, 0, 1, 4, 16) // of 17 rules: those that are much like the one before
	for i := range rules {
		var r policy.Rule
		if i > 0 && g.rand.IntN(17) < likeBefore {
			r = g.variant(pool, &c.Rules[i-1])
		} else {
			r = g.rule(pool)
		}
		r.Pos = policy.Pos{File: "random.yaml", Line: line + 3*i, Column: 5}
		if g.oneIn(2 + likeBefore) {
			r.Name = fmt.Sprintf("rule-%d", i)
		}
		if r.Action == verdict.Continue {
			if continues++; continues > policy.MaxContinueRules {
				r.Action = verdict.Drop
			}
		}
		if r.Action != verdict.Allow {
			g.verify(&r)
		}
		c.Rules = append(c.Rules, r)
	}
	return c
}

func (g *Generator) events() policy.EventRate {
	return pick(g, policy.DefaultEvents, policy.NoEvents, policy.AllEvents,
		policy.EventRate{Interval: time.Second, Burst: 3})
}

// pool is what the rules of one chain share.
type pool struct {
	points4, points6 []ipset.Addr
	ports            []uint16
	sets             []*ipset.Set
	asks             [4]int // one rule in asks[i] leaves field i out; 1 is every rule
	names            []string
	domains          []*domain.Set // nil where rules ask for no names
}

func (g *Generator) newPool(rules int, named bool) *pool {
	p := &pool{
		points4: []ipset.Addr{ipset.From4(0), ipset.From4(^uint32(0)), ipset.From4(g.rand.Uint32())},
		points6: []ipset.Addr{
			{}, {Lo: 1}, ipset.From4(0).Prev(), ipset.From4(^uint32(0)).Next(),
			{Hi: 1}, {Hi: ^uint64(0), Lo: ^uint64(0)}, {Hi: ^uint64(0)},
		},
		ports: []uint16{0, 1, 53, 67, 68, 80, 443, 546, 547, 853, 0xffff, 0x0800, 0x08ff, 0x8700},
	}
	n := 2 + g.rand.IntN(8+rules/4)
	base4 := g.rand.Uint32()
	base6 := ipset.Addr{Hi: 0x20010db8_00000000 | uint64(g.rand.Uint32()), Lo: g.rand.Uint64()}
	for range n {
		p.points4 = append(p.points4, ipset.From4(base4^g.rand.Uint32()>>(g.rand.IntN(32))))
		a := base6
		if g.oneIn(2) {
			a.Hi ^= g.rand.Uint64() >> g.rand.IntN(64)
		}
		switch g.rand.IntN(5) {
		case 0:
			a.Lo = 0
		case 1:
			a.Lo = ^uint64(0)
		case 2:
			a.Lo ^= g.rand.Uint64() >> g.rand.IntN(64)
		case 3:
			a.Hi, a.Lo = a.Hi+1, g.rand.Uint64N(4)
		}
		if !a.Is4() {
			p.points6 = append(p.points6, a)
		}
		p.ports = append(p.ports, uint16(g.rand.Uint32()))
	}
	for range 1 + g.rand.IntN(6) {
		p.sets = append(p.sets, g.set(p))
	}
	for i := range p.asks {
		p.asks[i] = pick(g, 1, 2, 2, 3, 8)
	}
	if named {
		p.names = g.names()
		for range 1 + g.rand.IntN(5) {
			p.domains = append(p.domains, g.domainSet(p))
		}
	}
	return p
}

func (g *Generator) rule(p *pool) policy.Rule {
	r := policy.Rule{
		Action: pick(g, verdict.Allow, verdict.Allow, verdict.Drop, verdict.Drop, verdict.Reject, verdict.Continue),
		Events: g.events(),
	}
	if !g.oneIn(p.asks[0]) {
		r.To = g.anySet(p)
	}
	if !g.oneIn(p.asks[1]) {
		r.From = g.anySet(p)
	}
	if !g.oneIn(p.asks[2]) {
		r.Services = g.services(p)
	}
	if !g.oneIn(p.asks[3]) {
		r.SourcePorts = g.sourcePorts(p)
	}
	g.askNames(p, &r)
	return r
}

// variant makes a rule that differs from the one before in one dimension most
// often, so that the compiler may merge them, or in nothing but something that keeps it
// from that.
func (g *Generator) variant(p *pool, before *policy.Rule) policy.Rule {
	r := *before
	r.Name = ""
	for range pick(g, 1, 1, 1, 1, 1, 1, 2, 0) {
		switch g.rand.IntN(10) {
		case 0, 1, 2, 3:
			r.To = g.anySet(p)
		case 4:
			r.From = g.anySet(p)
		case 5, 6, 7:
			r.Services = g.services(p)
		case 8:
			r.SourcePorts = g.sourcePorts(p)
		default:
			r = g.without(r)
		}
	}
	switch g.rand.IntN(40) {
	case 0:
		r.Action = pick(g, verdict.Allow, verdict.Drop, verdict.Reject, verdict.Continue)
	case 1:
		r.Events = g.events()
	case 2:
		g.verify(&r)
	case 3, 4, 5:
		g.askNames(p, &r)
	}
	return r
}

// without makes a rule not ask for something.
func (g *Generator) without(r policy.Rule) policy.Rule {
	switch g.rand.IntN(4) {
	case 0:
		r.To = nil
	case 1:
		r.From = nil
	case 2:
		r.Services = nil
	default:
		r.SourcePorts = nil
	}
	return r
}

// anySet gives a set of the pool, an equal copy of one, or a new one.
func (g *Generator) anySet(p *pool) *ipset.Set {
	switch g.rand.IntN(4) {
	case 0:
		return ipset.New(append([]ipset.Range(nil), pick(g, p.sets...).Ranges()...))
	case 1:
		return g.set(p)
	}
	return pick(g, p.sets...)
}

func (g *Generator) set(p *pool) *ipset.Set {
	switch g.rand.IntN(40) {
	case 0:
		return ipset.All4()
	case 1:
		return ipset.All6()
	case 2:
		return ipset.All4().Union(ipset.All6())
	case 3:
		return ipset.New(nil)
	}
	var ranges []ipset.Range
	for range 1 + g.rand.IntN(5) {
		points := p.points4
		if g.oneIn(2) {
			points = p.points6
		}
		a, b := pick(g, points...), pick(g, points...)
		switch g.rand.IntN(3) {
		case 0: // one address
			b = a
		case 1: // a block of a power of two
			mask := ^uint64(0) >> g.rand.IntN(64)
			if a.Is4() {
				mask = uint64(^uint32(0)) >> g.rand.IntN(32)
			}
			b = ipset.Addr{Hi: a.Hi, Lo: a.Lo | mask}
			a.Lo &^= mask
			if !a.Is4() && g.oneIn(2) {
				a.Hi, b.Hi = a.Hi&^mask, b.Hi|mask
				a.Lo, b.Lo = 0, ^uint64(0)
			}
		}
		if b.Less(a) {
			a, b = b, a
		}
		ranges = append(ranges, ipset.Range{First: a, Last: b})
	}
	return withoutMapped(ranges)
}

// withoutMapped keeps the IPv4 block out of ranges of IPv6, as package policy
// does.
func withoutMapped(ranges []ipset.Range) *ipset.Set {
	var in4, in6 []ipset.Range
	for _, r := range ranges {
		if r.First.Is4() && r.Last.Is4() {
			in4 = append(in4, r)
		} else {
			in6 = append(in6, r)
		}
	}
	return ipset.New(in6).Subtract(ipset.All4()).Union(ipset.New(in4))
}

func (g *Generator) services(p *pool) []policy.Service {
	var out []policy.Service
	for range 1 + g.rand.IntN(4) {
		if g.oneIn(5) {
			out = append(out, policy.Service{Proto: pick(g, uint8(0), 2, 47, 50, 103, 255, uint8(g.rand.Uint32())), Whole: true})
			continue
		}
		out = append(out, g.service(p, pick(g, uint8(6), 6, 17, 17, 132, 1, 58)))
	}
	return out
}

func (g *Generator) sourcePorts(p *pool) []policy.Service {
	var out []policy.Service
	for range 1 + g.rand.IntN(3) {
		out = append(out, g.service(p, pick(g, uint8(6), 17, 132)))
	}
	return out
}

func (g *Generator) service(p *pool, proto uint8) policy.Service {
	s := policy.Service{Proto: proto, First: pick(g, p.ports...), Last: pick(g, p.ports...)}
	switch g.rand.IntN(5) {
	case 0:
		return policy.Service{Proto: proto, Whole: true}
	case 1, 2:
		s.Last = s.First
	case 3:
		s.Last = s.First | 0xff
	}
	if s.Last < s.First {
		s.First, s.Last = s.Last, s.First
	}
	return s
}

package compile

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// randomPrefixes gives n IPv4 prefixes of 20 to 32 bits as ranges.
func randomPrefixes(r *rand.Rand, n int) []ipset.Range {
	out := make([]ipset.Range, n)
	for i := range out {
		a, mask := r.Uint32(), ^uint32(0)>>(20+r.IntN(13))
		out[i] = ipset.Range{First: ipset.From4(a &^ mask), Last: ipset.From4(a | mask)}
	}
	return out
}

// randomHosts6 gives n single IPv6 addresses, each in a /64 of its own: the
// form that takes most intervals.
func randomHosts6(r *rand.Rand, n int) []ipset.Range {
	out := make([]ipset.Range, n)
	for i := range out {
		a := ipset.Addr{Hi: 0x2000000000000000 | r.Uint64()>>3, Lo: r.Uint64()}
		out[i] = ipset.Range{First: a, Last: a}
	}
	return out
}

func oneSet(ranges []ipset.Range) *policy.Policy {
	return egress(policy.Rule{To: ipset.New(ranges)})
}

// onePrefixEach makes n rules of a prefix and a port each.
func onePrefixEach(r *rand.Rand, n int) *policy.Policy {
	rules := make([]policy.Rule, n)
	for i := range rules {
		port := uint16(r.Uint32())
		rules[i] = policy.Rule{Name: fmt.Sprint("rule-", i), To: ipset.New(randomPrefixes(r, 1)), Services: tcp(port, port)}
	}
	return egress(rules...)
}

// unnamedPrefixes makes n rules without a name, of a prefix each, and of one of
// some ports, in no order, where there are any.
func unnamedPrefixes(r *rand.Rand, n int, ports ...uint16) *policy.Policy {
	rules := make([]policy.Rule, n)
	for i := range rules {
		rules[i] = policy.Rule{Action: verdict.Drop, To: ipset.New(randomPrefixes(r, 1))}
		if len(ports) > 0 {
			port := ports[r.IntN(len(ports))]
			rules[i].Services = tcp(port, port)
		}
	}
	return unnamed(rules...)
}

func BenchmarkCompile(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, bench := range []struct {
		name string
		p    *policy.Policy
	}{
		{"rules=10", onePrefixEach(r, 10)},
		{"rules=1000", onePrefixEach(r, 1000)},
		{"rules=4096", onePrefixEach(r, tables.MaxRules)},
		{"unnamed=100k", unnamedPrefixes(r, 100_000)},
		{"unnamed=100k_ports=4", unnamedPrefixes(r, 100_000, 22, 25, 80, 443)},
		{"unnamed=1M", unnamedPrefixes(r, 1_000_000)},
		{"prefixes=1M", oneSet(randomPrefixes(r, 1_000_000))},
		{"hosts6=1M", oneSet(randomHosts6(r, 1_000_000))},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			var set *tables.Set
			for b.Loop() {
				set = mustCompile(b, bench.p)
			}
			size := set.Size()
			b.ReportMetric(float64(size.Chains[verdict.Egress].Lines), "lines")
			b.ReportMetric(float64(size.Bytes), "kernel-B")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, bench := range []struct {
		name string
		p    *policy.Policy
	}{
		{"rules=10", onePrefixEach(r, 10)},
		{"rules=1000", onePrefixEach(r, 1000)},
		{"rules=4096", onePrefixEach(r, tables.MaxRules)},
		{"prefixes=1M", oneSet(randomPrefixes(r, 1_000_000))},
		{"hosts6=1M", oneSet(randomHosts6(r, 1_000_000))},
	} {
		b.Run(bench.name, func(b *testing.B) {
			set := mustCompile(b, bench.p)
			rules := bench.p.Chains[verdict.Egress].Rules
			keys := make([]packet.Key, 1<<14)
			for i := range keys {
				// Half of the packets lie in what a rule asks for.
				k := &keys[i]
				*k = packet.Key{
					IP: true, Family: 4, Proto: packet.ProtoTCP, Selector: uint16(r.Uint32()), SourcePort: 40000,
					Have: packet.HaveSrc | packet.HaveDst | packet.HaveProto | packet.HaveTransport,
					Dst:  ipset.From4(r.Uint32()),
				}
				if i%2 == 0 {
					rule := &rules[r.IntN(len(rules))]
					ranges := rule.To.Ranges()
					k.Dst = ranges[r.IntN(len(ranges))].First
					if rule.Services != nil {
						k.Selector = rule.Services[0].First
					}
				}
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				set.Lookup(&keys[i&(len(keys)-1)], tables.State{})
				i++
			}
		})
	}
}

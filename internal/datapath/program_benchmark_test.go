package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"egate/internal/compile"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// BenchmarkProgram tells what the policy program costs a packet, in the
// kernel, by BPF_PROG_TEST_RUN, the price of a test run itself (25 to 40 ns)
// included: "nothing" is a program that finds the interface not guarded.
func BenchmarkProgram(b *testing.B) {
	testutil.RequireRoot(b)
	dst := netip.MustParseAddr("10.1.2.3")
	frame := frames.UDP(netip.MustParseAddr("192.0.2.1"), dst, 40000, 53, make([]byte, 22))

	bench := func(name string, p *policy.Policy, ifindex int) {
		set, _, err := compile.Compile(p)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			t := newTestBenchOn(b, set, ifindex)
			defer t.Close()
			ctx := skb{Ifindex: 1}
			ctx.CB[4] = uint32(verdict.Egress)
			b.ReportMetric(0, "ns/op") // of one call; the packet's price is ns/packet
			for b.Loop() {
				ns := t.price(b, frame, &ctx)
				b.ReportMetric(ns, "ns/packet")
			}
		})
	}
	bench("nothing", rulesOf(0, dst), 2)
	for _, rules := range []int{0, 10, 20, 1000, tables.MaxRules} {
		bench(fmt.Sprintf("rules=%d", rules), rulesOf(rules, dst), 1)
	}
	for _, prefixes := range []int{10, 100_000, 1_000_000} {
		bench(fmt.Sprintf("prefixes=%d", prefixes), prefixesOf(prefixes), 1)
	}
}

// rulesOf makes a policy in which the last of n rules, each of another prefix
// and port, allows dst.
func rulesOf(n int, dst netip.Addr) *policy.Policy {
	p := &policy.Policy{Name: "rules", MaxFlows: policy.MinFlows}
	for i := range n {
		a := netip.AddrFrom4([4]byte{172, byte(i >> 8), byte(i), 0})
		to, port := ipset.Of(netip.PrefixFrom(a, 24)), uint16(10_000+i)
		if i == n-1 {
			to, port = ipset.Of(netip.PrefixFrom(dst, 32)), 53
		}
		p.Chains[verdict.Egress].Rules = append(p.Chains[verdict.Egress].Rules, policy.Rule{
			Action: verdict.Allow, To: to, Services: []policy.Service{{Proto: packet.ProtoUDP, First: port, Last: port}},
		})
	}
	return p
}

// prefixesOf makes a policy of one rule over n random prefixes.
func prefixesOf(n int) *policy.Policy {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var ranges []ipset.Range
	for range n {
		first := r.Uint32() &^ 0xff
		ranges = append(ranges, ipset.Range{First: ipset.From4(first), Last: ipset.From4(first | uint32(r.IntN(256)))})
	}
	p := &policy.Policy{Name: "prefixes", MaxFlows: policy.MinFlows}
	p.Chains[verdict.Egress].Rules = []policy.Rule{{Action: verdict.Drop, To: ipset.New(ranges)}}
	return p
}

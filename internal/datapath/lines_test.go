package datapath

import (
	"math/rand/v2"
	"testing"

	"egate/internal/compile"
	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/policy"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// However an address table is laid out, the program finds the class that the
// set says, at every end of a range and beside it. The differential test's
// sets are smaller.
func TestProgramFindsEveryLine(t *testing.T) {
	testutil.RequireRoot(t)
	r := rand.New(rand.NewPCG(3, 4))
	for name, addresses := range oracle.Shapes(r) {
		t.Run(name, func(t *testing.T) {
			p := &policy.Policy{Name: "lines", MaxFlows: policy.MinFlows}
			for d := range p.Chains {
				rule := policy.Rule{Action: verdict.Drop, To: addresses}
				if d == int(verdict.Ingress) {
					rule.To, rule.From = nil, addresses
				}
				p.Chains[d].Rules = []policy.Rule{rule}
			}
			set, _, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			b := newTestBench(t, set)
			defer b.Close()
			check := func(a ipset.Addr) {
				// The destination is looked up on egress, the source on ingress.
				frame := frames.UDP(a.Netip(), a.Netip(), 40000, 53, make([]byte, 22))
				want := uint32(actUnspec)
				if addresses.Contains(a) {
					want = actShot
				}
				for _, d := range verdict.Directions {
					if got, _ := b.Run(t, frame, d); got != want {
						t.Fatalf("%s %s: the program returned %d, want %d", d, a, got, want)
					}
				}
			}
			ranges := addresses.Ranges()
			for range min(len(ranges), 2000) {
				one := ranges[r.IntN(len(ranges))]
				for _, a := range []ipset.Addr{one.First, one.Last, one.First.Prev(), one.Last.Next()} {
					check(a)
				}
			}
		})
	}
}

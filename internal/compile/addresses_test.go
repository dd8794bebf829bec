package compile

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// A million prefixes in one rule are one bit: two classes, and every boundary
// is where the set has it.
func TestMillionPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, seed(t)))
	for name, ranges := range map[string][]ipset.Range{
		"IPv4 prefixes": randomPrefixes(r, 1_000_000),
		"IPv6 hosts":    randomHosts6(r, 1_000_000),
	} {
		t.Run(name, func(t *testing.T) {
			p := oneSet(ranges)
			start := time.Now()
			set := mustCompile(t, p)
			t.Logf("compiled in %s", time.Since(start))
			c := &set.Chains[verdict.Egress]
			if n := c.ClassCount(tables.Destination); n != 2 {
				t.Fatalf("%d classes, want 2", n)
			}
			all := p.Chains[verdict.Egress].Rules[0].To
			check := func(a ipset.Addr) {
				want := uint16(0)
				if all.Contains(a) {
					want = 1
				}
				if got := c.Addresses[tables.Destination].Class(a); got != want {
					t.Fatalf("%s has class %d, want %d", a, got, want)
				}
			}
			list := all.Ranges()
			for range 100_000 {
				one := list[r.IntN(len(list))]
				check(one.First)
				check(one.Last)
				check(one.First.Prev())
				check(one.Last.Next())
				check(ipset.From4(r.Uint32()))
				check(ipset.Addr{Hi: r.Uint64(), Lo: r.Uint64()})
			}
		})
	}
}

// Intervals gives each first address once, in order, and no two neighbours of
// one class, however the lines are laid out.
func TestIntervalsAreMinimal(t *testing.T) {
	set := func(ranges ...ipset.Range) *ipset.Set { return ipset.New(ranges) }
	hi := func(n uint64) ipset.Addr { return ipset.Addr{Hi: n} }
	max := ^uint64(0)
	type interval struct {
		first ipset.Addr
		class uint16
	}
	zero4 := ipset.From4(0)
	tests := map[string]struct {
		set  *ipset.Set
		want []interval
	}{
		"all of IPv6 skips the IPv4 block": {ipset.All6(), []interval{{zero4, 0}, {hi(0), 1}}},
		"all of IPv4":                      {ipset.All4(), []interval{{zero4, 1}, {hi(0), 0}}},
		"a /64": {prefixes("2001:db8::/64"), []interval{
			{zero4, 0}, {hi(0), 0}, {hi(0x20010db8_00000000), 1}, {hi(0x20010db8_00000001), 0},
		}},
		"the low half of a /64 and all of the next": {
			set(ipset.Range{First: hi(8), Last: ipset.Addr{Hi: 8, Lo: max / 2}}, ipset.Range{First: hi(9), Last: ipset.Addr{Hi: 9, Lo: max}}),
			[]interval{{zero4, 0}, {hi(0), 0}, {hi(8), 1}, {ipset.Addr{Hi: 8, Lo: max/2 + 1}, 0}, {hi(9), 1}, {hi(10), 0}},
		},
		"a range over three /64": {
			set(ipset.Range{First: ipset.Addr{Hi: 8, Lo: 7}, Last: ipset.Addr{Hi: 10, Lo: 6}}),
			[]interval{{zero4, 0}, {hi(0), 0}, {ipset.Addr{Hi: 8, Lo: 7}, 1}, {ipset.Addr{Hi: 10, Lo: 7}, 0}},
		},
		"the last addresses": {
			set(ipset.Range{First: last4, Last: last4}, ipset.Range{First: last, Last: last}),
			[]interval{{zero4, 0}, {last4, 1}, {hi(0), 0}, {last, 1}},
		},
		"the addresses around the IPv4 block": {
			set(ipset.Range{First: first4.Prev(), Last: first4.Prev()}, ipset.Range{First: last4.Next(), Last: last4.Next()}),
			[]interval{{zero4, 0}, {hi(0), 0}, {first4.Prev(), 1}, {last4.Next().Next(), 0}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := mustCompile(t, egress(policy.Rule{To: test.set})).Chains[verdict.Egress]
			var got []interval
			for first, class := range c.Addresses[tables.Destination].Intervals() {
				got = append(got, interval{first, class})
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

package compile

import (
	"math/rand/v2"
	"testing"
	"time"

	"egate/internal/ipset"
	"egate/internal/oracle"
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

// The intervals of a table cover both spaces, ascend, and no two neighbours
// have one class; what is resolved further starts at 0 and ends where it
// should.
func TestIntervalsAreMinimal(t *testing.T) {
	set := func(ranges ...ipset.Range) *ipset.Set { return ipset.New(ranges) }
	hi := func(n uint64) ipset.Addr { return ipset.Addr{Hi: n} }
	max := ^uint64(0)
	tests := map[string]struct {
		set  *ipset.Set
		want []tables.Interval
	}{
		"all of IPv6 skips the IPv4 block": {
			set:  ipset.All6(),
			want: []tables.Interval{{}, {Value: 1}},
		},
		"all of IPv4": {
			set:  ipset.All4(),
			want: []tables.Interval{{Value: 1}, {}},
		},
		"a /64": {
			set: prefixes("2001:db8::/64"),
			want: []tables.Interval{
				{},
				{}, {Start: 0x20010db8_00000000, Value: 1}, {Start: 0x20010db8_00000001},
			},
		},
		"the low half of a /64 and all of the next": {
			set: set(ipset.Range{First: hi(8), Last: ipset.Addr{Hi: 8, Lo: max / 2}}, ipset.Range{First: hi(9), Last: ipset.Addr{Hi: 9, Lo: max}}),
			want: []tables.Interval{
				{},
				{}, {Start: 8, Value: 5, Sub: 2}, {Start: 9, Value: 1}, {Start: 10},
				{Value: 1}, {Start: max/2 + 1},
			},
		},
		"a range over three /64": {
			set: set(ipset.Range{First: ipset.Addr{Hi: 8, Lo: 7}, Last: ipset.Addr{Hi: 10, Lo: 6}}),
			want: []tables.Interval{
				{},
				{}, {Start: 8, Value: 6, Sub: 2}, {Start: 9, Value: 1}, {Start: 10, Value: 8, Sub: 2}, {Start: 11},
				{}, {Start: 7, Value: 1},
				{Value: 1}, {Start: 7},
			},
		},
		"the last address": {
			set:  set(ipset.Range{First: ipset.Addr{Hi: max, Lo: max}, Last: ipset.Addr{Hi: max, Lo: max}}),
			want: []tables.Interval{{}, {}, {Start: max, Value: 3, Sub: 2}, {}, {Start: max, Value: 1}},
		},
		"the addresses around the IPv4 block": {
			set: set(ipset.Range{First: first4.Prev(), Last: first4.Prev()}, ipset.Range{First: last4.Next(), Last: last4.Next()}),
			want: []tables.Interval{
				{},
				{Value: 3, Sub: 3}, {Start: 1},
				{}, {Start: first4.Prev().Lo, Value: 1}, {Start: last4.Next().Lo + 1},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := mustCompile(t, egress(policy.Rule{To: test.set})).Chains[verdict.Egress]
			got := c.Addresses[tables.Destination].Intervals
			if len(got) != len(test.want) {
				t.Fatalf("got %+v, want %+v", got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("interval %d: got %+v, want %+v", i, got[i], test.want[i])
				}
			}
		})
	}
}

// A cell is the position of the interval that holds its first address, and the
// last entry that of the last interval of the family.
func TestCellsPointAtTheirIntervals(t *testing.T) {
	gen := oracle.NewGenerator(seed(t))
	for range 100 {
		set := mustCompile(t, gen.PolicyOf(1+gen.Rand().IntN(60)))
		for d := range set.Chains {
			for i := range set.Chains[d].Addresses {
				table := &set.Chains[d].Addresses[i]
				if len(table.Intervals) == 0 {
					continue
				}
				end4 := table.Cells4[len(table.Cells4)-1]
				checkCells(t, table.Cells4, table.Intervals, 0, 32-table.Width4)
				checkCells(t, table.Cells6, table.Intervals, end4+1, 64-table.Width6)
			}
		}
	}
}

func checkCells(t *testing.T, cells []uint32, intervals []tables.Interval, base uint32, shift uint8) {
	t.Helper()
	end := cells[len(cells)-1]
	if cells[0] != base {
		t.Errorf("cell 0 is at %d, want %d", cells[0], base)
	}
	for i, at := range cells[:len(cells)-1] {
		first := uint64(i) << shift
		if intervals[at].Start > first || at < end && intervals[at+1].Start <= first {
			t.Fatalf("cell %d starts at %x and is said to lie in interval %d of %+v", i, first, at, intervals)
		}
	}
}

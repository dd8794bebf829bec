package compile

import (
	"math/rand/v2"
	"testing"

	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// Whatever the lines look like, an address has the class that the set says,
// Intervals agrees, every kind of line is met, and no path is longer than
// the program follows it.
func TestLinesHoldEverySet(t *testing.T) {
	r := rand.New(rand.NewPCG(11, seed(t)))
	kinds, deepest := map[tables.LineKind]int{}, 0
	for name, set := range oracle.Shapes(r) {
		c := mustCompile(t, egress(policy.Rule{To: set})).Chains[verdict.Egress]
		table := &c.Addresses[tables.Destination]
		check := func(a ipset.Addr) {
			t.Helper()
			want := uint16(0)
			if set.Contains(a) {
				want = 1
			}
			if got := table.Class(a); got != want {
				t.Fatalf("%s: %s has class %d, want %d", name, a, got, want)
			}
		}
		for _, one := range set.Ranges() {
			check(one.First)
			check(one.Last)
			check(one.First.Prev())
			check(one.Last.Next())
		}
		for range 20_000 {
			check(ipset.From4(r.Uint32() >> r.IntN(32)))
			check(ipset.Addr{Hi: r.Uint64() >> r.IntN(64), Lo: r.Uint64() >> r.IntN(64)})
		}
		for first, class := range table.Intervals() {
			check(first)
			if table.Class(first) != class {
				t.Fatalf("%s: Intervals gives %s class %d, Class %d", name, first, class, table.Class(first))
			}
		}
		for i := range table.Lines {
			kinds[table.Lines[i].Kind]++
		}
		deepest = max(deepest, table.Depth())
	}
	for kind := tables.LineSteps; kind <= tables.LineWide; kind++ {
		if kinds[kind] == 0 {
			t.Errorf("no line of kind %d: the shapes leave it untested", kind)
		}
	}
	t.Logf("lines by kind: %v; the longest path has %d", kinds, deepest)
	if deepest > tables.MaxDepth {
		t.Errorf("a path of %d lines; the program follows %d", deepest, tables.MaxDepth)
	}
}

// networks6 gives n IPv6 networks of 32 to 64 bits, mostly 48, in a few blocks far apart.
func networks6(r *rand.Rand, n int) []ipset.Range {
	out := make([]ipset.Range, n)
	for i := range out {
		bits := [8]int{32, 40, 44, 48, 48, 48, 48, 64}[r.IntN(8)]
		first := ipset.Addr{Hi: 0x2400<<48 + uint64(r.IntN(5))<<57 | r.Uint64()>>12&^(1<<(64-bits)-1)}
		out[i] = ipset.Range{First: first, Last: ipset.Addr{Hi: first.Hi | (1<<(64-bits) - 1), Lo: ^uint64(0)}}
	}
	return out
}

// A million prefixes stay within the memory that docs/PERFORMANCE.md promises.
func TestLinesAreDense(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	set := mustCompile(t, oneSet(randomPrefixes(r, 1_000_000)))
	if size := set.Size(); size.Bytes > 48<<20 {
		t.Errorf("%d bytes for a million IPv4 prefixes, want at most 48 MiB", size.Bytes)
	}
	set = mustCompile(t, oneSet(networks6(r, 1_000_000)))
	if size := set.Size(); size.Bytes > 64<<20 {
		t.Errorf("%d bytes for a million IPv6 networks, want at most 64 MiB", size.Bytes)
	}
	set = mustCompile(t, oneSet(randomHosts6(r, 1_000_000)))
	if size := set.Size(); size.Bytes > 140<<20 {
		t.Errorf("%d bytes for a million IPv6 addresses, want at most 140 MiB", size.Bytes)
	}
}

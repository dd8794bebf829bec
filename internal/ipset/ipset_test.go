package ipset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// The naive model of the tests: a small space of addresses that straddles both
// edges of the IPv4 block, each one marked or not.
const (
	edge  = 24 // addresses on each side of an edge
	space = 4 * edge
)

// place gives the address that stands for number i of the small space.
func place(i int) Addr {
	switch {
	case i < edge:
		return Addr{0, first4.Lo - edge + uint64(i)}
	case i < 2*edge:
		return Addr{0, first4.Lo + uint64(i-edge)}
	case i < 3*edge:
		return Addr{0, last4.Lo - edge + 1 + uint64(i-2*edge)}
	}
	return Addr{0, last4.Lo + 1 + uint64(i-3*edge)}
}

type naive [space]bool

// randomSet gives ranges that stay within one family and one run of places,
// shuffled and overlapping, and the same as marks.
func randomSet(rng *rand.Rand) (*Set, naive) {
	var ranges []Range
	var marks naive
	for range rng.IntN(12) {
		run := rng.IntN(4) * edge
		i := run + rng.IntN(edge)
		j := i + rng.IntN(run+edge-i)
		ranges = append(ranges, Range{place(i), place(j)})
		for ; i <= j; i++ {
			marks[i] = true
		}
	}
	return New(ranges), marks
}

func check(t *testing.T, what string, s *Set, want func(i int) bool) {
	t.Helper()
	for i := range space {
		if got := s.Contains(place(i)); got != want(i) {
			t.Fatalf("%s: contains %v: %v, want %v; ranges %v", what, place(i), got, want(i), s.Ranges())
		}
	}
	for i, r := range s.Ranges() {
		if r.Last.Less(r.First) || r.First.Is4() != r.Last.Is4() {
			t.Fatalf("%s: range %v is no range of one family", what, r)
		}
		if i == 0 {
			continue
		}
		before := s.Ranges()[i-1]
		if !before.Last.Less(r.First) || before.Last.Next() == r.First && sameFamily(before.Last, r.First) {
			t.Fatalf("%s: ranges %v and %v overlap or touch", what, before, r)
		}
	}
}

func TestSetOperationsAgreeWithMarks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 4000 {
		a, inA := randomSet(rng)
		b, inB := randomSet(rng)
		aBefore, bBefore := slices.Clone(a.Ranges()), slices.Clone(b.Ranges())
		check(t, "new", a, func(i int) bool { return inA[i] })
		check(t, "union", a.Union(b), func(i int) bool { return inA[i] || inB[i] })
		check(t, "intersect", a.Intersect(b), func(i int) bool { return inA[i] && inB[i] })
		check(t, "subtract", a.Subtract(b), func(i int) bool { return inA[i] && !inB[i] })
		if !slices.Equal(a.Ranges(), aBefore) || !slices.Equal(b.Ranges(), bBefore) {
			t.Fatal("an operation changed its operands")
		}
		if a.Equal(b) != (inA == inB) {
			t.Fatalf("equal: %v; %v and %v", a.Equal(b), a.Ranges(), b.Ranges())
		}
		if a.IsEmpty() != (inA == naive{}) {
			t.Fatalf("empty: %v; %v", a.IsEmpty(), a.Ranges())
		}
	}
}

func text(ranges []Range) []string {
	out := []string{}
	for _, r := range ranges {
		out = append(out, fmt.Sprintf("%v-%v", r.First, r.Last))
	}
	return out
}

func TestPrefixRanges(t *testing.T) {
	const top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	tests := []struct {
		prefix string
		want   []string
	}{
		{"0.0.0.0/0", []string{"0.0.0.0-255.255.255.255"}},
		{"10.0.0.0/8", []string{"10.0.0.0-10.255.255.255"}},
		{"10.1.2.3/8", []string{"10.0.0.0-10.255.255.255"}},
		{"10.1.2.3/32", []string{"10.1.2.3-10.1.2.3"}},
		{"2001:db8::/32", []string{"2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"2001:db8::/64", []string{"2001:db8::-2001:db8::ffff:ffff:ffff:ffff"}},
		{"2001:db8::/65", []string{"2001:db8::-2001:db8::7fff:ffff:ffff:ffff"}},
		{"2001:db8::1/128", []string{"2001:db8::1-2001:db8::1"}},
		{"::/0", []string{"::-::fffe:ffff:ffff", "::1:0:0:0-" + top}},
		{"::/79", []string{"::-::fffe:ffff:ffff", "::1:0:0:0-::1:ffff:ffff:ffff"}},
		{"::/80", []string{"::-::fffe:ffff:ffff"}},                 // ends where the IPv4 block does
		{"::fffe:0:0/95", []string{"::fffe:0:0-::fffe:ffff:ffff"}}, // likewise
		{"::ffff:0:0/96", []string{"0.0.0.0-255.255.255.255"}},
		{"::ffff:10.0.0.0/104", []string{"10.0.0.0-10.255.255.255"}},
		{"::1:0:0:0/80", []string{"::1:0:0:0-::1:ffff:ffff:ffff"}},
	}
	for _, tt := range tests {
		got := text(PrefixRanges(netip.MustParsePrefix(tt.prefix)))
		if !slices.Equal(got, tt.want) {
			t.Errorf("PrefixRanges(%s) = %v, want %v", tt.prefix, got, tt.want)
		}
	}
}

func TestFamiliesStayApart(t *testing.T) {
	v6 := Of(netip.MustParsePrefix("::/0"))
	if !v6.Equal(All6()) {
		t.Errorf("::/0 is %v, want %v", v6.Ranges(), All6().Ranges())
	}
	if !v6.Intersect(All4()).IsEmpty() {
		t.Error("::/0 holds IPv4 addresses")
	}
	if v6.Contains(FromNetip(netip.MustParseAddr("192.0.2.1"))) {
		t.Error("::/0 contains 192.0.2.1")
	}
	all := All4().Union(All6())
	if n := len(all.Ranges()); n != 3 {
		t.Errorf("all addresses are %d ranges, want 3: IPv4 and IPv6 must not merge", n)
	}
	if !all.Subtract(All6()).Equal(All4()) || !all.Subtract(All4()).Equal(All6()) {
		t.Error("taking one family from all does not leave the other")
	}
}

func TestAddrConversions(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "::fffe:ffff:ffff", "::1:0:0:0", "2001:db8::1"} {
		n := netip.MustParseAddr(s)
		a := FromNetip(n)
		if a.Netip() != n || a.String() != s || a.Is4() != n.Is4() || From16(n.As16()) != a {
			t.Errorf("%s: %v, is4 %v", s, a, a.Is4())
		}
		if a != last6 && !a.Less(a.Next()) || a.Next().Prev() != a || a.Compare(a.Next()) != -1 || a.Next().Compare(a) != 1 {
			t.Errorf("%s: next %v, previous of it %v", s, a.Next(), a.Next().Prev())
		}
	}
	if From4(0xc0000201) != FromNetip(netip.MustParseAddr("192.0.2.1")) || From4(7).V4() != 7 {
		t.Error("From4 and V4 disagree with netip")
	}
	if last6.Next() != (Addr{}) || (Addr{}).Prev() != last6 {
		t.Error("the ends of the space do not wrap")
	}
}

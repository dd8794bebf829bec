package prefixes

import (
	"net/netip"
	"slices"
	"testing"
)

const many = 20_000

func TestListIsWhatWasAskedFor(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6} {
		l := New(family, many)
		seen := map[netip.Prefix]bool{}
		lengths := map[int]int{}
		for _, p := range l.Prefixes {
			if p != p.Masked() || p.Addr().Is4() != (family == IPv4) {
				t.Fatalf("%v: prefix %v", family, p)
			}
			if seen[p] {
				t.Fatalf("%v: %v is there twice", family, p)
			}
			if overlaps(kinds[family].spared, p) {
				t.Fatalf("%v: %v holds addresses that nobody sends to", family, p)
			}
			seen[p] = true
			lengths[p.Bits()]++
		}
		if len(seen) != many {
			t.Errorf("%v: %d prefixes, want %d", family, len(seen), many)
		}
		// Single networks are a little more than half.
		single := kinds[family].lengths[0]
		if got := lengths[single.bits]; got < many*45/100 || got > many*65/100 {
			t.Errorf("%v: %d of %d prefixes have %d bits, want about 55 %%", family, got, many, single.bits)
		}
		if len(lengths) != len(kinds[family].lengths) {
			t.Errorf("%v: %d lengths, want %d", family, len(lengths), len(kinds[family].lengths))
		}
	}
}

func TestSharesAddUp(t *testing.T) {
	for family, k := range kinds {
		sum := 0
		for _, s := range k.lengths {
			sum += s.permille
		}
		if sum != 1000 {
			t.Errorf("%v: the shares of all lengths are %d of a thousand", family, sum)
		}
	}
}

// Contains is held against the plain definition.
func TestInsideAndOutside(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6} {
		l := New(family, 300)
		listed := func(a netip.Addr) bool {
			return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for what, c := range map[string]struct {
			addresses []netip.Addr
			want      bool
		}{"inside": {l.Inside(2000), true}, "outside": {l.Outside(2000), false}} {
			if len(c.addresses) != 2000 {
				t.Errorf("%v: %d addresses %s, want 2000", family, len(c.addresses), what)
			}
			for _, a := range c.addresses {
				if listed(a) != c.want || l.Contains(a) != c.want {
					t.Fatalf("%v: %v is %s; in the list: %v, Contains: %v", family, a, what, listed(a), l.Contains(a))
				}
			}
		}
	}
}

func TestEqualArgumentsGiveEqualLists(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6} {
		a, b := New(family, 500), New(family, 500)
		if !slices.Equal(a.Prefixes, b.Prefixes) || !slices.Equal(a.Inside(9), b.Inside(9)) || !slices.Equal(a.Outside(9), b.Outside(9)) {
			t.Errorf("%v: two lists of 500 differ", family)
		}
		if slices.Equal(a.Prefixes, New(family, 501).Prefixes[:500]) {
			t.Errorf("%v: lists of 500 and 501 begin alike", family)
		}
	}
}

func TestSmallestList(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6} {
		for n := range 3 {
			if l := New(family, n); len(l.Prefixes) != n {
				t.Errorf("%v: %d prefixes, want %d", family, len(l.Prefixes), n)
			}
		}
	}
}

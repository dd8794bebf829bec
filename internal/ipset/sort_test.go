package ipset

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSort6(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for name, next := range map[string]func() Addr{
		"anywhere":          func() Addr { return Addr{rng.Uint64(), rng.Uint64()} },
		"equal":             func() Addr { return Addr{1, 2} },
		"in one /64":        func() Addr { return Addr{0x20010db8 << 32, rng.Uint64()} },
		"in the last byte":  func() Addr { return Addr{7, uint64(rng.IntN(256))} },
		"two first bytes":   func() Addr { return Addr{uint64(rng.IntN(2)) << 56, rng.Uint64N(3)} },
		"round the v4 part": func() Addr { return Addr{0, []uint64{first4.Lo - 1, last4.Lo + 1}[rng.IntN(2)]} },
	} {
		for _, n := range []int{0, 1, 2, fewRanges6 - 1, fewRanges6, fewRanges6 + 1, 3000} {
			list := make([]Range, n)
			for i := range list {
				a := next()
				list[i] = Range{a, a}
			}
			want := slices.Clone(list)
			slices.SortFunc(want, byFirst)
			backwards := slices.Clone(want)
			slices.Reverse(backwards)
			for order, got := range map[string][]Range{"as made": list, "sorted": slices.Clone(want), "backwards": backwards} {
				if sort6(got); !slices.Equal(got, want) {
					t.Errorf("%s, %d ranges %s: not sorted", name, n, order)
				}
			}
		}
	}
}

func TestSort4(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for name, next := range map[string]func() range4{
		"anywhere":        func() range4 { return newRange4(rng.Uint32(), ^uint32(0)) },
		"equal":           func() range4 { return newRange4(7, 7) },
		"in the low bits": func() range4 { return newRange4(rng.Uint32N(3000), 1<<31) },
		"at the ends":     func() range4 { return newRange4(-rng.Uint32N(2), ^uint32(0)) },
	} {
		for _, n := range []int{0, 1, fewRanges4 - 1, fewRanges4, 3 * fewRanges4} {
			list := make([]range4, n)
			for i := range list {
				list[i] = next()
			}
			want := slices.Clone(list)
			slices.Sort(want)
			if got := sort4(slices.Clone(list)); !slices.Equal(got, want) {
				t.Errorf("%s, %d ranges: not sorted", name, n)
			}
		}
	}
}

// TestLargeSetsAgreeWithSmallOnes: the way a set is sorted depends on its size,
// what it holds does not.
func TestLargeSetsAgreeWithSmallOnes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	var ranges []Range
	want := &Set{}
	for range 200 {
		var few []Range
		for range 50 {
			a := place(rng.IntN(space))
			switch rng.IntN(4) {
			case 0:
				a = From4(rng.Uint32())
			case 1:
				a = Addr{rng.Uint64(), rng.Uint64()}
			}
			few = append(few, Range{a, a})
		}
		ranges = append(ranges, few...)
		want = want.Union(New(few))
	}
	naive := slices.Clone(ranges)
	slices.SortFunc(naive, byFirst)
	if got := New(ranges); !got.Equal(want) || !got.Equal(&Set{merge(naive)}) {
		t.Errorf("%d ranges, want %d", len(got.Ranges()), len(want.Ranges()))
	}
}

package ipset

import (
	"slices"
	"sort"
)

// range4 is an IPv4 range in 8 bytes, a quarter of a Range: the first address
// above the last. Large lists are nearly all IPv4, so they are read and sorted
// in this form.
type range4 uint64

func pack4(r Range) range4 { return newRange4(r.First.V4(), r.Last.V4()) }

func newRange4(first, last uint32) range4 { return range4(first)<<32 | range4(last) }

func (r range4) first() uint32 { return uint32(r >> 32) }
func (r range4) last() uint32  { return uint32(r) }
func (r range4) unpack() Range { return Range{From4(r.first()), From4(r.last())} }

func byFirst(a, b Range) int { return a.First.Compare(b.First) }

// joinSorted sorts the IPv6 ranges and the IPv4 ranges by First and joins them
// into one sorted slice, in the place of v6 if it has the room. Both slices
// are given away. IPv4 ranges that overlap or touch are merged on the way.
func joinSorted(v6 []Range, v4 []range4) []Range {
	sort6(v6)
	v4 = merge4(sort4(v4))
	below := sort.Search(len(v6), func(i int) bool { return !v6[i].First.Less(first4) })
	n := len(v6) + len(v4)
	out := v6
	if n > cap(v6) {
		out = make([]Range, n)
		copy(out, v6[:below])
	}
	out = out[:n]
	copy(out[below+len(v4):], v6[below:])
	for i, r := range v4 {
		out[below+i] = r.unpack()
	}
	return out
}

// merge4 is merge for IPv4.
func merge4(ranges []range4) []range4 {
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && uint64(r.first()) <= uint64(out[n-1].last())+1 {
			if out[n-1].last() < r.last() {
				out[n-1] = newRange4(out[n-1].first(), r.last())
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// Below this many elements the comparing sort of the library is the faster one.
const (
	fewRanges4 = 1 << 10
	fewRanges6 = 64
)

// sort4 sorts by the first address: from its lowest digit to its highest, each
// time keeping the order of the digits before (LSD radix sort). What it
// returns is the slice it was given or a copy of it.
func sort4(ranges []range4) []range4 {
	if slices.IsSorted(ranges) {
		return ranges
	}
	if len(ranges) < fewRanges4 {
		slices.Sort(ranges)
		return ranges
	}
	const digitBits, digits = 11, 3
	digit := func(r range4, d int) range4 { return r >> (32 + d*digitBits) & (1<<digitBits - 1) }
	var places [digits][1 << digitBits]int
	for _, r := range ranges {
		for d := range digits {
			places[d][digit(r, d)]++
		}
	}
	other := make([]range4, len(ranges))
	for d := range digits {
		at := &places[d]
		place := 0
		for i, n := range at {
			at[i] = place
			place += n
		}
		for _, r := range ranges {
			to := &at[digit(r, d)]
			other[*to] = r
			*to++
		}
		ranges, other = other, ranges
	}
	return ranges
}

// sort6 sorts by the first address, in place.
func sort6(ranges []Range) {
	if !slices.IsSortedFunc(ranges, byFirst) {
		flagSort(ranges, 0)
	}
}

// flagSort sorts ranges whose first addresses agree in the bytes before the
// given one: it swaps each range into the part that its byte belongs to, then
// sorts the parts by the bytes behind (McIlroy, Bostic, McIlroy, "Engineering
// Radix Sort", Computing Systems 1993). Its time is linear whatever the input.
func flagSort(ranges []Range, byteIndex int) {
	for ; byteIndex < 16 && len(ranges) >= fewRanges6; byteIndex++ {
		var next, end [256]int // the place for the next range of a part, and where it ends
		for i := range ranges {
			end[ranges[i].First.byteAt(byteIndex)]++
		}
		if end[ranges[0].First.byteAt(byteIndex)] == len(ranges) {
			continue
		}
		place := 0
		for b, n := range end {
			next[b] = place
			place += n
			end[b] = place
		}
		for b := range end {
			for next[b] < end[b] {
				r := ranges[next[b]]
				for to := r.First.byteAt(byteIndex); int(to) != b; to = r.First.byteAt(byteIndex) {
					ranges[next[to]], r = r, ranges[next[to]]
					next[to]++
				}
				ranges[next[b]] = r
				next[b]++
			}
		}
		first := 0
		for _, behind := range end {
			flagSort(ranges[first:behind], byteIndex+1)
			first = behind
		}
		return
	}
	if byteIndex < 16 {
		slices.SortFunc(ranges, byFirst)
	}
}

// byteAt is byte i of the address, counted from the most significant.
func (a Addr) byteAt(i int) uint8 {
	if i < 8 {
		return uint8(a.Hi >> (56 - 8*i))
	}
	return uint8(a.Lo >> (120 - 8*i))
}

// Package ipset holds sets of IP addresses as sorted, disjoint ranges, and
// reads them from text. It stands beside stage 1: policy reads address text
// into sets, compile turns sets into address tables.
//
// IPv4 addresses live in the same 128-bit space as IPv6, at ::ffff:0:0/96, so
// that no operation exists twice. An IPv6 prefix that is wider than that block
// leaves it out: ::/0 means every IPv6 address and no IPv4 address.
package ipset

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// Addr is an address in host order, most significant half first. IPv4
// addresses are v4-mapped.
type Addr struct{ Hi, Lo uint64 }

const v4Prefix = uint64(0xffff) << 32

var (
	first4 = Addr{0, v4Prefix}
	last4  = Addr{0, v4Prefix | 0xffffffff}
	last6  = Addr{^uint64(0), ^uint64(0)}
)

// FromNetip converts a; zones are dropped, v4-mapped IPv6 becomes IPv4.
func FromNetip(a netip.Addr) Addr {
	b := a.As16()
	return Addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// From16 converts the 16 bytes of an address in network order.
func From16(b [16]byte) Addr {
	return Addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// From4 converts an IPv4 address given as a number.
func From4(a uint32) Addr { return Addr{0, v4Prefix | uint64(a)} }

// Netip converts back; v4-mapped addresses come out as IPv4.
func (a Addr) Netip() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b).Unmap()
}

func (a Addr) String() string { return a.Netip().String() }

// Is4 tells whether a is an IPv4 address; V4 gives its number then.
func (a Addr) Is4() bool  { return a.Hi == 0 && a.Lo>>32 == 0xffff }
func (a Addr) V4() uint32 { return uint32(a.Lo) }

// Compare orders addresses as 128-bit numbers.
func (a Addr) Compare(b Addr) int {
	switch {
	case a.Hi < b.Hi || (a.Hi == b.Hi && a.Lo < b.Lo):
		return -1
	case a == b:
		return 0
	}
	return 1
}

// Less is Compare < 0.
func (a Addr) Less(b Addr) bool { return a.Hi < b.Hi || (a.Hi == b.Hi && a.Lo < b.Lo) }

// Next is the following address; that of the last one wraps to zero.
func (a Addr) Next() Addr {
	lo, carry := bits.Add64(a.Lo, 1, 0)
	return Addr{a.Hi + carry, lo}
}

// Prev is the address before; that of zero wraps to the last.
func (a Addr) Prev() Addr {
	lo, borrow := bits.Sub64(a.Lo, 1, 0)
	return Addr{a.Hi - borrow, lo}
}

// Range is First to Last, both included; First <= Last.
type Range struct{ First, Last Addr }

// PrefixRanges gives the ranges of a prefix: one, or two where an IPv6 prefix
// has the IPv4 block inside it. Host bits are ignored.
func PrefixRanges(p netip.Prefix) []Range {
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	a, mask := FromNetip(p.Addr()), prefixMask(n)
	return appendRange(nil, Addr{a.Hi & mask.Hi, a.Lo & mask.Lo}, Addr{a.Hi | ^mask.Hi, a.Lo | ^mask.Lo})
}

// prefixMask has the first n bits set.
func prefixMask(n int) Addr {
	if n <= 64 {
		return Addr{^(^uint64(0) >> n), 0} // a shift by 64 gives 0 in Go
	}
	return Addr{^uint64(0), ^(^uint64(0) >> (n - 64))}
}

// appendRange appends first to last. Where an IPv6 range begins outside of the
// IPv4 block and reaches into it, the block is left out.
func appendRange(dst []Range, first, last Addr) []Range {
	if !first.Less(first4) || last.Less(first4) {
		return append(dst, Range{first, last})
	}
	dst = append(dst, Range{first, first4.Prev()})
	if last4.Less(last) {
		dst = append(dst, Range{last4.Next(), last})
	}
	return dst
}

// Set is an immutable set of addresses. The zero Set is empty.
type Set struct {
	ranges []Range // sorted, disjoint, and never adjacent
}

// New makes a set of the ranges, in any order and overlapping as they may. It
// sorts them in place and keeps the slice: the caller gives it away. A range
// must not hold addresses of both families; those of this package never do.
func New(ranges []Range) *Set {
	if !slices.IsSortedFunc(ranges, byFirst) {
		v4 := make([]range4, 0, len(ranges))
		v6 := ranges[:0]
		for _, r := range ranges {
			if r.First.Is4() {
				v4 = append(v4, pack4(r))
			} else {
				v6 = append(v6, r)
			}
		}
		ranges = joinSorted(v6, v4)
	}
	return &Set{merge(ranges)}
}

// merge joins ranges that overlap or touch, in place. They are sorted by First.
func merge(ranges []Range) []Range {
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && (!out[n-1].Last.Less(r.First) || out[n-1].Last.Next() == r.First && sameFamily(out[n-1].Last, r.First)) {
			if out[n-1].Last.Less(r.Last) {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// sameFamily keeps IPv4 and IPv6 ranges apart even where their numbers meet.
func sameFamily(a, b Addr) bool { return a.Is4() == b.Is4() }

// Of makes a set of prefixes.
func Of(prefixes ...netip.Prefix) *Set {
	var ranges []Range
	for _, p := range prefixes {
		ranges = append(ranges, PrefixRanges(p)...)
	}
	return New(ranges)
}

// All4 and All6 are every address of a family.
func All4() *Set { return &Set{[]Range{{first4, last4}}} }
func All6() *Set { return &Set{[]Range{{Addr{}, first4.Prev()}, {last4.Next(), last6}}} }

// Ranges gives the sorted, disjoint ranges. The caller must not change them.
func (s *Set) Ranges() []Range { return s.ranges }

// IsEmpty tells whether the set has no address.
func (s *Set) IsEmpty() bool { return len(s.ranges) == 0 }

// Contains tells whether a is in the set.
func (s *Set) Contains(a Addr) bool {
	i := sort.Search(len(s.ranges), func(i int) bool { return !s.ranges[i].Last.Less(a) })
	return i < len(s.ranges) && !a.Less(s.ranges[i].First)
}

// Union is what is in either.
func (s *Set) Union(o *Set) *Set {
	return New(slices.Concat(s.ranges, o.ranges))
}

// Intersect is what is in both.
func (s *Set) Intersect(o *Set) *Set {
	var out []Range
	for i, j := 0, 0; i < len(s.ranges) && j < len(o.ranges); {
		a, b := s.ranges[i], o.ranges[j]
		first, last := a.First, a.Last
		if first.Less(b.First) {
			first = b.First
		}
		if b.Last.Less(last) {
			last = b.Last
		}
		if !last.Less(first) {
			out = append(out, Range{first, last})
		}
		if a.Last.Less(b.Last) {
			i++
		} else {
			j++
		}
	}
	return &Set{out}
}

// Subtract is what is in s and not in o.
func (s *Set) Subtract(o *Set) *Set {
	var out []Range
	j := 0
	for _, r := range s.ranges {
		for j < len(o.ranges) && o.ranges[j].Last.Less(r.First) {
			j++
		}
		first, open := r.First, true
		for k := j; k < len(o.ranges) && !r.Last.Less(o.ranges[k].First); k++ {
			cut := o.ranges[k]
			if first.Less(cut.First) {
				out = append(out, Range{first, cut.First.Prev()})
			}
			if !cut.Last.Less(r.Last) {
				open = false
				break
			}
			first = cut.Last.Next()
		}
		if open {
			out = append(out, Range{first, r.Last})
		}
	}
	return &Set{out}
}

// Equal tells whether both hold the same addresses.
func (s *Set) Equal(o *Set) bool { return slices.Equal(s.ranges, o.ranges) }

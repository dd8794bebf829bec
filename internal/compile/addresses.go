package compile

import (
	"math/bits"
	"slices"

	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
)

// maxWidth bounds the direct index of an address table: 2^20 cells.
const maxWidth = 20

var (
	first4 = ipset.From4(0)
	last4  = ipset.From4(^uint32(0))
	last   = ipset.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}
)

// addressGroups is the rules' distinct address sets.
type addressGroups struct {
	grouping
	sets []*ipset.Set // of each group
}

// groupAddresses groups rules by the addresses they ask for in dimension d:
// first by pointer, because rules that name one set share it and it may be
// large, then by content.
func groupAddresses(rules []policy.Rule, d tables.Dimension) addressGroups {
	g := addressGroups{grouping: newGrouping(len(rules))}
	byPointer := map[*ipset.Set]int{nil: none}
	byContent := map[uint64][]int{}
	for i := range rules {
		set := rules[i].To
		if d == tables.Source {
			set = rules[i].From
		}
		group, known := byPointer[set]
		if !known {
			group = len(g.sets)
			hash := contentHash(set)
			for _, other := range byContent[hash] {
				if g.sets[other].Equal(set) {
					group = other
				}
			}
			if group == len(g.sets) {
				g.sets = append(g.sets, set)
				byContent[hash] = append(byContent[hash], group)
			}
			byPointer[set] = group
		}
		g.add(group)
	}
	return g
}

func contentHash(s *ipset.Set) uint64 {
	var h uint64
	for _, r := range s.Ranges() {
		for _, word := range [4]uint64{r.First.Hi, r.First.Lo, r.Last.Hi, r.Last.Lo} {
			h = mix(h ^ word)
		}
	}
	return h
}

// cursor walks the boundaries of one set in ascending order.
type cursor struct {
	at     ipset.Addr // the next boundary: a first address, or the one behind a last
	group  int
	ranges []ipset.Range // ranges[0] is the one that at belongs to
	inside bool          // at is behind the last address of ranges[0]
}

// advance moves to the next boundary and tells whether there is one.
func (c *cursor) advance() bool {
	if !c.inside {
		c.inside = true
		c.at = c.ranges[0].Last.Next()
		return c.ranges[0].Last != last
	}
	c.inside = false
	c.ranges = c.ranges[1:]
	if len(c.ranges) == 0 {
		return false
	}
	c.at = c.ranges[0].First
	return true
}

// cursors is a binary heap by the next boundary: the lowest comes first.
type cursors []cursor

func newCursors(sets []*ipset.Set) cursors {
	h := make(cursors, 0, len(sets))
	for g, s := range sets {
		if r := s.Ranges(); len(r) > 0 {
			h = append(h, cursor{at: r[0].First, group: g, ranges: r})
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	return h
}

// advance moves the lowest cursor on, and takes it out at its end.
func (h *cursors) advance() {
	s := *h
	if !s[0].advance() {
		s[0] = s[len(s)-1]
		s = s[:len(s)-1]
		*h = s
	}
	s.down(0)
}

func (h cursors) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at.Less(h[child].at) {
			child++
		}
		if !h[child].at.Less(h[i].at) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// compileAddresses fills t with one sweep over the whole address space, from
// boundary to boundary. It gives nil where no rule asks.
func compileAddresses(t *tables.AddressTable, g addressGroups) (*dimension, error) {
	if len(g.sets) == 0 {
		return nil, nil
	}
	dim := newDimension(g.grouping)
	active := newCombination(len(g.sets))
	heap := newCursors(g.sets)
	var b addressBuilder
	b.reserve(g.sets)
	for start, more := (ipset.Addr{}), true; more; {
		for len(heap) > 0 && heap[0].at == start {
			active.flip(heap[0].group)
			heap.advance()
		}
		class, err := dim.class(&active)
		if err != nil {
			return nil, err
		}
		end := last
		if more = len(heap) > 0; more {
			end = heap[0].at.Prev()
		}
		b.add(start, end, class)
		start = end.Next()
	}
	b.finish(t)
	return dim, nil
}

// addressBuilder collects intervals in ascending order and merges neighbours
// of one class.
type addressBuilder struct {
	v4  []tables.Interval
	v6  []tables.Interval // by the leading 64 bits
	low []tables.Interval // by the low 64 bits, where v6 has Sub > 0; Value there counts from low's start

	class6 uint32 // of the last IPv6 addresses added
}

// reserve makes room for what the sets' boundaries take if none coincide, so
// that large tables do not grow step by step.
func (b *addressBuilder) reserve(sets []*ipset.Set) {
	n4, n6, low := 1, 2, 0
	for _, s := range sets {
		for _, r := range s.Ranges() {
			behind := r.Last.Next()
			switch {
			case r.First.Is4():
				n4 += 2
			case r.First.Lo != 0 && r.First.Hi == behind.Hi:
				n6, low = n6+2, low+3
			default:
				n6 += 2
				if r.First.Lo != 0 {
					n6, low = n6+1, low+2
				}
				if behind.Lo != 0 {
					n6, low = n6+1, low+2
				}
			}
		}
	}
	b.v4 = make([]tables.Interval, 0, min(n4, tables.MaxIntervals))
	b.v6 = make([]tables.Interval, 0, min(n6, tables.MaxIntervals))
	b.low = make([]tables.Interval, 0, min(low, tables.MaxIntervals))
}

// add gives the addresses from first to last a class. The IPv4 block lies
// within the IPv6 space and is cut out of it.
func (b *addressBuilder) add(first, last ipset.Addr, class uint16) {
	if first.Less(first4) {
		b.add6(first, uint32(class))
	}
	if !last.Less(first4) && !last4.Less(first) {
		start := uint64(0)
		if first4.Less(first) {
			start = uint64(first.V4())
		}
		if n := len(b.v4); n == 0 || b.v4[n-1].Value != uint32(class) {
			b.v4 = append(b.v4, tables.Interval{Start: start, Value: uint32(class)})
		}
	}
	if last4.Less(last) {
		if !last4.Less(first) {
			first = last4.Next()
		}
		b.add6(first, uint32(class))
	}
}

// add6 starts an IPv6 interval.
func (b *addressBuilder) add6(start ipset.Addr, class uint32) {
	before := b.class6
	n := len(b.v6)
	switch {
	case n == 0: // the first starts at ::
		b.v6 = append(b.v6, tables.Interval{Value: class})
		b.class6 = class
		return
	case before == class:
		return
	}
	b.class6 = class
	b.leave(start.Hi, before)
	top := &b.v6[len(b.v6)-1]
	switch {
	case start.Lo == 0:
		b.v6 = append(b.v6, tables.Interval{Start: start.Hi, Value: class})
		return
	case top.Start < start.Hi:
		b.v6 = append(b.v6, tables.Interval{Start: start.Hi, Value: uint32(len(b.low)), Sub: 2})
		b.low = append(b.low, tables.Interval{Value: before})
	case top.Sub == 0:
		*top = tables.Interval{Start: start.Hi, Value: uint32(len(b.low)), Sub: 2}
		b.low = append(b.low, tables.Interval{Value: before})
	default:
		top.Sub++
	}
	b.low = append(b.low, tables.Interval{Start: start.Lo, Value: class})
}

// leave ends the last interval where it is resolved to its low bits and the
// next boundary is not right behind it: what follows goes on with class.
func (b *addressBuilder) leave(next uint64, class uint32) {
	top := b.v6[len(b.v6)-1]
	if top.Sub > 0 && top.Start < next && top.Start+1 < next {
		b.v6 = append(b.v6, tables.Interval{Start: top.Start + 1, Value: class})
	}
}

// finish lays the intervals out in t and builds the direct indexes.
func (b *addressBuilder) finish(t *tables.AddressTable) {
	if top := b.v6[len(b.v6)-1]; top.Sub > 0 && top.Start != ^uint64(0) {
		b.v6 = append(b.v6, tables.Interval{Start: top.Start + 1, Value: b.class6})
	}
	n4, n6 := len(b.v4), len(b.v6)
	for i := range b.v6 {
		if b.v6[i].Sub > 0 {
			b.v6[i].Value += uint32(n4 + n6)
		}
	}
	t.Width4 = width(n4, 0)
	t.Width6 = width(n6, 3) // 2000::/3 holds all global addresses: its bits tell nothing
	t.Cells4 = cells(b.v4, 0, 32, t.Width4)
	t.Cells6 = cells(b.v6, n4, 64, t.Width6)
	t.Intervals = slices.Concat(b.v4, b.v6, b.low)
}

// width chooses how many leading bits the direct index takes: about a cell
// for each interval, so that evenly spread ones need a step or two.
func width(intervals, blind int) uint8 {
	if intervals <= 2 {
		return 1
	}
	return uint8(min(bits.Len(uint(intervals-1))+blind, maxWidth))
}

// cells builds the direct index of intervals whose first is at base.
func cells(intervals []tables.Interval, base int, keyBits, width uint8) []uint32 {
	out := make([]uint32, 1<<width+1)
	at := 0
	for i := range uint64(1) << width {
		first := i << (keyBits - width)
		for at+1 < len(intervals) && intervals[at+1].Start <= first {
			at++
		}
		out[i] = uint32(base + at)
	}
	out[1<<width] = uint32(base + len(intervals) - 1)
	return out
}

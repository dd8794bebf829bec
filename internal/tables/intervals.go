package tables

import (
	"iter"

	"egate/internal/ipset"
)

// Intervals walks the table in ascending order: each first address and the
// class of all from there to the next; IPv4 first, then IPv6. No two
// neighbours of one family have the same class.
func (t *AddressTable) Intervals() iter.Seq2[ipset.Addr, uint16] {
	return func(yield func(ipset.Addr, uint16) bool) {
		if len(t.Lines) == 0 {
			return
		}
		w := walk{lines: t.Lines, yield: yield}
		if w.index(&t.Root4, 3, ipset.From4(0), 0, ^uint32(0)) {
			w.inside = false
			w.index(&t.Root6, 0, ipset.Addr{}, 0, ^uint32(0))
		}
	}
}

// walk is where a walk through a table's lines has come to.
type walk struct {
	lines  []Line
	yield  func(ipset.Addr, uint16) bool
	inside bool // last is the class of the interval before
	last   uint16
}

func (w *walk) class(first ipset.Addr, class uint16) bool {
	if w.inside && class == w.last {
		return true
	}
	w.inside, w.last = true, class
	return w.yield(first, class)
}

// index walks the words from lo to hi at a place of the address; prefix has the words before it.
func (w *walk) index(x *Index, at int, prefix ipset.Addr, lo, hi uint32) bool {
	for n := range x.Last + 1 {
		first, last := lo, hi
		if n > 0 {
			first = (x.Low + n) << x.Shift
		}
		if n < x.Last {
			last = (x.Low+n+1)<<x.Shift - 1
		}
		if !w.line(x.Base+n, at, prefix, first, last) {
			return false
		}
	}
	return true
}

func (w *walk) line(position uint32, at int, prefix ipset.Addr, lo, hi uint32) bool {
	l := &w.lines[position]
	switch l.Kind {
	case LineIndex:
		x := l.index()
		return w.index(&x, at, prefix, lo, hi)
	case LineWide:
		for i := -1; i < WideInLine; i++ {
			low := uint64(0)
			if i >= 0 {
				low = l.wideStart(i)
				if i > 0 && low == l.wideStart(i-1) {
					continue // a place that is not needed
				}
			}
			if !w.class(ipset.Addr{Hi: prefix.Hi, Lo: low}, uint16(l.wide(low))) {
				return false
			}
		}
		return true
	case LineShort:
		block := lo &^ (1<<(ShortBits+l.Shift) - 1)
		for i := -1; i < ShortInLine; i++ {
			first := lo
			if i >= 0 {
				first = block + l.shortStart(i)<<l.Shift
				if first <= lo {
					continue
				}
			}
			if !w.class(withWord(prefix, at, first), uint16(l.short(first))) {
				return false
			}
		}
		return true
	}
	for i := -1; i < StepsInLine; i++ {
		start := lo
		if i >= 0 {
			start = l.Head[i]
			if start > hi {
				break // a place that is not needed
			}
			if start == lo || i > 0 && start == l.Head[i-1] {
				continue
			}
		}
		value, first := l.step(start), withWord(prefix, at, start)
		if value&Next == 0 {
			if !w.class(first, uint16(value)) {
				return false
			}
		} else if !w.line(value&^Next, at+1, first, 0, ^uint32(0)) {
			return false
		}
	}
	return true
}

// withWord sets the word at a place of an address.
func withWord(a ipset.Addr, at int, word uint32) ipset.Addr {
	half := &a.Hi
	if at > 1 {
		half = &a.Lo
	}
	shift := 32 * (1 - at%2)
	*half |= uint64(word) << shift
	return a
}

// Depth is the number of lines on the longest path.
func (t *AddressTable) Depth() int {
	depth := 0
	for _, root := range [2]Index{t.Root4, t.Root6} {
		for n := range root.Last + 1 {
			depth = max(depth, t.below(root.Base+n))
		}
	}
	return depth
}

func (t *AddressTable) below(position uint32) int {
	depth := 0
	switch l := &t.Lines[position]; l.Kind {
	case LineIndex:
		x := l.index()
		for n := range x.Last + 1 {
			depth = max(depth, t.below(x.Base+n))
		}
	case LineSteps:
		for _, value := range l.Tail {
			if value&Next != 0 {
				depth = max(depth, t.below(value&^Next))
			}
		}
	}
	return 1 + depth
}

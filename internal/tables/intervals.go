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
		if w.index(&t.Root4, Root4At, ipset.From4(0), ipset.From4(^uint32(0))) {
			w.inside = false
			w.index(&t.Root6, 0, ipset.Addr{}, ipset.Addr{Hi: ^uint64(0), Lo: ^uint64(0)})
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

// index walks the addresses from lo to hi, which an index spreads by the window at a bit.
func (w *walk) index(x *Index, at uint8, lo, hi ipset.Addr) bool {
	for n := range x.Last + 1 {
		first, last := lo, hi
		if n > 0 {
			first = withWindow(lo, at, uint64(x.Low+n)<<x.Shift<<(64-WordBits))
		}
		if n < x.Last {
			last = withWindow(lo, at, uint64(x.Low+n+1)<<x.Shift<<(64-WordBits)).Prev()
		}
		if !w.line(x.Base+n, first, last) {
			return false
		}
	}
	return true
}

func (w *walk) line(position uint32, lo, hi ipset.Addr) bool {
	l := &w.lines[position]
	if l.Kind == LineIndex {
		x := l.index()
		return w.index(&x, l.At, lo, hi)
	}
	first := lo
	for i := 0; ; i++ {
		window, more := l.start(i)
		if !more {
			return w.value(l, first, hi)
		}
		// A place that is not needed repeats the last value.
		next := withWindow(lo, l.At, window)
		if !first.Less(next) || hi.Less(next) {
			continue
		}
		if !w.value(l, first, next.Prev()) {
			return false
		}
		first = next
	}
}

// value walks the addresses from lo to hi, all of which have one value in a line.
func (w *walk) value(l *Line, lo, hi ipset.Addr) bool {
	value := l.value(Window(lo, l.At))
	if value&Next != 0 {
		return w.line(value&^Next, lo, hi)
	}
	return w.class(lo, uint16(value))
}

// start gives the window at which value i+1 of a line begins, and false behind the last.
func (l *Line) start(i int) (uint64, bool) {
	switch {
	case l.Kind == LineWide && i < WideInLine:
		return l.wideStart(i), true
	case l.Kind == LineShort && i < ShortInLine:
		return uint64(l.shortStart(i)) << (64 - ShortBits), true
	case l.Kind == LineSteps && i < StepsInLine:
		return uint64(l.Head[i]) << (64 - WordBits), true
	}
	return 0, false
}

// withWindow gives the address that begins as a does and continues with a
// window at a bit.
func withWindow(a ipset.Addr, at uint8, window uint64) ipset.Addr {
	if at < 64 {
		return ipset.Addr{Hi: a.Hi&^(^uint64(0)>>at) | window>>at, Lo: window << (64 - at)}
	}
	return ipset.Addr{Hi: a.Hi, Lo: a.Lo&^(^uint64(0)>>(at-64)) | window>>(at-64)}
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
	case LineSteps, LineWide:
		values := l.Tail[:]
		if l.Kind == LineWide {
			values = l.Head[:WideInLine+1]
		}
		for _, value := range values {
			if value&Next != 0 {
				depth = max(depth, t.below(value&^Next))
			}
		}
	}
	return 1 + depth
}

package tables

import "egate/internal/ipset"

// AddressTable maps addresses to classes. It is searched by windows: 32 bits of
// the 128, or 15 or 64, that begin anywhere. The first window, which is an IPv4
// address itself or the first bits of an IPv6 address, is looked up by an index,
// which leads to a line. All addresses that lead to a line agree in their first
// bits, and its window begins behind those, so it tells apart what lies well
// below them. The line gives a class, or the line with the next window, where
// rules tell apart what is alike in this one.
//
// A line is 64 bytes, as a cache line is: of what a look-up reads, only lines
// may have to come from memory, and most addresses need one that is not shared
// with many others.
type AddressTable struct {
	Root4, Root6 Index // of the windows that begin at bit Root4At and at bit 0
	Lines        []Line
}

// Root4At is the bit at which the window of Root4 begins: the last 32 bits.
const Root4At = 96

// Index spreads a word, a window of 32 bits, over lines: that at Base + n, where
// n is the word's leading bits, word >> Shift, counted from Low and held between 0 and Last.
// So lines are spent only where boundaries lie. What lies outside goes to the
// first and the last line, which therefore have no boundaries, unless they
// are those of the lowest and of the highest words.
type Index struct {
	Shift, Low, Last, Base uint32
}

// Position is that of the line of a word.
func (x *Index) Position(word uint32) uint32 {
	n := word >> x.Shift
	if n < x.Low {
		return x.Base
	}
	return x.Base + min(n-x.Low, x.Last)
}

// LineKind tells what a line holds.
type LineKind uint8

const (
	// LineSteps has in Head up to 7 words in ascending order, at each of which another
	// value begins; Tail[n] is the value of a word that n of them are not above.
	// Places that are not needed repeat: in Head the highest word, in Tail the
	// last value.
	LineSteps LineKind = iota
	// LineShort is LineSteps with up to 15 boundaries of 15 bits, in Half and
	// Head, and 16 classes in Tail; the low half of a number comes first.
	LineShort
	// LineIndex has in Head an Index of further lines, by a word.
	LineIndex
	// LineWide is LineSteps with up to 4 boundaries of 64 bits: Tail has the
	// numbers, low half first, Head[0] to Head[4] the values.
	LineWide
)

// Boundaries that fit into a line.
const (
	StepsInLine = 7
	ShortInLine = 15
	WideInLine  = 4
)

// Widths of the windows of a LineSteps or LineIndex, a LineShort and a LineWide.
// None reaches beyond the address's last bit, so bit 128 - width is the last
// that one may begin at.
const (
	WordBits  = 32
	ShortBits = 15
	WideBits  = 64
)

// MaxDepth is how many lines one look-up reads at most. A LineIndex leads to
// blocks of addresses that agree in 3 bits more at least, since it spreads its
// own over 8 lines, and it stands only above 8 addresses or more: 42 such lines
// take 126 bits. Then come 2 lines at most: one of steps may lead to another for
// the same window. Where they lead on instead, they took 32 bits, as much as
// 10 lines with an index.
const MaxDepth = 44

// MaxLines is how many lines an address table may have: half a GiB.
const MaxLines = 1 << 23

// Next marks a value that is not a class but the position of the line with the
// next window.
const Next = 1 << 31

// Line is the unit of an address table. The kernel map has the same layout.
type Line struct {
	Kind LineKind
	At   uint8 // the bit at which the window begins, counted from the highest
	Half uint16
	Head [7]uint32
	Tail [8]uint32
}

// StepsLine makes a line of up to 7 boundaries; values has one more.
func StepsLine(at uint8, starts, values []uint32) Line {
	l := Line{Kind: LineSteps, At: at}
	for i := range l.Head {
		l.Head[i] = ^uint32(0)
	}
	copy(l.Head[:], starts)
	for i := range l.Tail {
		l.Tail[i] = values[min(i, len(values)-1)]
	}
	return l
}

// ShortLine makes a line of up to 15 boundaries of 15 bits; classes has one more.
func ShortLine(at uint8, starts, classes []uint16) Line {
	l := Line{Kind: LineShort, At: at}
	for i := range ShortInLine {
		start := uint16(1<<ShortBits - 1)
		if i < len(starts) {
			start = starts[i]
		}
		if i == 0 {
			l.Half = start
		} else {
			l.Head[(i-1)/2] |= uint32(start) << (16 * ((i - 1) % 2))
		}
	}
	for i := range ShortInLine + 1 {
		l.Tail[i/2] |= uint32(classes[min(i, len(classes)-1)]) << (16 * (i % 2))
	}
	return l
}

// IndexLine makes a line that leads to others.
func IndexLine(at uint8, x Index) Line {
	return Line{Kind: LineIndex, At: at, Head: [7]uint32{x.Shift, x.Low, x.Last, x.Base}}
}

// WideLine makes a line of up to 4 boundaries of 64 bits; values has one more.
func WideLine(at uint8, starts []uint64, values []uint32) Line {
	l := Line{Kind: LineWide, At: at}
	for i := range WideInLine {
		start := ^uint64(0)
		if i < len(starts) {
			start = starts[i]
		}
		l.Tail[2*i], l.Tail[2*i+1] = uint32(start), uint32(start>>32)
	}
	for i := range l.Head[:WideInLine+1] {
		l.Head[i] = values[min(i, len(values)-1)]
	}
	return l
}

func (l *Line) index() Index {
	return Index{Shift: l.Head[0], Low: l.Head[1], Last: l.Head[2], Base: l.Head[3]}
}

func (l *Line) wideStart(i int) uint64 { return uint64(l.Tail[2*i+1])<<32 | uint64(l.Tail[2*i]) }

// step finds the value of a word in a line of steps.
func (l *Line) step(word uint32) uint32 {
	n := 0
	for _, start := range l.Head {
		if start <= word {
			n++
		}
	}
	return l.Tail[n]
}

func (l *Line) shortStart(i int) uint32 {
	if i == 0 {
		return uint32(l.Half)
	}
	return l.Head[(i-1)/2] >> (16 * ((i - 1) % 2)) & 0xffff
}

// short finds the class of 15 bits in a short line.
func (l *Line) short(bits uint32) uint32 {
	n := 0
	for i := range ShortInLine {
		if l.shortStart(i) <= bits {
			n++
		}
	}
	return l.Tail[n/2] >> (16 * (n % 2)) & 0xffff
}

// wide finds the value of 64 bits in a wide line.
func (l *Line) wide(bits uint64) uint32 {
	n := 0
	for i := range WideInLine {
		if l.wideStart(i) <= bits {
			n++
		}
	}
	return l.Head[n]
}

// value finds the value of a window in a line that is no index.
func (l *Line) value(window uint64) uint32 {
	switch l.Kind {
	case LineWide:
		return l.wide(window)
	case LineShort:
		return l.short(uint32(window >> (64 - ShortBits)))
	}
	return l.step(uint32(window >> (64 - WordBits)))
}

// Window gives the 64 bits of an address that begin at a bit, which is below
// 128; what lies behind the last bit is 0. The first bits of them are the
// narrower windows.
func Window(a ipset.Addr, at uint8) uint64 {
	if at < 64 {
		return a.Hi<<at | a.Lo>>(64-at)
	}
	return a.Lo << (at - 64)
}

// Class finds the class of an address.
func (t *AddressTable) Class(a ipset.Addr) uint16 {
	position := t.Root6.Position(uint32(a.Hi >> 32))
	if a.Is4() {
		position = t.Root4.Position(a.V4())
	}
	for {
		line := &t.Lines[position]
		window := Window(a, line.At)
		if line.Kind == LineIndex {
			x := line.index()
			position = x.Position(uint32(window >> (64 - WordBits)))
			continue
		}
		value := line.value(window)
		if value&Next == 0 {
			return uint16(value)
		}
		position = value &^ Next
	}
}

package tables

import "egate/internal/ipset"

// AddressTable maps addresses to classes. It is searched in 32-bit words: an
// IPv4 address is one, an IPv6 address four. A word is looked up by an index,
// which leads to a line; the line gives a class, or the line in which the next
// word is looked up, where rules tell apart what begins alike.
//
// A line is 64 bytes, as a cache line is: of what a look-up reads, only lines
// may have to come from memory, and most addresses need one.
type AddressTable struct {
	Root4, Root6 Index // of the first word of either family
	Lines        []Line
}

// Index spreads a word over lines: that at Base + n, where n is the word's
// leading bits, word >> Shift, counted from Low and held between 0 and Last.
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
	// LineShort is LineSteps with up to 15 boundaries of 15 bits, those of
	// word >> Shift, in Half and Head, and 16 classes in Tail; the low half of a
	// number comes first. Its words agree in all bits above these, and those
	// below do not matter.
	LineShort
	// LineIndex has in Head an Index of further lines for the same word.
	LineIndex
	// LineWide looks up the last two words as one number of 64 bits: Tail has up
	// to 4 numbers, low half first, Head[0] to Head[4] the values.
	LineWide
)

// Boundaries that fit into a line.
const (
	StepsInLine = 7
	ShortInLine = 15
	WideInLine  = 4
)

// ShortBits is the width of a boundary in a LineShort.
const ShortBits = 15

// MaxDepth is how many lines one look-up reads at most: a LineIndex takes 3
// bits of a word at least, so a word has at most 10 of them above its last line.
const MaxDepth = 44

// MaxLines is how many lines an address table may have: half a GiB.
const MaxLines = 1 << 23

// Next marks a value that is not a class but the position of the line in which
// the next word is looked up.
const Next = 1 << 31

// Line is the unit of an address table. The kernel map has the same layout.
type Line struct {
	Kind  LineKind
	Shift uint8 // of a LineShort
	Half  uint16
	Head  [7]uint32
	Tail  [8]uint32
}

// StepsLine makes a line of up to 7 boundaries; values has one more.
func StepsLine(starts, values []uint32) Line {
	l := Line{Kind: LineSteps}
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
func ShortLine(shift uint8, starts, classes []uint16) Line {
	l := Line{Kind: LineShort, Shift: shift}
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
func IndexLine(x Index) Line {
	return Line{Kind: LineIndex, Head: [7]uint32{x.Shift, x.Low, x.Last, x.Base}}
}

// WideLine makes a line of up to 4 boundaries of 64 bits; values has one more.
func WideLine(starts []uint64, values []uint32) Line {
	l := Line{Kind: LineWide}
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

// short finds the class of a word in a short line.
func (l *Line) short(word uint32) uint32 {
	n := 0
	for i := range ShortInLine {
		if l.shortStart(i) <= word>>l.Shift&(1<<ShortBits-1) {
			n++
		}
	}
	return l.Tail[n/2] >> (16 * (n % 2)) & 0xffff
}

// wide finds the value of two words in a wide line.
func (l *Line) wide(words uint64) uint32 {
	n := 0
	for i := range WideInLine {
		if l.wideStart(i) <= words {
			n++
		}
	}
	return l.Head[n]
}

// Class finds the class of an address.
func (t *AddressTable) Class(a ipset.Addr) uint16 {
	words := [4]uint32{uint32(a.Hi >> 32), uint32(a.Hi), uint32(a.Lo >> 32), uint32(a.Lo)}
	at, position := 0, t.Root6.Position(words[0])
	if a.Is4() {
		at, position = 3, t.Root4.Position(words[3])
	}
	for {
		line, value := &t.Lines[position], uint32(0)
		switch line.Kind {
		case LineIndex:
			x := line.index()
			position = x.Position(words[at])
			continue
		case LineWide:
			value = line.wide(a.Lo)
		case LineShort:
			value = line.short(words[at])
		default:
			value = line.step(words[at])
		}
		if value&Next == 0 {
			return uint16(value)
		}
		position = value &^ Next
		at++
	}
}

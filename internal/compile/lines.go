package compile

import (
	"fmt"

	"egate/internal/ipset"
	"egate/internal/tables"
)

// How many boundaries an index gives a line on the average at least; at most it
// is twice as many. So few lines overflow, and a million prefixes stay
// below 48 MB. Short lines hold more.
const (
	boundariesPerLine      = 2.2
	boundariesPerShortLine = 4.4
)

// step4 is where another class begins among the IPv4 addresses, or another
// value among the words of a line.
type step4 struct {
	start, value uint32
}

// step6 is where another class begins among the IPv6 addresses.
type step6 struct {
	start ipset.Addr
	class uint32
}

// addressBuilder collects in ascending order where classes begin, and lays
// them out in lines.
type addressBuilder struct {
	v4 []step4
	v6 []step6

	lines []tables.Line
	words []step4 // of the IPv6 tables being built, one behind the other
}

// newAddressBuilder makes room for what the sets' boundaries take if none
// coincide, so that large tables do not grow step by step.
func newAddressBuilder(sets []*ipset.Set) *addressBuilder {
	n4, n6 := 1, 1
	for _, s := range sets {
		for _, r := range s.Ranges() {
			if r.First.Is4() {
				n4 += 2
			} else {
				n6 += 2
			}
		}
	}
	return &addressBuilder{v4: make([]step4, 0, n4), v6: make([]step6, 0, n6)}
}

// add gives the addresses from first to last a class. The IPv4 block lies
// within the IPv6 space and is cut out of it.
func (b *addressBuilder) add(first, last ipset.Addr, class uint16) {
	if first.Less(first4) {
		b.add6(first, class)
	}
	if !last.Less(first4) && !last4.Less(first) {
		start := uint32(0)
		if first4.Less(first) {
			start = first.V4()
		}
		if n := len(b.v4); n == 0 || b.v4[n-1].value != uint32(class) {
			b.v4 = append(b.v4, step4{start, uint32(class)})
		}
	}
	if last4.Less(last) {
		if !last4.Less(first) {
			first = last4.Next()
		}
		b.add6(first, class)
	}
}

func (b *addressBuilder) add6(start ipset.Addr, class uint16) {
	if n := len(b.v6); n == 0 || b.v6[n-1].class != uint32(class) {
		b.v6 = append(b.v6, step6{start, uint32(class)})
	}
}

// finish lays the steps out in t. Both families' first start at their first
// address.
func (b *addressBuilder) finish(t *tables.AddressTable) error {
	b.lines = make([]tables.Line, 0, int(float64(len(b.v4)+len(b.v6))/boundariesPerLine)+2)
	t.Root4 = b.table(b.v4)
	b.v4 = nil
	t.Root6 = b.table(b.word(b.v6[1:], 0, b.v6[0].class))
	if len(b.lines) > tables.MaxLines {
		return fmt.Errorf("the table needs %d lines and holds at most %d; merge neighbouring prefixes or drop single addresses: %w", len(b.lines), tables.MaxLines, ErrTooLarge)
	}
	t.Lines = b.lines
	return nil
}

// table lays out the steps of a first word, the first of which starts at 0.
func (b *addressBuilder) table(steps []step4) tables.Index {
	x := b.index(32, steps[1:])
	b.fill(x, steps[0].value, steps[1:])
	return x
}

// index chooses how the boundaries of a block of 1<<bits words are spread over
// lines, and takes those.
func (b *addressBuilder) index(bits uint32, boundaries []step4) tables.Index {
	x := tables.Index{Base: uint32(len(b.lines))}
	if n := len(boundaries); n > tables.StepsInLine {
		first, last := boundaries[0].start, boundaries[n-1].start
		x.Shift = spread(first, last, float64(n)/boundariesPerShortLine)
		if x.Shift > tables.ShortBits {
			x.Shift = spread(first, last, float64(n)/boundariesPerLine)
		}
		x.Low = first >> x.Shift
		end := last >> x.Shift
		// Lines without boundaries for what lies outside.
		block := uint32(1<<bits - 1)
		if x.Low<<x.Shift > first&^block {
			x.Low--
		}
		if end < (first|block)>>x.Shift {
			end++
		}
		x.Last = end - x.Low
	}
	b.take(int(x.Last) + 1)
	return x
}

// spread gives the smallest shift by which the words from first to last fall
// into about so many lines, and 8 at least.
func spread(first, last uint32, lines float64) uint32 {
	for shift := uint32(0); ; shift++ {
		if last>>shift-first>>shift < max(8, uint32(lines)) {
			return shift
		}
	}
}

// take appends n lines.
func (b *addressBuilder) take(n int) (first uint32) {
	first = uint32(len(b.lines))
	for range n {
		b.lines = append(b.lines, tables.Line{})
	}
	return first
}

// fill writes the lines of an index; before is the value in front of the
// first boundary.
func (b *addressBuilder) fill(x tables.Index, before uint32, boundaries []step4) {
	bits := x.Shift
	if x.Last == 0 {
		bits = 32
	}
	for n := range x.Last + 1 {
		mine := 0
		for mine < len(boundaries) && x.Position(boundaries[mine].start) == x.Base+n {
			mine++
		}
		if mine > 0 && n > 0 && boundaries[0].start == (x.Low+n)<<x.Shift {
			// Where the line's words begin, it needs no boundary.
			before = boundaries[0].value
			boundaries = boundaries[1:]
			mine--
		}
		b.line(x.Base+n, bits, before, boundaries[:mine])
		if mine > 0 {
			before = boundaries[mine-1].value
			boundaries = boundaries[mine:]
		}
	}
}

// line writes the line of a block of 1<<bits words, with an index below it
// where it does not hold all.
func (b *addressBuilder) line(position, bits, before uint32, boundaries []step4) {
	switch shift := max(bits, tables.ShortBits) - tables.ShortBits; {
	case len(boundaries) > 0 && fitsShort(shift, before, boundaries):
		b.lines[position] = shortLine(shift, before, boundaries)
	case len(boundaries) <= tables.StepsInLine:
		b.lines[position] = stepsLine(before, boundaries)
	default:
		x := b.index(bits, boundaries)
		b.lines[position] = tables.IndexLine(x)
		b.fill(x, before, boundaries)
	}
}

// fitsShort tells whether boundaries can be told by 15 bits above shift, and lead to classes only.
func fitsShort(shift, before uint32, boundaries []step4) bool {
	if len(boundaries) > tables.ShortInLine || before&tables.Next != 0 {
		return false
	}
	for _, step := range boundaries {
		if step.start&(1<<shift-1) != 0 || step.value&tables.Next != 0 {
			return false
		}
	}
	return true
}

func shortLine(shift, before uint32, boundaries []step4) tables.Line {
	var starts [tables.ShortInLine]uint16
	classes := [tables.ShortInLine + 1]uint16{uint16(before)}
	for i, step := range boundaries {
		starts[i], classes[i+1] = uint16(step.start>>shift&(1<<tables.ShortBits-1)), uint16(step.value)
	}
	n := len(boundaries)
	return tables.ShortLine(uint8(shift), starts[:n], classes[:n+1])
}

func stepsLine(before uint32, boundaries []step4) tables.Line {
	var starts [tables.StepsInLine]uint32
	values := [tables.StepsInLine + 1]uint32{before}
	for i, step := range boundaries {
		starts[i], values[i+1] = step.start, step.value
	}
	n := len(boundaries)
	return tables.StepsLine(starts[:n], values[:n+1])
}

// word turns boundaries of IPv6 addresses that agree in the words before
// number at into the steps of that word, the first of which starts at 0.
// before is the class in front of the first boundary. The steps are valid until
// the next call that is not below this one.
func (b *addressBuilder) word(boundaries []step6, at int, before uint32) []step4 {
	base := len(b.words)
	defer func() { b.words = b.words[:base] }()
	b.push(base, 0, before)
	for len(boundaries) > 0 {
		word := wordOf(boundaries[0].start, at)
		mine := 1
		for mine < len(boundaries) && wordOf(boundaries[mine].start, at) == word {
			mine++
		}
		inside := boundaries[:mine]
		boundaries = boundaries[mine:]
		if isFirst(inside[0].start, at) {
			before = inside[0].class
			inside = inside[1:]
		}
		if len(inside) == 0 {
			b.push(base, word, before)
			continue
		}
		b.push(base, word, tables.Next|b.below(inside, at+1, before))
		before = inside[len(inside)-1].class
		if word != ^uint32(0) {
			b.push(base, word+1, before)
		}
	}
	return b.words[base:]
}

// push adds a step to those that begin at base.
func (b *addressBuilder) push(base int, start, value uint32) {
	n := len(b.words)
	if n > base && b.words[n-1].start == start {
		n--
	}
	if n > base && b.words[n-1].value == value {
		b.words = b.words[:n]
		return
	}
	b.words = append(b.words[:n], step4{start, value})
}

// below makes the line in which the word number at is looked up.
func (b *addressBuilder) below(boundaries []step6, at int, before uint32) uint32 {
	if at == 2 && len(boundaries) <= tables.WideInLine {
		var starts [tables.WideInLine]uint64
		values := [tables.WideInLine + 1]uint32{before}
		for i, step := range boundaries {
			starts[i], values[i+1] = step.start.Lo, step.class
		}
		n := len(boundaries)
		position := b.take(1)
		b.lines[position] = tables.WideLine(starts[:n], values[:n+1])
		return position
	}
	steps := b.word(boundaries, at, before)
	position := b.take(1)
	b.line(position, 32, steps[0].value, steps[1:])
	return position
}

func wordOf(a ipset.Addr, at int) uint32 {
	half := a.Hi
	if at > 1 {
		half = a.Lo
	}
	return uint32(half >> (32 * (1 - at%2)))
}

// isFirst tells whether all words behind number at are 0.
func isFirst(a ipset.Addr, at int) bool {
	switch at {
	case 0:
		return uint32(a.Hi) == 0 && a.Lo == 0
	case 1:
		return a.Lo == 0
	case 2:
		return uint32(a.Lo) == 0
	}
	return true
}

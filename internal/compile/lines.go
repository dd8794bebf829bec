package compile

import (
	"fmt"

	"egate/internal/ipset"
	"egate/internal/tables"
)

// How many boundaries an index gives a line on the average at least; at most it
// is twice as many. So few lines overflow, and a million prefixes stay
// below 48 MB of IPv4, and 64 MB of IPv6. Short lines hold more; IPv4
// lists that are too small for them have room to spare.
const (
	boundariesPerLine4     = 1.1
	boundariesPerLine6     = 2.2
	boundariesPerShortLine = 4.4
)

// stepsInTwoLines is how many boundaries a line holds together with one below it.
const stepsInTwoLines = 2 * tables.StepsInLine

// topLines is how many lines an index gets where networks lie in a few
// clusters far apart: it leads to an index for each cluster and stays in the
// processor's caches.
const topLines = 256

// step is where another class begins among the addresses of a family.
type step struct {
	start ipset.Addr
	class uint16
}

// addressBuilder collects in ascending order where classes begin, and lays
// them out in lines.
type addressBuilder struct {
	v4, v6 []step
	lines  []tables.Line
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
	return &addressBuilder{v4: make([]step, 0, n4), v6: make([]step, 0, n6)}
}

// add gives the addresses from first to last a class. The IPv4 block lies
// within the IPv6 space and is cut out of it.
func (b *addressBuilder) add(first, last ipset.Addr, class uint16) {
	if first.Less(first4) {
		b.v6 = push(b.v6, first, class)
	}
	if !last.Less(first4) && !last4.Less(first) {
		start := first
		if first.Less(first4) {
			start = first4
		}
		b.v4 = push(b.v4, start, class)
	}
	if last4.Less(last) {
		if !last4.Less(first) {
			first = last4.Next()
		}
		b.v6 = push(b.v6, first, class)
	}
}

func push(steps []step, start ipset.Addr, class uint16) []step {
	if n := len(steps); n > 0 && steps[n-1].class == class {
		return steps
	}
	return append(steps, step{start, class})
}

// finish lays the steps out in t. Both families' first start at their first
// address.
func (b *addressBuilder) finish(t *tables.AddressTable) error {
	// About what large lists take; growing would hold them twice.
	b.lines = make([]tables.Line, 0, int(float64(len(b.v4))/boundariesPerShortLine+float64(len(b.v6))/1.6)+2)
	t.Root4 = b.table(tables.Root4At, b.v4)
	b.v4 = nil
	t.Root6 = b.table(0, b.v6)
	if len(b.lines) > tables.MaxLines {
		return fmt.Errorf("the table needs %d lines and holds at most %d; merge neighbouring prefixes or drop single addresses: %w", len(b.lines), tables.MaxLines, ErrTooLarge)
	}
	t.Lines = b.lines
	return nil
}

// table lays out the steps of a family, whose addresses agree in the first bits.
func (b *addressBuilder) table(fixed uint8, steps []step) tables.Index {
	class, boundaries := steps[0].class, steps[1:]
	if len(boundaries) > tables.StepsInLine {
		return b.index(fixed, class, boundaries)
	}
	x := tables.Index{Base: b.take(1)}
	b.line(x.Base, fixed, class, boundaries)
	return x
}

// index makes the lines of a block of addresses that agree in the first bits;
// before is the class in front of the first boundary.
func (b *addressBuilder) index(fixed uint8, before uint16, boundaries []step) tables.Index {
	at := window(fixed, tables.WordBits)
	x := spread(at, boundaries)
	first, last := word(boundaries[0].start, at), word(boundaries[len(boundaries)-1].start, at)
	x.Low = first >> x.Shift
	end := last >> x.Shift
	// Lines without boundaries for what lies outside.
	block := uint32(1<<(128-fixed) - 1)
	if fixed <= at {
		block = ^uint32(0)
	}
	if x.Low<<x.Shift > first&^block {
		x.Low--
	}
	if end < (first|block)>>x.Shift {
		end++
	}
	x.Last = end - x.Low
	x.Base = b.take(int(x.Last) + 1)

	fixed = at + tables.WordBits - uint8(x.Shift)
	for n := range x.Last + 1 {
		mine := 0
		for mine < len(boundaries) && x.Position(word(boundaries[mine].start, at)) == x.Base+n {
			mine++
		}
		if mine > 0 && n > 0 && word(boundaries[0].start, at) == (x.Low+n)<<x.Shift && isFirst(boundaries[0].start, at+tables.WordBits) {
			// Where the line's addresses begin, it needs no boundary.
			before = boundaries[0].class
			boundaries = boundaries[1:]
			mine--
		}
		b.line(x.Base+n, fixed, before, boundaries[:mine])
		if mine > 0 {
			before = boundaries[mine-1].class
			boundaries = boundaries[mine:]
		}
	}
	return x
}

// spread chooses how many bits of the window at a bit an index looks at.
func spread(at uint8, boundaries []step) tables.Index {
	n := len(boundaries)
	first, last := word(boundaries[0].start, at), word(boundaries[n-1].start, at)
	if at == tables.Root4At {
		if shift := shiftFor(first, last, float64(n)/boundariesPerShortLine); shift <= tables.ShortBits {
			return tables.Index{Shift: shift}
		}
		return tables.Index{Shift: shiftFor(first, last, float64(n)/boundariesPerLine4)}
	}
	shift := shiftFor(first, last, float64(n)/boundariesPerLine6)
	if lines := last>>shift - first>>shift + 1; lines > topLines {
		used := uint32(1)
		for i := range boundaries[1:] {
			if word(boundaries[i].start, at)>>shift != word(boundaries[i+1].start, at)>>shift {
				used++
			}
		}
		if used < lines/4 && n > int(used)*tables.StepsInLine {
			shift = shiftFor(first, last, topLines)
		}
	}
	return tables.Index{Shift: shift}
}

// shiftFor gives the smallest shift by which the words from first to last fall
// into about so many lines, and 8 at least.
func shiftFor(first, last uint32, lines float64) uint32 {
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

// line writes the line of a block of addresses that agree in the first bits. Of
// those that hold the boundaries it takes the one that tells most of them
// apart: the rest is left to lines below it.
func (b *addressBuilder) line(position uint32, fixed uint8, before uint16, boundaries []step) {
	if at := window(fixed, tables.ShortBits); len(boundaries) > 0 && fitsShort(at, boundaries) {
		b.lines[position] = shortLine(at, before, boundaries)
		return
	}
	at, wideAt := window(fixed, tables.WordBits), window(fixed, tables.WideBits)
	words, fit := split(at, tables.WordBits, stepsInTwoLines, before, boundaries)
	if !fit || words.below > 0 || words.n > tables.StepsInLine {
		if wide, fit := split(wideAt, tables.WideBits, tables.WideInLine, before, boundaries); fit {
			made := b.wideLine(wideAt, before, &wide) // may move b.lines
			b.lines[position] = made
			return
		}
	}
	if fit {
		made := b.stepsLine(at, before, &words) // may move b.lines
		b.lines[position] = made
		return
	}
	x := b.index(fixed, before, boundaries)
	b.lines[position] = tables.IndexLine(at, x)
}

// fitsShort tells whether 15 bits from a bit on tell the boundaries apart.
func fitsShort(at uint8, boundaries []step) bool {
	if len(boundaries) > tables.ShortInLine {
		return false
	}
	for _, step := range boundaries {
		if !isFirst(step.start, at+tables.ShortBits) {
			return false
		}
	}
	return true
}

func shortLine(at uint8, before uint16, boundaries []step) tables.Line {
	var starts [tables.ShortInLine]uint16
	classes := [tables.ShortInLine + 1]uint16{before}
	for i, step := range boundaries {
		starts[i], classes[i+1] = uint16(tables.Window(step.start, at)>>(64-tables.ShortBits)), step.class
	}
	n := len(boundaries)
	return tables.ShortLine(at, starts[:n], classes[:n+1])
}

// part is what follows a boundary of a line.
type part struct {
	start  uint64 // in the line's window
	before uint16 // class at start
	inside []step // boundaries behind start that the window does not tell apart
}

// parts is the boundaries of a line.
type parts struct {
	list  [stepsInTwoLines + 2]part
	n     int
	below int // parts that need a line of their own
}

// split sorts boundaries into parts by a window, and tells whether there are at most so many.
func split(at uint8, bits, most int, before uint16, boundaries []step) (p parts, fit bool) {
	for len(boundaries) > 0 && p.n <= most {
		start := tables.Window(boundaries[0].start, at) >> (64 - bits)
		mine := 1
		for mine < len(boundaries) && tables.Window(boundaries[mine].start, at)>>(64-bits) == start {
			mine++
		}
		inside := boundaries[:mine]
		boundaries = boundaries[mine:]
		if isFirst(inside[0].start, at+uint8(bits)) {
			before = inside[0].class
			inside = inside[1:]
		}
		if p.n > 0 && p.list[p.n-1].start == start {
			p.n-- // what ended the part before
		}
		p.list[p.n] = part{start, before, inside}
		p.n++
		if len(inside) == 0 {
			continue
		}
		p.below++
		before = inside[len(inside)-1].class
		if start != ^uint64(0)>>(64-bits) {
			p.list[p.n] = part{start: start + 1, before: before}
			p.n++
		}
	}
	return p, p.n <= most
}

// stepsLine makes a line of parts. Of more than it holds, those that lie
// closest together go to a line below it for the same window, so that few
// addresses need that.
func (b *addressBuilder) stepsLine(at uint8, before uint16, p *parts) tables.Line {
	var starts [stepsInTwoLines]uint32
	values := [stepsInTwoLines + 1]uint32{uint32(before)}
	for i := range p.n {
		starts[i], values[i+1] = uint32(p.list[i].start), b.value(at+tables.WordBits, &p.list[i])
	}
	n := p.n
	if more := n - tables.StepsInLine; more > 0 {
		from := 1
		for i := 2; i+more < n; i++ {
			if starts[i+more]-starts[i-1] < starts[from+more]-starts[from-1] {
				from = i
			}
		}
		to := from + more
		position := b.take(1)
		b.lines[position] = tables.StepsLine(at, starts[from:to], values[from:to+1])
		values[from] = tables.Next | position
		copy(starts[from:], starts[to:n])
		copy(values[from+1:], values[to+1:n+1])
		n -= more
	}
	return tables.StepsLine(at, starts[:n], values[:n+1])
}

func (b *addressBuilder) wideLine(at uint8, before uint16, p *parts) tables.Line {
	var starts [tables.WideInLine]uint64
	values := [tables.WideInLine + 1]uint32{uint32(before)}
	for i := range p.n {
		starts[i], values[i+1] = p.list[i].start, b.value(at+tables.WideBits, &p.list[i])
	}
	return tables.WideLine(at, starts[:p.n], values[:p.n+1])
}

// value gives the class of a part, or makes the line that tells apart what is inside it.
func (b *addressBuilder) value(fixed uint8, p *part) uint32 {
	if len(p.inside) == 0 {
		return uint32(p.before)
	}
	position := b.take(1)
	b.line(position, fixed, p.before, p.inside)
	return tables.Next | position
}

// window is the bit at which a window of so many bits begins that tells apart
// most of the addresses which agree in the first bits.
func window(fixed uint8, bits uint8) uint8 { return min(fixed, 128-bits) }

// word is the window of 32 bits at a bit.
func word(a ipset.Addr, at uint8) uint32 {
	return uint32(tables.Window(a, at) >> (64 - tables.WordBits))
}

// isFirst tells whether all bits from one on are 0.
func isFirst(a ipset.Addr, at uint8) bool {
	return at > 127 || tables.Window(a, at) == 0 && (at >= 64 || a.Lo<<at == 0)
}

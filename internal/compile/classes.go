package compile

import (
	"fmt"
	"math/bits"
	"slices"

	"egate/internal/tables"
)

// none stands for the group of a rule that asks for nothing.
const none = -1

// grouping sorts a chain's rules by what they ask for in one dimension. Rules
// that ask for the same are in one group, so that what many rules share is
// walked once. Groups are numbered in the order of their first rules.
type grouping struct {
	of    []int   // rule -> group, or none
	rules [][]int // group -> its rules, ascending
}

func newGrouping(rules int) grouping { return grouping{of: make([]int, 0, rules)} }

// add puts the next rule into group g, which may be none or the next new one.
func (g *grouping) add(group int) {
	if group == len(g.rules) {
		g.rules = append(g.rules, nil)
	}
	if group != none {
		g.rules[group] = append(g.rules[group], len(g.of))
	}
	g.of = append(g.of, group)
}

// combination is a set of groups, with a hash that follows every change.
type combination struct {
	bits []uint64
	hash uint64
}

func newCombination(groups int) combination {
	return combination{bits: make([]uint64, (groups+63)/64)}
}

// flip takes a group in, or out again.
func (c *combination) flip(group int) {
	c.bits[group/64] ^= 1 << (group % 64)
	c.hash ^= mix(uint64(group))
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x + 1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// dimension is the classes of one dimension: the combinations of groups that
// occur, numbered in the order of their first appearance. Class 0 is the empty
// combination: what could not be read, and what no group asks for.
type dimension struct {
	grouping
	words  int      // of a combination
	combos []uint64 // class c at c*words
	byHash map[uint64]uint16

	stride  int      // words of a vector over the rules
	vectors []uint64 // class c at c*stride
}

func newDimension(g grouping) *dimension {
	d := &dimension{grouping: g, words: (len(g.rules) + 63) / 64, byHash: map[uint64]uint16{0: 0}}
	d.combos = make([]uint64, d.words)
	return d
}

// classes is how many there are.
func (d *dimension) classes() int { return len(d.combos) / d.words }

func (d *dimension) combo(class uint16) []uint64 {
	return d.combos[int(class)*d.words:][:d.words]
}

// class finds or makes the class of a combination.
func (d *dimension) class(c *combination) (uint16, error) {
	// Combinations that share a hash lie along a chain of derived hashes.
	for hash := c.hash; ; hash = mix(hash) {
		class, known := d.byHash[hash]
		if known && slices.Equal(d.combo(class), c.bits) {
			return class, nil
		}
		if known {
			continue
		}
		n := d.classes()
		if n == tables.MaxClasses {
			return 0, fmt.Errorf("the rules tell more than %d classes apart, because many of their elements overlap; use fewer rules, or sets that do not overlap: %w", tables.MaxClasses, ErrTooLarge)
		}
		d.combos = append(d.combos, c.bits...)
		d.byHash[hash] = uint16(n)
		return uint16(n), nil
	}
}

// expand makes the classes' bit vectors over the rules.
func (d *dimension) expand(rules int) {
	d.stride = (rules + 63) / 64
	d.vectors = make([]uint64, d.classes()*d.stride)
	free := d.vectors[:d.stride] // class 0
	for r, g := range d.of {
		if g == none {
			free[r/64] |= 1 << (r % 64)
		}
	}
	for class := range d.classes() {
		vector := d.vector(uint16(class))
		copy(vector, free)
		for i, word := range d.combo(uint16(class)) {
			for ; word != 0; word &= word - 1 {
				for _, r := range d.rules[i*64+bits.TrailingZeros64(word)] {
					vector[r/64] |= 1 << (r % 64)
				}
			}
		}
	}
}

func (d *dimension) vector(class uint16) []uint64 {
	return d.vectors[int(class)*d.stride:][:d.stride]
}

// table stores the vectors as tables.VectorTable says.
func (d *dimension) table() tables.VectorTable {
	if d.stride == 1 {
		return tables.VectorTable{Stride: 1, Words: slices.Clone(d.vectors)}
	}
	longest := 0
	for class := range d.classes() {
		stored := 0
		for _, word := range d.vector(uint16(class)) {
			if word != 0 {
				stored++
			}
		}
		longest = max(longest, 1+stored)
	}
	out := tables.VectorTable{Stride: roundRow(longest)}
	out.Words = make([]uint64, d.classes()*out.Stride)
	for class := range d.classes() {
		row := out.Words[class*out.Stride:][:out.Stride]
		at := 1
		for i, word := range d.vector(uint16(class)) {
			if word != 0 {
				row[0] |= 1 << i
				row[at] = word
				at++
			}
		}
	}
	return out
}

// roundRow gives rows of so many words a length with which they don't straddle
// cache lines of 8 words if they need not.
func roundRow(words int) int {
	if words > 8 {
		return (words + 7) &^ 7
	}
	return max(2, 1<<bits.Len(uint(words-1)))
}

// members lists for each group the classes that it is part of, ascending. It
// gives nil where the lists would hold more than limit classes together.
func (d *dimension) members(limit int) [][]uint16 {
	total := 0
	for _, word := range d.combos {
		total += bits.OnesCount64(word)
	}
	if total > limit {
		return nil
	}
	out := make([][]uint16, len(d.rules))
	for class := range d.classes() {
		for i, word := range d.combo(uint16(class)) {
			for ; word != 0; word &= word - 1 {
				g := i*64 + bits.TrailingZeros64(word)
				out[g] = append(out[g], uint16(class))
			}
		}
	}
	return out
}

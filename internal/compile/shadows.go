package compile

import (
	"math/bits"
	"slices"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
)

// shadow is rules that can never match, because rules before them in the same
// run cover them.
type shadow struct {
	span
	from int // first of the rules that cover them
}

// watcher looks for shadows while blocks are merged. A nil watcher sees none.
type watcher struct{ found []shadow }

// watch looks at blocks that are about to be merged along d into union.
func (w *watcher) watch(segment []block, union *asks, d tables.Dimension) {
	if w == nil {
		return
	}
	covered := coveredLists
	if d == tables.Destination || d == tables.Source {
		covered = coveredSets
		if union.has(d) && disjoint(segment, *union.set(d), d) {
			return
		}
	}
	for _, i := range covered(segment, d) {
		for _, rules := range segment[i].spans() {
			w.found = append(w.found, shadow{rules, segment[0].first})
		}
	}
}

// covers tells whether a matches wherever b does, as far as d goes.
func (a *asks) covers(b *asks, d tables.Dimension) bool {
	switch {
	case !a.has(d):
		return true
	case !b.has(d):
		return false
	case d == tables.Destination || d == tables.Source:
		return holdsSet(*a.set(d), *b.set(d))
	case d == tables.Name:
		return holdsDomains(a.domains, b.domains)
	}
	return holdsList(*a.list(d), *b.list(d))
}

// holdsSet tells whether every address of b is in a.
func holdsSet(a, b *ipset.Set) bool {
	ranges := a.Ranges()
	for _, r := range b.Ranges() {
		i := rangeAt(ranges, r.First)
		if i < 0 || ranges[i].Last.Less(r.Last) {
			return false
		}
	}
	return true
}

// holdsDomains tells whether every name that b lists is listed by a. An
// address with several names is then met by a wherever it is met by b.
func holdsDomains(a, b *domain.Set) bool {
	if equalDomains(a, b) {
		return true
	}
	for _, p := range b.Patterns() {
		// All names below x are listed only by a wildcard, which then matches "*.x" itself.
		if !a.Matches(p.String()) {
			return false
		}
	}
	return true
}

// holdsList tells whether every element of b lies in one of a.
func holdsList(a, b []policy.Service) bool {
	for _, s := range b {
		if !slices.ContainsFunc(a, func(o policy.Service) bool {
			return o.Proto == s.Proto && (o.Whole || !s.Whole && o.First <= s.First && s.Last <= o.Last)
		}) {
			return false
		}
	}
	return true
}

// disjoint tells whether no address is in two of the blocks: the union then has
// as many as all together. Counts are modulo 2^128.
func disjoint(segment []block, union *ipset.Set, d tables.Dimension) bool {
	var all size
	for i := range segment {
		all.add(*segment[i].set(d))
	}
	var one size
	one.add(union)
	return all == one
}

type size struct{ hi, lo uint64 }

func (n *size) add(s *ipset.Set) {
	for _, r := range s.Ranges() {
		behind := r.Last.Next()
		lo, borrow := bits.Sub64(behind.Lo, r.First.Lo, 0)
		hi, _ := bits.Sub64(behind.Hi, r.First.Hi, borrow)
		var carry uint64
		n.lo, carry = bits.Add64(n.lo, lo, 0)
		n.hi, _ = bits.Add64(n.hi, hi, carry)
	}
}

// coveredSets gives the blocks whose addresses in d are all in blocks before
// them. Few blocks, whose sets may be large, are looked at one by one: nearly
// always the first address tells. For many the address space is cut at every boundary, and each piece belongs to
// the first block that has it; who gets none is covered.
func coveredSets(segment []block, d tables.Dimension) (covered []int) {
	if len(segment) <= fewBlocks {
		for i := 1; i < len(segment); i++ {
			if coveredByAll(segment[:i], &segment[i], d) {
				covered = append(covered, i)
			}
		}
		return covered
	}
	end := len(segment)
	for i := range segment {
		if !segment[i].has(d) { // takes all that is left
			for later := i + 1; later < len(segment); later++ {
				covered = append(covered, later)
			}
			end = i
			break
		}
	}
	var cuts []ipset.Addr
	for i := range segment[:end] {
		for _, r := range (*segment[i].set(d)).Ranges() {
			cuts = append(cuts, r.First)
			if r.Last != last {
				cuts = append(cuts, r.Last.Next())
			}
		}
	}
	slices.SortFunc(cuts, ipset.Addr.Compare)
	cuts = slices.Compact(cuts)
	at := func(a ipset.Addr) int {
		i, _ := slices.BinarySearchFunc(cuts, a, ipset.Addr.Compare)
		return i
	}
	// free[i] leads to the first piece from i on that no block has yet.
	free := make([]int32, len(cuts)+1)
	for i := range free {
		free[i] = int32(i)
	}
	next := func(i int) int {
		for int(free[i]) != i {
			free[i] = free[free[i]]
			i = int(free[i])
		}
		return i
	}
	var early []int
	for i := range segment[:end] {
		got, ranges := false, (*segment[i].set(d)).Ranges()
		for _, r := range ranges {
			stop := len(cuts)
			if r.Last != last {
				stop = at(r.Last.Next())
			}
			for piece := next(at(r.First)); piece < stop; piece = next(piece) {
				got = true
				free[piece] = int32(piece + 1)
			}
		}
		if !got && len(ranges) > 0 {
			early = append(early, i)
		}
	}
	return append(early, covered...)
}

// fewBlocks is how many blocks coveredSets looks at one by one.
const fewBlocks = 16

// coveredByAll tells whether every address that b asks for is asked for by one
// of the blocks before it.
func coveredByAll(before []block, b *block, d tables.Dimension) bool {
	if slices.ContainsFunc(before, func(o block) bool { return !o.has(d) }) {
		return true
	}
	if !b.has(d) || (*b.set(d)).IsEmpty() {
		return false
	}
	for _, r := range (*b.set(d)).Ranges() {
		for at := r.First; ; {
			end, ok := endOfRange(before, at, d)
			if !ok {
				return false
			}
			if !end.Less(r.Last) {
				break
			}
			at = end.Next()
		}
	}
	return true
}

// endOfRange gives the last address of a range of one of the blocks that a is
// in.
func endOfRange(blocks []block, a ipset.Addr, d tables.Dimension) (end ipset.Addr, ok bool) {
	for i := range blocks {
		ranges := (*blocks[i].set(d)).Ranges()
		if n := rangeAt(ranges, a); n >= 0 && !ranges[n].Last.Less(a) {
			return ranges[n].Last, true
		}
	}
	return end, false
}

// rangeAt finds the last range that begins at a or before it, or -1.
func rangeAt(ranges []ipset.Range, a ipset.Addr) int {
	i, exact := slices.BinarySearchFunc(ranges, a, func(r ipset.Range, a ipset.Addr) int { return r.First.Compare(a) })
	if !exact {
		i--
	}
	return i
}

// coveredLists is coveredSets for selectors.
func coveredLists(segment []block, d tables.Dimension) (covered []int) {
	var taken [256]*[1 << 16 / 64]uint64
	var whole [256]bool
	everything := false
	for i := range segment {
		list := *segment[i].list(d)
		got := list == nil
		for _, s := range list {
			switch {
			case whole[s.Proto]:
				continue
			case s.Whole:
				whole[s.Proto], got = true, true
				continue
			case taken[s.Proto] == nil:
				taken[s.Proto] = new([1 << 16 / 64]uint64)
			}
			got = mark(taken[s.Proto], s.First, s.Last) || got
		}
		if everything || !got && len(list) > 0 {
			covered = append(covered, i)
		}
		everything = everything || list == nil
	}
	return covered
}

// mark sets the bits from first to last and tells whether one was not set.
func mark(set *[1 << 16 / 64]uint64, first, last uint16) (fresh bool) {
	for word := first / 64; word <= last/64; word++ {
		bits := ^uint64(0)
		if word == first/64 {
			bits <<= first % 64
		}
		if word == last/64 {
			bits &= ^uint64(0) >> (63 - last%64)
		}
		fresh = fresh || set[word]&bits != bits
		set[word] |= bits
	}
	return fresh
}

// coverer finds the first rule from `from` on that matches wherever rule i of
// its run does, or -1 where only several together do.
func (m *merged) coverer(c *tables.Chain, from, i int) int {
	want := m.asks(i)
	for j := from; j < i; j++ {
		if c.Of[j] == c.Of[i] {
			if by := m.asks(j); by.coversAll(&want) {
				return j
			}
		}
	}
	return -1
}

// asks is what rule i of the policy asks for.
func (m *merged) asks(i int) asks {
	r := &m.rules[i]
	return asks{r.To, r.From, r.Services, r.SourcePorts, r.Domains}
}

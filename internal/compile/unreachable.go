package compile

import (
	"fmt"
	"math/bits"
	"strings"

	"egate/internal/policy"
	"egate/internal/tables"
)

// Bounds of the search for rules that can never match, about a tenth of a
// second for a chain. They are counts, not times, so that equal policies get
// equal warnings.
const (
	searchBudget     = 1 << 25 // words of vectors read for one chain
	searchBudgetRule = 1 << 20 // of them for one rule
	candidateCost    = 8       // what trying a class costs beside reading its vector, in words
	maxMembers       = 1 << 24 // classes listed for one dimension
)

// unreachable warns of the rules that can never match, because earlier
// deciding rules take all packets that could, or because no packet could.
//
// The search is exact over classes: it goes through the combinations of
// classes that a rule takes part in, leaves those out that no packet can have,
// and stops at the first one that no earlier rule decides. A destination with
// several names needs no look: it meets every rule that it would meet with one
// of them, so who decides for each name, and for no name, decides for all. A rule whose search
// passes its budget counts as reachable unless one earlier rule covers it in
// every dimension.
func unreachable(c *tables.Chain, dims dimensions, rules []policy.Rule) policy.Problems {
	s := newSearch(c, dims)
	var out policy.Problems
	for r := range rules {
		if why := s.explain(r, r); why != "" {
			out = append(out, policy.Problem{
				Pos:      rules[r].Pos,
				Severity: policy.Warning,
				Message:  fmt.Sprintf("rule %s can never match: %s", quote(&c.Rules[r]), why),
			})
		}
	}
	return out
}

// searchOrder is how the search goes through the dimensions; worlds counts on it.
var searchOrder = [tables.DimensionCount]tables.Dimension{
	tables.Service, tables.SourcePort, tables.Destination, tables.Source, tables.Name,
}

// quote shows a rule's name, or its place where it has none.
func quote(r *tables.Rule) string {
	if r.Name == "" {
		return r.Label
	}
	return fmt.Sprintf("%q", r.Name)
}

// search is the search in one chain.
type search struct {
	chain  *tables.Chain
	dims   dimensions
	worlds *worlds
	order  []tables.Dimension // those in use, as the search goes through them

	members [tables.DimensionCount][][]uint16 // group -> its classes; nil where there are too many to list
	every   [tables.DimensionCount][]uint16   // all classes, for rules that do not ask
	covers  [tables.DimensionCount][][]uint64 // group -> rules that match wherever the group does; filled when asked for
	free    [][]uint64                        // [depth]: rules that ask for nothing in order[depth:]
	budget  int

	// Of the rule that is searched.
	rule    int
	words   int        // of its candidates for covering it
	left    int        // of searchBudgetRule
	masks   [][]uint64 // [depth]: earlier deciding rules that match in the classes chosen so far
	classes [tables.DimensionCount]uint16
	takers  []uint64
	visited bool // a combination that a packet can have
}

func newSearch(c *tables.Chain, dims dimensions) *search {
	s := &search{chain: c, dims: dims, budget: searchBudget, takers: make([]uint64, c.Words)}
	for _, d := range searchOrder {
		dim := dims[d]
		if dim == nil {
			continue
		}
		s.order = append(s.order, d)
		s.members[d] = dim.members(maxMembers)
		s.covers[d] = make([][]uint64, len(dim.rules))
		for class := range dim.classes() {
			s.every[d] = append(s.every[d], uint16(class))
		}
	}
	s.free = make([][]uint64, len(s.order)+1)
	s.masks = make([][]uint64, len(s.order)+1)
	for depth := len(s.order); depth >= 0; depth-- {
		s.masks[depth] = make([]uint64, c.Words)
		s.free[depth] = make([]uint64, c.Words)
		for i := range s.free[depth] {
			s.free[depth][i] = ^uint64(0)
			if depth < len(s.order) {
				s.free[depth][i] = s.free[depth+1][i] & s.row(s.order[depth], 0)[i]
			}
		}
	}
	s.worlds = newWorlds(c, dims)
	return s
}

// row is a class's vector.
func (s *search) row(d tables.Dimension, class uint16) []uint64 { return s.dims[d].vector(class) }

// explain says why rule r can never match, or "" where it can. What may take
// its packets are deciding rules before rule end, which is r or before it.
func (s *search) explain(r, end int) string {
	for _, d := range s.order {
		if g := s.dims[d].of[r]; g != none && s.members[d] != nil && len(s.members[d][g]) == 0 {
			return fmt.Sprintf("nothing is left of its %s", d)
		}
	}
	s.start(r, end)
	if q := s.coveredByOne(); q >= 0 {
		return takenBy(s.chain, []int{q})
	}
	switch s.visit(0) {
	case reachable, unknown:
		return ""
	}
	if !s.visited {
		return "no packet can meet all its conditions"
	}
	return takenBy(s.chain, setBits(s.takers))
}

// takenBy names the rules that take another's packets.
func takenBy(c *tables.Chain, takers []int) string {
	const named = 3
	var parts []string
	for _, q := range takers[:min(len(takers), named)] {
		parts = append(parts, fmt.Sprintf("%s (%s)", quote(&c.Rules[q]), c.Rules[q].Lines()))
	}
	if len(takers) == 1 {
		return fmt.Sprintf("rule %s takes all its packets", parts[0])
	}
	if more := len(takers) - named; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	end := len(parts) - 1
	return fmt.Sprintf("rules %s and %s together take all its packets", strings.Join(parts[:end], ", "), parts[end])
}

// start sets the search up for rule r and the deciding rules before end.
func (s *search) start(r, end int) {
	s.rule, s.words, s.visited = r, end/64+1, false
	s.left = min(s.budget, searchBudgetRule)
	for i := range s.words {
		s.masks[0][i] = s.chain.Deciding[i]
	}
	s.masks[0][end/64] &= 1<<(end%64) - 1
	clear(s.takers)
}

// spend takes words from the budgets and tells whether they allow it.
func (s *search) spend(words int) bool {
	s.budget -= words
	s.left -= words
	return s.left >= 0 && s.budget >= 0
}

// coveredByOne finds the first earlier deciding rule that matches wherever the
// rule does, judged dimension by dimension, or -1.
func (s *search) coveredByOne() int {
	mask := s.masks[len(s.order)]
	copy(mask, s.masks[0][:s.words])
	for _, d := range s.order {
		cover := s.row(d, 0)
		if g := s.dims[d].of[s.rule]; g != none {
			cover = s.cover(d, g)
		}
		for i := range s.words {
			mask[i] &= cover[i]
		}
	}
	for i, word := range mask[:s.words] {
		if word != 0 {
			return i*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

// cover gives the rules that match wherever a group does. Where the budget
// does not allow to read that from the classes, these are the group's own
// rules and those that do not ask.
func (s *search) cover(d tables.Dimension, g int) []uint64 {
	if known := s.covers[d][g]; known != nil {
		return known
	}
	cover := make([]uint64, s.chain.Words)
	s.covers[d][g] = cover
	if s.members[d] == nil || s.budget < s.chain.Words*len(s.members[d][g]) {
		copy(cover, s.row(d, 0))
		for _, r := range s.dims[d].rules[g] {
			cover[r/64] |= 1 << (r % 64)
		}
		return cover
	}
	for i := range cover {
		cover[i] = ^uint64(0)
	}
	for _, class := range s.members[d][g] {
		for i, word := range s.row(d, class) {
			cover[i] &= word
		}
	}
	s.budget -= s.chain.Words * len(s.members[d][g])
	return cover
}

// outcome is what a search found.
type outcome int

const (
	taken     outcome = iota // an earlier rule decides every combination
	reachable                // one combination is left
	unknown                  // the budget ended
)

// visit goes through the classes of order[depth:], the others being chosen.
func (s *search) visit(depth int) outcome {
	if depth == len(s.order) {
		// No earlier rule is left, or takenBefore had noted it.
		return reachable
	}
	d := s.order[depth]
	candidates := s.every[d]
	if g := s.dims[d].of[s.rule]; g != none {
		if s.members[d] == nil {
			return unknown
		}
		candidates = s.members[d][g]
	}
	from, to := s.masks[depth], s.masks[depth+1]
	for _, class := range candidates {
		if !s.spend(s.words + candidateCost) {
			return unknown
		}
		s.classes[d] = class
		if !s.worlds.possible(d, &s.classes) {
			continue
		}
		for i, word := range s.row(d, class)[:s.words] {
			to[i] = from[i] & word
		}
		if s.takenBefore(depth + 1) {
			s.visited = true
			continue
		}
		if found := s.visit(depth + 1); found != taken {
			return found
		}
	}
	return taken
}

// takenBefore tells whether a rule that is left at this depth asks for nothing
// more, so that it takes whatever the dimensions to come are. It notes one,
// preferring those noted before.
func (s *search) takenBefore(depth int) bool {
	first := -1
	for i := range s.words {
		word := s.masks[depth][i] & s.free[depth][i]
		if word&s.takers[i] != 0 {
			return true
		}
		if word != 0 && first < 0 {
			first = i*64 + bits.TrailingZeros64(word)
		}
	}
	if first >= 0 {
		s.takers[first/64] |= 1 << (first % 64)
	}
	return first >= 0
}

func setBits(words []uint64) []int {
	var out []int
	for i, word := range words {
		for ; word != 0; word &= word - 1 {
			out = append(out, i*64+bits.TrailingZeros64(word))
		}
	}
	return out
}

package compile

import (
	"fmt"
	"hash/maphash"
	"slices"

	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// maxRounds bounds how often a run is gone through. Lists as people have them
// need two or three rounds; what would need more stays in more rules.
const maxRounds = 8

// mergeOrder is the order in which a run's dimensions are tried: the ports of
// one host first, so that hosts with the same ports can follow. Rules are never
// merged along their names: a connection goes by the name that its rule listed.
var mergeOrder = [...]tables.Dimension{tables.Service, tables.SourcePort, tables.Destination, tables.Source}

// block is what one rule of the tables stands for: a rule of the policy, or
// several that decide alike.
type block struct {
	asks
	first, last int    // rules of the policy
	count       int    // of them
	parts       []span // where they are not all from first to last
}

type span struct{ first, last int }

// merged is a chain's rules after merging.
type merged struct {
	rules   []policy.Rule // of the policy
	blocks  []block
	run     []int // block -> the first block of its run; nil where no order was changed
	shadows []shadow
}

// mergeRules merges rules that are treated alike. A run is adjacent rules
// without a name that have the same deciding action, the same events and the same
// wishes about verifying names: which of them a packet meets makes no difference to it. Neighbours in a run that
// ask for the same in all dimensions but one become one rule that asks for the
// union, until nothing changes. So the first rule of the policy that a packet
// meets is always in the first rule of the tables that it meets.
//
// Where more than limit rules are left, rules of a run are gathered
// from wherever they stand in it. A packet that meets several rules of the
// run may then be counted for a later one of them.
//
// A rule with a name has a counter of its own, and a continue rule counts every
// match, so neither is ever merged.
//
// watch asks for the rules that earlier rules of their own run cover.
func mergeRules(rules []policy.Rule, watch bool, limit int) *merged {
	m := &merged{rules: rules}
	var w *watcher
	if watch {
		w = &watcher{}
	}
	var runs []int // first blocks
	for first := 0; first < len(rules); {
		end := first + 1
		for end < len(rules) && alike(&rules[first], &rules[end]) {
			end++
		}
		start := len(m.blocks)
		runs = append(runs, start)
		m.blocks = slices.Grow(m.blocks, end-first)
		for i := first; i < end; i++ {
			m.blocks = append(m.blocks, m.single(i))
		}
		if end-first > 1 {
			kept := joinNeighbours(m.blocks[start:], w)
			m.blocks = m.blocks[:start+kept]
		}
		first = end
	}
	if len(m.blocks) > limit {
		m.gather(runs, w)
	}
	if w != nil {
		m.shadows = w.found
	}
	return m
}

// single is the block of one rule.
func (m *merged) single(i int) block {
	return block{asks: m.asks(i), first: i, last: i, count: 1}
}

// alike tells whether two neighbours are of one run.
func alike(a, b *policy.Rule) bool {
	return a.Name == "" && b.Name == "" && a.Action == b.Action && a.Action.Decides() && a.Events == b.Events &&
		a.Verify == b.Verify && a.DropECH == b.DropECH && a.DropQUIC == b.DropQUIC
}

// joinNeighbours merges neighbours of a run in place and gives how many blocks
// are left.
func joinNeighbours(run []block, w *watcher) int {
	for range maxRounds {
		before := len(run)
		for _, d := range mergeOrder {
			run = joinSegments(run, d, w)
		}
		if len(run) == before || len(run) == 1 {
			break
		}
	}
	return len(run)
}

// joinSegments merges neighbours that differ in dimension d only.
func joinSegments(run []block, d tables.Dimension, w *watcher) []block {
	out := run[:0]
	for start := 0; start < len(run); {
		end := start + 1
		for end < len(run) && run[start].equalBut(&run[end].asks, d) {
			end++
		}
		if segment := run[start:end]; len(segment) == 1 {
			out = append(out, segment[0])
		} else {
			out = append(out, join(segment, d, w))
		}
		start = end
	}
	clear(run[len(out):])
	return out
}

// join makes one block of several, in order, that differ in dimension d only.
func join(segment []block, d tables.Dimension, w *watcher) block {
	out := segment[0]
	out.unite(segment, d)
	w.watch(segment, &out.asks, d)
	for i := range segment[1:] {
		b := &segment[1+i]
		if out.parts != nil || b.parts != nil || b.first != out.last+1 {
			out.parts = append(out.spans(), b.spans()...)
		}
		out.last = max(out.last, b.last)
		out.count += b.count
	}
	return out
}

// spans is the block's rules as a list that may grow.
func (b *block) spans() []span {
	if b.parts == nil {
		return []span{{b.first, b.last}}
	}
	return b.parts
}

// gather merges the blocks of each run that differ in one dimension, wherever
// they stand in it. runs holds where the runs begin.
func (m *merged) gather(runs []int, w *watcher) {
	seed := maphash.MakeSeed()
	blocks := m.blocks
	m.blocks = nil
	for i, start := range runs {
		end := len(blocks)
		if i+1 < len(runs) {
			end = runs[i+1]
		}
		first := len(m.blocks)
		m.blocks = append(m.blocks, gatherRun(blocks[start:end], seed, w)...)
		for range len(m.blocks) - first {
			m.run = append(m.run, first)
		}
	}
}

// gatherRun merges along the dimension that leaves the fewest blocks, until
// none leaves fewer.
func gatherRun(run []block, seed maphash.Seed, w *watcher) []block {
	for range maxRounds {
		var best [][]int
		var along tables.Dimension
		for _, d := range mergeOrder {
			if groups := groupBut(run, d, seed); best == nil || len(groups) < len(best) {
				best, along = groups, d
			}
		}
		if len(best) == len(run) {
			break
		}
		out := make([]block, 0, len(best))
		for _, group := range best {
			members := make([]block, len(group))
			for i, b := range group {
				members[i] = run[b]
			}
			out = append(out, join(members, along, w))
		}
		run = out
		w = nil // blocks reach over each other now: none is before another
	}
	return run
}

// groupBut sorts blocks into groups that ask for the same in all dimensions
// but d, in the order of their first members.
func groupBut(run []block, d tables.Dimension, seed maphash.Seed) [][]int {
	var groups [][]int
	byHash := map[uint64][]int{}
next:
	for i := range run {
		hash := run[i].hashBut(d, seed)
		for _, g := range byHash[hash] {
			if run[groups[g][0]].equalBut(&run[i].asks, d) {
				groups[g] = append(groups[g], i)
				continue next
			}
		}
		byHash[hash] = append(byHash[hash], len(groups))
		groups = append(groups, []int{i})
	}
	return groups
}

// happened tells whether any rule was merged.
func (m *merged) happened() bool { return len(m.blocks) < len(m.rules) }

// chain gives the rules that the tables are made of, each in the place of its
// block.
func (m *merged) chain() []policy.Rule {
	out := make([]policy.Rule, len(m.blocks))
	for i := range m.blocks {
		b := &m.blocks[i]
		out[i] = m.rules[b.first]
		out[i].To, out[i].From, out[i].Services, out[i].SourcePorts = b.to, b.from, b.services, b.sourcePorts
	}
	return out
}

// describe fills in what c tells of its rules.
func (m *merged) describe(c *tables.Chain) {
	c.Rules = make([]tables.Rule, len(m.blocks))
	c.Of = make([]uint32, len(m.rules))
	for i := range m.blocks {
		b := &m.blocks[i]
		c.Rules[i] = m.tableRule(b)
		if b.parts == nil {
			fill(c.Of[b.first:b.last+1], i)
		}
		for _, s := range b.parts {
			fill(c.Of[s.first:s.last+1], i)
		}
	}
}

// tableRule is what the tables tell of a block.
func (m *merged) tableRule(b *block) tables.Rule {
	r := &m.rules[b.first]
	return tables.Rule{
		Name: r.Name, Label: m.label(b), Action: r.Action, Events: r.Events, Line: r.Pos.Line,
		Named: r.Domains != nil, Verify: r.Verify, DropECH: r.DropECH, DropQUIC: r.DropQUIC,
		First: b.first, Last: b.last, Count: b.count, LastLine: m.rules[b.last].Pos.Line,
	}
}

func fill(of []uint32, rule int) {
	for i := range of {
		of[i] = uint32(rule)
	}
}

// label is the first rule's: its name or place; of several neighbours their
// places, as "#3-102"; of several that others stand between the first place
// and how many more there are, as "#3+99".
func (m *merged) label(b *block) string {
	label := m.rules[b.first].Label(b.first)
	switch {
	case b.count == 1:
		return label
	case b.parts == nil:
		return fmt.Sprintf("%s-%d", label, b.last+1)
	}
	return fmt.Sprintf("%s+%d", label, b.count-1)
}

// LimitError says which limit a policy passes, where, and what to do. It wraps
// ErrTooLarge.
type LimitError struct{ policy.Problem }

func (e *LimitError) Error() string { return e.Problem.String() }
func (e *LimitError) Unwrap() error { return ErrTooLarge }

// checkLimit refuses more rules than the tables hold.
func (m *merged) checkLimit(dir verdict.Direction) error {
	if len(m.blocks) <= tables.MaxRules {
		return nil
	}
	remain, advice := "", "put the addresses of rules that are treated alike into a set"
	if m.happened() {
		remain = " remain after merging runs of unnamed rules"
	}
	if slices.ContainsFunc(m.rules, func(r policy.Rule) bool { return r.Domains != nil }) {
		advice += ", and their domains into a set of domains"
	}
	if slices.ContainsFunc(m.rules, func(r policy.Rule) bool { return r.Name != "" }) {
		advice += ", or drop names that need no counter of their own"
	}
	return &LimitError{policy.Problem{
		Pos:      m.rules[m.blocks[tables.MaxRules].first].Pos,
		Severity: policy.Error,
		Message:  fmt.Sprintf("%s: %d rules%s, at most %d; %s", dir, len(m.blocks), remain, tables.MaxRules, advice),
	}}
}

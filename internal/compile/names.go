package compile

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"egate/internal/domain"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// nameGroups is the rules' distinct sets of domains.
type nameGroups struct {
	grouping
	sets []*domain.Set // of each group
}

// groupNames groups rules by the names they ask for.
func groupNames(rules []policy.Rule) nameGroups {
	g := nameGroups{grouping: newGrouping(len(rules))}
	byPointer := map[*domain.Set]int{}
	byLength := map[int][]int{} // groups whose sets may be equal
	for i := range rules {
		set := rules[i].Domains
		if set == nil {
			g.add(none)
			continue
		}
		group, known := byPointer[set]
		if !known {
			group = g.find(set, byLength)
			byPointer[set] = group
		}
		g.add(group)
	}
	return g
}

// find gives the group of an equal set, or that of a new one.
func (g *nameGroups) find(set *domain.Set, byLength map[int][]int) int {
	for _, group := range byLength[set.Len()] {
		if g.sets[group].Equal(set) {
			return group
		}
	}
	byLength[set.Len()] = append(byLength[set.Len()], len(g.sets))
	g.sets = append(g.sets, set)
	return len(g.sets) - 1
}

// mention is one pattern of one group.
type mention struct {
	domain.Pattern
	group int
}

// compileNames fills t. It gives nil where no rule asks. rules are those of
// the groups.
func compileNames(t *tables.NameTable, g nameGroups, rules []policy.Rule) (*dimension, error) {
	if len(g.sets) == 0 {
		return nil, nil
	}
	dim := newDimension(g.grouping)
	b := nameBuilder{dim: dim, groups: len(g.sets), at: map[string]int32{}, asked: make([]uint64, dim.words)}
	for r, group := range g.of {
		if group != none && rules[r].Action == verdict.Allow {
			b.asked[group/64] |= 1 << (group % 64)
		}
	}
	b.collect(g.sets)
	for _, i := range b.shortestFirst() {
		if err := b.complete(i); err != nil {
			return nil, err
		}
	}
	t.Entries = b.entries
	return dim, nil
}

// nameBuilder makes the entries of a table of names.
type nameBuilder struct {
	dim      *dimension
	groups   int
	asked    []uint64 // groups of which an allow rule is one
	mentions []mention
	entries  []tables.NameEntry
	first    []int32          // entry -> its first mention; one more at the end
	at       map[string]int32 // name -> its entry
}

// collect sorts the mentions and makes an entry for each name.
func (b *nameBuilder) collect(sets []*domain.Set) {
	n := 0
	for _, set := range sets {
		n += set.Len()
	}
	b.mentions = make([]mention, 0, n)
	for group, set := range sets {
		for _, p := range set.Patterns() {
			b.mentions = append(b.mentions, mention{p, group})
		}
	}
	if len(sets) > 1 { // one is sorted
		slices.SortStableFunc(b.mentions, func(x, y mention) int { return strings.Compare(x.Name, y.Name) })
	}
	for i := range b.mentions {
		name := b.mentions[i].Name
		if i > 0 && b.mentions[i-1].Name == name {
			continue
		}
		b.at[name] = int32(len(b.entries))
		b.entries = append(b.entries, tables.NameEntry{Name: name})
		b.first = append(b.first, int32(i))
	}
	b.first = append(b.first, int32(len(b.mentions)))
}

// shortestFirst gives the entries so that those above a name come before it.
func (b *nameBuilder) shortestFirst() []int32 {
	var places [domain.MaxName + 2]int32
	length := func(i int) int { return min(len(b.entries[i].Name), domain.MaxName) }
	for i := range b.entries {
		places[length(i)+1]++
	}
	for i := range places[1:] {
		places[i+1] += places[i]
	}
	order := make([]int32, len(b.entries))
	for i := range b.entries {
		place := &places[length(i)]
		order[*place] = int32(i)
		*place++
	}
	return order
}

// complete gives an entry its classes: what the nearest entry above says of
// all names below it, and what is said of this name. The entries above are
// complete.
func (b *nameBuilder) complete(i int32) error {
	e := &b.entries[i]
	exact, below := newCombination(b.groups), newCombination(b.groups)
	if above := b.above(e.Name); above != nil {
		b.add(&exact, above.Below)
		b.add(&below, above.Below)
	}
	for _, m := range b.mentions[b.first[i]:b.first[i+1]] {
		c := &exact
		if m.Below {
			c = &below
		}
		c.put(m.group)
	}
	var err error
	if e.Exact, err = b.dim.class(&exact); err != nil {
		return err
	}
	if e.Below, err = b.dim.class(&below); err != nil {
		return err
	}
	e.AskExact, e.AskBelow = b.isAsked(&exact), b.isAsked(&below)
	return nil
}

// above finds the nearest entry that a name is below, or nil.
func (b *nameBuilder) above(name string) *tables.NameEntry {
	for {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return nil
		}
		if i, known := b.at[rest]; known {
			return &b.entries[i]
		}
		name = rest
	}
}

// add takes the groups of a class in.
func (b *nameBuilder) add(c *combination, class uint16) {
	for i, word := range b.dim.combo(class) {
		for ; word != 0; word &= word - 1 {
			c.put(i*64 + bits.TrailingZeros64(word))
		}
	}
}

// put takes a group in that may be in already.
func (c *combination) put(group int) {
	if c.bits[group/64]>>(group%64)&1 == 0 {
		c.flip(group)
	}
}

func (b *nameBuilder) isAsked(c *combination) bool {
	for i, word := range c.bits {
		if word&b.asked[i] != 0 {
			return true
		}
	}
	return false
}

// compileDNS is what the tables say of DNS. It is nothing where the policy
// says nothing of it and no rule asks for names.
func compileDNS(p *policy.Policy) tables.DNS {
	if !p.ReadsDNS() {
		return tables.DNS{}
	}
	out := tables.DNS{DNS: p.DNS, InUse: true}
	out.Servers, out.Types = slices.Clone(p.DNS.Servers), slices.Clone(p.DNS.Types)
	if out.MaxLabel == 0 { // a policy without the section
		out.MaxLabel = domain.MaxLabel
	}
	return out
}

// validateNames keeps what package policy never builds away from the tables.
func validateNames(dir verdict.Direction, r *policy.Rule) error {
	switch {
	case r.Domains == nil:
		if r.Verify != policy.VerifyNone || r.DropECH || r.DropQUIC {
			return fmt.Errorf("it verifies names but lists none: %w", ErrModel)
		}
		return nil
	case dir != verdict.Egress:
		return fmt.Errorf("it lists names, which only destinations have: %w", ErrModel)
	case r.Verify > policy.VerifyAll:
		return fmt.Errorf("unknown way %d to verify names: %w", r.Verify, ErrModel)
	case r.Action != verdict.Allow && (r.Verify != policy.VerifyNone || r.DropECH || r.DropQUIC):
		return fmt.Errorf("it verifies names but lets no connection begin: %w", ErrModel)
	}
	for _, p := range r.Domains.Patterns() {
		if p.Name == "" || len(p.Name) > domain.MaxName {
			return fmt.Errorf("%q is no domain: %w", p, ErrModel)
		}
	}
	return nil
}

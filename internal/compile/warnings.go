package compile

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
)

// Bounds of what is told about rules that can never match.
const (
	maxWarnings   = 20      // of one chain; the rest is counted
	maxSearched   = 1 << 16 // ranges of addresses and domains in chains that are searched rule by rule
	maxCandidates = 4       // earlier rules that are compared with one rule
	memberBudget  = 1 << 24 // words read for the rules of one chain that were merged
)

// searchable tells whether the chain can be compiled once more without merging,
// which finds every rule that can never match.
func searchable(rules []policy.Rule) bool {
	if len(rules) > tables.MaxRules {
		return false
	}
	ranges := 0
	for i := range rules {
		if rules[i].To != nil {
			ranges += len(rules[i].To.Ranges())
		}
		if rules[i].From != nil {
			ranges += len(rules[i].From.Ranges())
		}
		if rules[i].Domains != nil {
			ranges += rules[i].Domains.Len()
		}
	}
	return ranges <= maxSearched
}

// unreachable warns of the policy's rules that can never match. c and dims are
// what the merged rules were compiled to.
//
// A small chain is searched as the policy has it, so merging changes no warning.
// In a large one merged rules are searched as wholes; of the rules in them those are
// found that earlier ones of the same run cover together, or that one rule
// before the run covers.
func (m *merged) unreachable(c *tables.Chain, dims dimensions) policy.Problems {
	if !m.happened() {
		return unreachable(c, dims, m.rules)
	}
	if searchable(m.rules) {
		var whole tables.Chain
		if dims, err := compileChain(&whole, m.unmerged()); err == nil {
			return unreachable(&whole, dims, m.rules)
		}
		// Merging made it fit.
	}
	return m.unreachableMerged(c, dims)
}

// unmerged is the same rules without merging.
func (m *merged) unmerged() *merged {
	out := &merged{rules: m.rules, blocks: make([]block, len(m.rules))}
	for i := range out.blocks {
		out.blocks[i] = m.single(i)
	}
	return out
}

// unreachableMerged is unreachable for chains that are only searched as merged.
func (m *merged) unreachableMerged(c *tables.Chain, dims dimensions) policy.Problems {
	var found []finding
	told := make([]bool, len(m.rules))
	s := newSearch(c, dims)
	for r := range c.Rules {
		why := s.explain(r, m.before(r))
		if why == "" {
			continue
		}
		for i := range c.Members(r) {
			told[i] = true
		}
		found = append(found, finding{rule: c.Rules[r].First, label: quote(&c.Rules[r]), why: why})
	}
	for _, shadow := range m.shadows {
		for i := shadow.first; i <= shadow.last; i++ {
			if !told[i] {
				told[i] = true
				found = append(found, finding{rule: i, from: shadow.from})
			}
		}
	}
	budget := memberBudget
	for i := range m.rules {
		if told[i] || budget < 0 || !c.Rules[c.Of[i]].Merged() {
			continue
		}
		if q := m.coveredBefore(c, i, &budget); q >= 0 {
			found = append(found, finding{rule: i, why: takenBy(c, []int{q})})
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return cmp.Compare(a.rule, b.rule) })
	out := make(policy.Problems, len(found))
	for n := range found {
		f := &found[n]
		out[n] = policy.Problem{Pos: m.rules[f.rule].Pos, Severity: policy.Warning}
		if n < maxWarnings+1 { // no more are shown
			out[n].Message = fmt.Sprintf("rule %s can never match: %s",
				cmp.Or(f.label, m.rules[f.rule].Label(f.rule)), cmp.Or(f.why, m.coverers(c, f)))
		}
	}
	return out
}

// finding is a rule of the policy that can never match.
type finding struct {
	rule  int
	label string // where it stands for those merged with it
	why   string // or, where rules of its own run cover it:
	from  int    // the first of these
}

// coverers says which rules of its own run cover a rule.
func (m *merged) coverers(c *tables.Chain, f *finding) string {
	if j := m.coverer(c, f.from, f.rule); j >= 0 {
		return fmt.Sprintf("rule %s (line %d) takes all its packets", m.rules[j].Label(j), m.rules[j].Pos.Line)
	}
	return fmt.Sprintf("rules before it, from %s (line %d) on, together take all its packets", m.rules[f.from].Label(f.from), m.rules[f.from].Pos.Line)
}

// before gives the first rule of the tables that may not be said to take the
// packets of rule r: r itself, or where a run was gathered its first rule, for
// within the run the policy's order is another one.
func (m *merged) before(r int) int {
	if m.run != nil {
		return m.run[r]
	}
	return r
}

// coveredBefore finds a deciding rule before the run of the policy's rule i
// that matches wherever the rule does, or -1. Only rules that match one packet of it
// are looked at.
func (m *merged) coveredBefore(c *tables.Chain, i int, budget *int) int {
	k, names, ok := sample(&m.rules[i])
	if !ok {
		return -1
	}
	before := m.before(int(c.Of[i]))
	classes := c.Classes(&k, names)
	want := m.asks(i)
	candidates := 0
	for w := range (before + 63) / 64 {
		*budget--
		word := c.And(classes, w) & c.Deciding[w]
		if w == before/64 {
			word &= 1<<(before%64) - 1
		}
		for ; word != 0; word &= word - 1 {
			q := w*64 + bits.TrailingZeros64(word)
			if candidates++; candidates > maxCandidates {
				return -1
			}
			if m.blocks[q].coversAll(&want) {
				return q
			}
		}
	}
	return -1
}

// coversAll tells whether a matches wherever b does.
func (a *asks) coversAll(b *asks) bool {
	for _, d := range mergeOrder {
		if !a.covers(b, d) {
			return false
		}
	}
	return a.covers(b, tables.Name)
}

// sample is a packet that lies in the first element of each dimension that the
// rule asks for; what it does not ask for could not be read, but for the
// destination where the rule asks for names.
func sample(r *policy.Rule) (k packet.Key, names []string, ok bool) {
	k.IP = true
	if r.Domains != nil {
		if r.Domains.Len() == 0 {
			return k, nil, false
		}
		first := r.Domains.Patterns()[0]
		if names = []string{first.Name}; first.Below {
			names[0] = "x." + first.Name
		}
		k.Have |= packet.HaveDst
	}
	if r.To != nil {
		if r.To.IsEmpty() {
			return k, nil, false
		}
		k.Have |= packet.HaveDst
		k.Dst = r.To.Ranges()[0].First
	}
	if r.From != nil {
		if r.From.IsEmpty() {
			return k, nil, false
		}
		k.Have |= packet.HaveSrc
		k.Src = r.From.Ranges()[0].First
	}
	for _, list := range [2][]policy.Service{r.Services, r.SourcePorts} {
		if len(list) > 0 {
			k.Have |= packet.HaveProto
			k.Proto = list[0].Proto
			if !list[0].Whole {
				k.Have |= packet.HaveTransport
			}
		}
	}
	if len(r.Services) > 0 {
		k.Selector = r.Services[0].First
	}
	if len(r.SourcePorts) > 0 {
		k.SourcePort = r.SourcePorts[0].First
	}
	return k, names, true
}

// limitWarnings keeps the first few of a chain's warnings and says how many
// more there are, at the place of the first that is left out: "N more" and what.
func limitWarnings(all policy.Problems, what string) policy.Problems {
	if len(all) <= maxWarnings+1 { // one more takes no more room than to count it
		return all
	}
	out := slices.Clone(all[:maxWarnings])
	rest := all[maxWarnings]
	rest.Message = fmt.Sprintf("%d more %s", len(all)-maxWarnings, what)
	return append(out, rest)
}

package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// In large chains nothing is warned of that the search of the chain without
// merging would not be: there are no false warnings.
func TestWarningsOfMergedRulesAreTrue(t *testing.T) {
	gen := oracle.NewGenerator(seed(t))
	found, missed := 0, 0
	for round := range 600 {
		p := gen.PolicyOf(1 + gen.Rand().IntN(40))
		rules := p.Chains[verdict.Egress].Rules
		limit := tables.MaxRules
		if round%3 == 0 {
			limit = 0 // gathered
		}
		plan := mergeRules(rules, true, limit)
		var apart, c tables.Chain
		dims, err := compileChain(&apart, plan.unmerged())
		if err != nil {
			t.Fatal(err)
		}
		never := map[int]string{}
		for _, w := range unreachable(&apart, dims, rules) {
			never[w.Pos.Line] = w.Message
		}
		if dims, err = compileChain(&c, plan); err != nil {
			t.Fatal(err)
		}
		got := plan.unreachableMerged(&c, dims)
		for _, w := range got {
			if never[w.Pos.Line] == "" {
				t.Errorf("round %d: false warning %v", round, w)
			}
			found++
		}
		missed += len(never) - len(got)
	}
	t.Logf("%d warnings; of merged rules %d are told as one or not at all", found, missed)
	if found < 100 {
		t.Errorf("only %d warnings", found)
	}
}

// Merging changes no warning of a chain that is small enough to be searched
// rule by rule.
func TestMergingKeepsWarnings(t *testing.T) {
	p := unnamed(
		policy.Rule{Name: "office", To: prefixes("10.0.0.0/8")},
		policy.Rule{Action: verdict.Drop, To: prefixes("10.1.0.0/16")},
		policy.Rule{Action: verdict.Drop, To: prefixes("192.0.2.0/24")},
		policy.Rule{Action: verdict.Drop, To: prefixes("192.0.2.128/25")},
	)
	_, got, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`p.yaml:2:5: warning: rule #2 can never match: rule "office" (line 1) takes all its packets`,
		`p.yaml:4:5: warning: rule #4 can never match: rule #3 (line 3) takes all its packets`,
	}
	checkWarnings(t, got, want)
}

func checkWarnings(t *testing.T, got policy.Problems, want []string) {
	t.Helper()
	var texts []string
	for _, w := range got {
		texts = append(texts, w.String())
	}
	if !slices.Equal(texts, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(texts, "\n  "), strings.Join(want, "\n  "))
	}
}

// A chain too large to be searched rule by rule has the warnings that people
// need all the same: repeated rules, and rules that one with a name covers.
func TestWarningsOfLargeChains(t *testing.T) {
	const n = 10_000
	one := func(a uint32) *ipset.Set {
		return ipset.New([]ipset.Range{{First: ipset.From4(a), Last: ipset.From4(a)}})
	}
	rules := []policy.Rule{{Name: "office", To: prefixes("10.0.0.0/8")}, {Name: "web", Services: tcp(80, 80)}}
	for i := range uint32(n) {
		rules = append(rules, policy.Rule{Action: verdict.Drop, To: one(0xc0000000 + 2*i)})
	}
	rules[100].To = prefixes("10.9.0.0/16")            // office
	rules[200].To = rules[150].To                      // a rule before it
	rules[300].To = prefixes("192.0.0.0/32")           // rule 2
	rules[400].To = prefixes("192.0.0.0/24")           // those before it have only half of it
	rules[500].To = prefixes("192.0.0.9/32")           // rule 400
	rules[600].To = rules[590].To.Union(rules[591].To) // both together
	rules = append(rules, policy.Rule{Services: tcp(80, 80), Action: verdict.Reject, To: one(1)}, policy.Rule{Action: verdict.Reject, To: one(3), Services: tcp(80, 80)})
	_, got, err := Compile(unnamed(rules...))
	if err != nil {
		t.Fatal(err)
	}
	rule := func(i int, why string) string {
		return fmt.Sprintf("p.yaml:%d:5: warning: rule #%d can never match: %s", i+1, i+1, why)
	}
	var want []string
	want = append(want, rule(100, `rule "office" (line 1) takes all its packets`),
		rule(200, "rule #151 (line 151) takes all its packets"),
		rule(300, "rule #3 (line 3) takes all its packets"))
	want = append(want, rule(500, "rule #401 (line 401) takes all its packets"),
		rule(600, "rules before it, from #3 (line 3) on, together take all its packets"),
		fmt.Sprintf(`p.yaml:%d:5: warning: rule #%d-%d can never match: rule "web" (line 2) takes all its packets`, n+3, n+3, n+4))
	checkWarnings(t, got, want)
}

func TestWarningsAreBounded(t *testing.T) {
	rules := []policy.Rule{{Name: "all"}}
	for i := range 300 {
		rules = append(rules, policy.Rule{Name: fmt.Sprint(i), To: prefixes("10.0.0.0/8")})
	}
	_, got, err := Compile(unnamed(rules...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != maxWarnings+1 || got[20].String() != "p.yaml:22:5: warning: 280 more rules from here on can never match" {
		t.Errorf("%d warnings, the last %v", len(got), got[len(got)-1])
	}
}

// What is covered is told by lists in every dimension, and by blocks that ask
// for nothing there.
func TestCoveredBlocks(t *testing.T) {
	lists := func(lists ...[]policy.Service) (out []block) {
		for _, l := range lists {
			out = append(out, block{asks: asks{services: l}})
		}
		return out
	}
	sets := func(sets ...*ipset.Set) (out []block) {
		for _, s := range sets {
			out = append(out, block{asks: asks{to: s}})
		}
		return out
	}
	for name, test := range map[string]struct {
		got  []int
		want []int
	}{
		"ports":            {coveredLists(lists(tcp(1, 9), tcp(5, 10), tcp(7, 10), udp(7, 7), tcp(11, 11)), tables.Service), []int{2}},
		"whole protocols":  {coveredLists(lists(tcp(0, 65535), whole(6), tcp(1, 1), whole(6), udp(1, 1)), tables.Service), []int{2, 3}},
		"any service":      {coveredLists(lists(tcp(1, 1), nil, tcp(2, 2), nil), tables.Service), []int{2, 3}},
		"word borders":     {coveredLists(lists(tcp(63, 64), tcp(63, 63), tcp(64, 64), tcp(62, 65), tcp(128, 191), tcp(127, 192)), tables.Service), []int{1, 2}},
		"prefixes":         {coveredSets(sets(prefixes("10.0.0.0/8"), prefixes("10.1.0.0/16"), prefixes("0.0.0.0/0"), prefixes("11.0.0.0/8")), tables.Destination), []int{1, 3}},
		"halves":           {coveredSets(sets(prefixes("10.0.0.0/9"), prefixes("10.128.0.0/9"), prefixes("10.0.0.0/8")), tables.Destination), []int{2}},
		"the last address": {coveredSets(sets(prefixes("::/0"), prefixes("ffff::/16"), prefixes("0.0.0.0/0")), tables.Destination), []int{1}},
		"any address":      {coveredSets(sets(prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8"), nil, prefixes("::/0")), tables.Destination), []int{1, 3}},
		"many blocks": {coveredSets(sets(slices.Concat(
			[]*ipset.Set{prefixes("::/0"), prefixes("ffff::/16"), prefixes("10.0.0.0/9"), prefixes("10.128.0.0/9"), prefixes("10.0.0.0/8")},
			slices.Repeat([]*ipset.Set{prefixes("11.0.0.0/8")}, 2), []*ipset.Set{prefixes("ffff:ffff::/32"), prefixes("9.0.0.0/8", "12.0.0.0/8"), nil, prefixes("1.0.0.0/8")},
			slices.Repeat([]*ipset.Set{nil}, fewBlocks))...), tables.Destination)[:5], []int{1, 4, 6, 7, 10}},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("%s: got %v, want %v", name, test.got, test.want)
		}
	}
}

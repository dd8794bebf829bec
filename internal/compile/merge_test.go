package compile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// unnamed makes a policy whose rules have the names that they are given, and
// stand in lines 1, 2, 3, ...
func unnamed(rules ...policy.Rule) *policy.Policy {
	p := &policy.Policy{Name: "test", MaxFlows: policy.DefaultFlows}
	for i := range rules {
		rules[i].Pos = policy.Pos{File: "p.yaml", Line: i + 1, Column: 5}
	}
	p.Chains[verdict.Egress] = policy.Chain{Default: verdict.Drop, Rules: rules}
	return p
}

// labels are those of the egress rules.
func labels(set *tables.Set) (out []string) {
	for _, r := range set.Chains[verdict.Egress].Rules {
		out = append(out, r.Label)
	}
	return out
}

func TestWhatIsMerged(t *testing.T) {
	type rule = policy.Rule
	a, b, c := prefixes("192.0.2.0/24"), prefixes("198.51.100.0/24"), prefixes("2001:db8::/32")
	events := policy.EventRate{Burst: 1}
	tests := map[string]struct {
		rules []rule
		want  string
	}{
		"destinations":                {[]rule{{To: a}, {To: b}, {To: c}}, "#1-3"},
		"sources":                     {[]rule{{From: a}, {From: b}}, "#1-2"},
		"services":                    {[]rule{{To: a, Services: tcp(80, 80)}, {To: a, Services: udp(53, 53)}}, "#1-2"},
		"source ports":                {[]rule{{To: a, SourcePorts: tcp(1, 1)}, {To: a, SourcePorts: tcp(9, 9)}}, "#1-2"},
		"equal rules":                 {[]rule{{To: a}, {To: prefixes("192.0.2.0/24")}}, "#1-2"},
		"rules that ask for nothing":  {[]rule{{}, {}}, "#1-2"},
		"all destinations, then some": {[]rule{{Services: tcp(1, 1)}, {To: a, Services: tcp(1, 1)}}, "#1-2"},
		"some destinations, then all": {[]rule{{To: a}, {}}, "#1-2"},
		"pairs of host and port": {[]rule{
			{To: a, Services: tcp(80, 80)}, {To: a, Services: tcp(443, 443)}, {To: b, Services: tcp(80, 80)}, {To: b, Services: tcp(443, 443)},
		}, "#1-4"},
		"pairs of port and host": {[]rule{
			{To: a, Services: tcp(80, 80)}, {To: b, Services: tcp(80, 80)}, {To: a, Services: tcp(443, 443)}, {To: b, Services: tcp(443, 443)},
		}, "#1-4"},
		"three dimensions in turn": {[]rule{
			{From: a, To: a, Services: tcp(1, 1)}, {From: a, To: a, Services: tcp(2, 2)}, {From: a, To: b, Services: tcp(1, 2)},
			{From: b, To: a, Services: tcp(1, 2)}, {From: b, To: b, Services: tcp(1, 1)}, {From: b, To: b, Services: tcp(2, 2)},
		}, "#1-6"},
		"runs of their own": {[]rule{
			{To: a}, {To: b}, {Action: verdict.Drop, To: a}, {Action: verdict.Drop, To: b}, {Action: verdict.Reject, To: c},
		}, "#1-2 #3-4 #5"},

		"ports of equal names":        {[]rule{{Domains: domains("a.example"), Services: tcp(80, 80)}, {Domains: domains("a.example"), Services: tcp(443, 443)}}, "#1-2"},
		"destinations of equal names": {[]rule{{Domains: domains("*.example"), To: a}, {Domains: domains("*.example"), To: b}}, "#1-2"},

		"other names":             {[]rule{{Domains: domains("a.example")}, {Domains: domains("b.example")}}, "#1 #2"},
		"names and their parents": {[]rule{{Domains: domains("a.example")}, {Domains: domains("*.example")}}, "#1 #2"},
		"one lists names":         {[]rule{{Domains: domains("a.example")}, {}}, "#1 #2"},
		"other ports of other names": {[]rule{
			{Domains: domains("a.example"), Services: tcp(80, 80)}, {Domains: domains("b.example"), Services: tcp(443, 443)},
		}, "#1 #2"},
		"verified and not": {[]rule{
			{Domains: domains("a.example"), To: a, Verify: policy.VerifyAll}, {Domains: domains("a.example"), To: b, Verify: policy.VerifyWellKnown},
		}, "#1 #2"},
		"ech dropped and not":  {[]rule{{Domains: domains("a.example"), To: a, DropECH: true}, {Domains: domains("a.example"), To: b}}, "#1 #2"},
		"quic dropped and not": {[]rule{{Domains: domains("a.example"), To: a}, {Domains: domains("a.example"), To: b, DropQUIC: true}}, "#1 #2"},
		"two dimensions":       {[]rule{{To: a, Services: tcp(1, 1)}, {To: b, Services: tcp(2, 2)}}, "#1 #2"},
		"one asks, one not":    {[]rule{{To: a}, {Services: tcp(1, 1)}}, "#1 #2"},
		"another action":       {[]rule{{To: a}, {Action: verdict.Drop, To: b}}, "#1 #2"},
		"other events":         {[]rule{{To: a}, {To: b, Events: events}}, "#1 #2"},
		"continue rules":       {[]rule{{Action: verdict.Continue, To: a}, {Action: verdict.Continue, To: b}}, "#1 #2"},
		"a named rule":         {[]rule{{To: a, Name: "x"}, {To: b}}, "x #2"},
		"a named rule between": {[]rule{{To: a}, {To: b, Name: "x"}, {To: c}}, "#1 x #3"},
		"names alike":          {[]rule{{To: a, Name: "x"}, {To: b, Name: "x"}}, "x x"},
		"continue between":     {[]rule{{To: a}, {Action: verdict.Continue}, {To: b}}, "#1 #2 #3"},
		"not neighbours":       {[]rule{{To: a}, {To: a, Services: tcp(1, 1), From: b}, {To: b}}, "#1 #2 #3"},
		"an empty list":        {[]rule{{Services: []policy.Service{}}, {To: a}}, "#1 #2"},
		"whole and all ports":  {[]rule{{To: a, Services: whole(6)}, {To: b, Services: tcp(0, 65535)}}, "#1 #2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set := mustCompile(t, unnamed(test.rules...))
			if got := strings.Join(labels(set), " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestMergedRuleTellsWhereItComesFrom(t *testing.T) {
	p := unnamed(
		policy.Rule{Name: "first"}, policy.Rule{Action: verdict.Drop, To: prefixes("10.0.0.0/8")}, policy.Rule{Action: verdict.Drop, To: prefixes("192.0.2.0/24")},
	)
	p.Chains[verdict.Egress].Rules[2].Pos.Line = 30
	c := &mustCompile(t, p).Chains[verdict.Egress]
	want := tables.Rule{Label: "#2-3", Action: verdict.Drop, Line: 2, First: 1, Last: 2, Count: 2, LastLine: 30}
	if got := c.Rules[1]; got != want || !slices.Equal(c.Of, []uint32{0, 1, 1}) {
		t.Errorf("got %+v and %v, want %+v", got, c.Of, want)
	}
	if got := slices.Collect(c.Members(1)); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("members %v", got)
	}
}

// 100,000 rules as people bring them become as few as can be.
func TestHundredThousandRules(t *testing.T) {
	const n = 100_000
	r := rand.New(rand.NewPCG(7, 8))
	host := func(i int) *ipset.Set {
		a := ipset.From4(10<<24 + uint32(i))
		return ipset.New([]ipset.Range{{First: a, Last: a}})
	}
	hosts := make([]*ipset.Set, n)
	for i := range hosts {
		hosts[i] = host(i)
	}
	ports := []uint16{22, 25, 80, 443}
	tests := map[string]struct {
		rule func(i int) policy.Rule
		want int
	}{
		"one prefix each":      {func(int) policy.Rule { return policy.Rule{To: ipset.New(randomPrefixes(r, 1))} }, 1},
		"one source each":      {func(i int) policy.Rule { return policy.Rule{From: hosts[i]} }, 1},
		"one prefix, one port": {func(i int) policy.Rule { return policy.Rule{To: hosts[i], Services: tcp(443, 443)} }, 1},
		"two ports of each host": {func(i int) policy.Rule {
			return policy.Rule{To: host(i / 2), Services: tcp(ports[2+i%2], ports[2+i%2])}
		}, 1},
		"one list, many ports": {func(i int) policy.Rule { return policy.Rule{To: hosts[0], Services: tcp(uint16(i), uint16(i))} }, 1},
		"ports in no order":    {func(i int) policy.Rule { p := ports[r.IntN(4)]; return policy.Rule{To: hosts[i], Services: tcp(p, p)} }, 4},
		"any port, any of 8 nets": {func(i int) policy.Rule {
			return policy.Rule{To: hosts[r.IntN(8)], Services: tcp(uint16(r.Uint32()), 65535)}
		}, 8},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rules := make([]policy.Rule, n)
			for i := range rules {
				rules[i] = test.rule(i)
				rules[i].Action = verdict.Drop
			}
			c := &mustCompile(t, unnamed(rules...)).Chains[verdict.Egress]
			if len(c.Rules) > test.want {
				t.Errorf("%d rules are left, want %d", len(c.Rules), test.want)
			}
			total := 0
			for i := range c.Rules {
				total += c.Rules[i].Count
			}
			if total != n || c.PolicyRules() != n {
				t.Errorf("the rules stand for %d of %d", total, n)
			}
		})
	}
}

func TestLimitsAfterMerging(t *testing.T) {
	host := func(i int) *ipset.Set {
		a := ipset.From4(uint32(i * 2))
		return ipset.New([]ipset.Range{{First: a, Last: a}})
	}
	// Two rules of a run, then one with a name, again and again.
	mixed := make([]policy.Rule, 3*2600)
	for i := range mixed {
		mixed[i] = policy.Rule{To: host(i), Action: verdict.Drop}
		if i%3 == 2 {
			mixed[i].Name = fmt.Sprint("n", i)
		}
	}
	// Neither ports nor addresses repeat.
	apart := make([]policy.Rule, 5000)
	for i := range apart {
		apart[i] = policy.Rule{To: host(i), Services: tcp(uint16(i*2), uint16(i*2))}
	}
	// Names are never merged.
	byName := make([]policy.Rule, 4097)
	for i := range byName {
		byName[i] = policy.Rule{Domains: domains(fmt.Sprintf("%d.example", i))}
	}
	for name, test := range map[string]struct {
		rules []policy.Rule
		want  string
	}{
		// 4,096 blocks are 2,048 pairs with a name behind each.
		"names between runs": {mixed, "p.yaml:6145:5: egress: 5200 rules remain after merging runs of unnamed rules, at most 4096; put the addresses of rules that are treated alike into a set, or drop names that need no counter of their own"},
		"nothing to merge":   {apart, "p.yaml:4097:5: egress: 5000 rules, at most 4096; put the addresses of rules that are treated alike into a set"},
		"a name each":        {byName, "p.yaml:4097:5: egress: 4097 rules, at most 4096; put the addresses of rules that are treated alike into a set, and their domains into a set of domains"},
	} {
		t.Run(name, func(t *testing.T) {
			set, _, err := Compile(unnamed(test.rules...))
			var limit *LimitError
			if set != nil || !errors.Is(err, ErrTooLarge) || !errors.As(err, &limit) || err.Error() != test.want || limit.Problem.String() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	mixed = mixed[:3*2048]
	if got := len(mustCompile(t, unnamed(mixed...)).Chains[verdict.Egress].Rules); got != tables.MaxRules {
		t.Errorf("%d rules are left, want %d", got, tables.MaxRules)
	}
}

// Gathering changes no verdict: the rule that decides is of the run that the
// walk finds, and stands for one that the packet meets.
func TestGatheredRulesAgreeWithWalk(t *testing.T) {
	gen := oracle.NewGenerator(seed(t))
	gathered := 0
	for range 600 {
		p := gen.PolicyOf(1 + gen.Rand().IntN(60))
		for _, dir := range verdict.Directions {
			rules := p.Chains[dir].Rules
			p.DNS = policy.DNS{} // only the rules are of interest
			for i := range rules {
				rules[i].DropQUIC, rules[i].Verify = false, policy.VerifyNone
			}
			plan := mergeRules(rules, false, 0)
			c := tables.Chain{Default: p.Chains[dir].Default}
			if _, err := compileChain(&c, plan); err != nil {
				t.Fatal(err)
			}
			for i := range plan.blocks {
				if plan.blocks[i].parts != nil {
					gathered++
				}
			}
			for range 100 {
				k := gen.Key(p)
				k.Direction = dir
				if !k.IP || k.Fragment == packet.LaterFragment {
					continue
				}
				st := tables.State{Names: gen.State(p, &k).Names}
				want, got := oracle.Walk(p, &k, st), c.Match(c.Classes(&k, st.Names))
				if (want.Rule == tables.NoRule) != (got.Rule == tables.NoRule) || len(want.Continues) != len(got.Continues) {
					t.Fatalf("walk %+v, tables %+v of %+v", want, got, k)
				}
				if want.Rule == tables.NoRule {
					continue
				}
				i, ok := c.Member(rules, got.Rule, &k, st.Names)
				if !ok || !oracle.Matches(&rules[i], &k, st.Names) || plan.run[got.Rule] != plan.run[c.Of[want.Rule]] || got.Action != want.Action {
					t.Fatalf("walk finds rule %d, the tables %d, which stands for %d: %v; packet %+v", want.Rule, got.Rule, i, ok, k)
				}
			}
		}
	}
	if gathered < 10 {
		t.Errorf("only %d rules were gathered", gathered)
	}
}

package compile

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// domains makes a set of patterns as people write them, in egate's form.
func domains(texts ...string) *domain.Set {
	var patterns []domain.Pattern
	for _, text := range texts {
		name, below := strings.CutPrefix(text, "*.")
		patterns = append(patterns, domain.Pattern{Name: name, Below: below})
	}
	return domain.New(patterns)
}

// pairsOfDomains makes rules whose sets occur alone and in every pair.
func pairsOfDomains(n int) []policy.Rule {
	lists := make([][]string, n)
	for i := range n {
		for j := range i + 1 {
			name := fmt.Sprintf("%d.%d.example", i, j)
			lists[i] = append(lists[i], name)
			if i != j {
				lists[j] = append(lists[j], name)
			}
		}
	}
	rules := make([]policy.Rule, n)
	for i := range rules {
		rules[i].Domains = domains(lists[i]...)
	}
	return rules
}

// matching is the labels of the egress rules that a packet to an address of
// one name meets, as far as names go.
func matching(c *tables.Chain, name string) (labels []string) {
	class, _ := c.Names.Class(name)
	for r := range c.Rules {
		if c.Vectors[tables.Name].Word(class, r/64)>>(r%64)&1 != 0 {
			labels = append(labels, c.Rules[r].Label)
		}
	}
	return labels
}

func TestNamesMeetTheRulesThatListThem(t *testing.T) {
	p := egress(
		policy.Rule{Domains: domains("example.com", "*.cdn.example.com"), Action: verdict.Drop}, // a
		policy.Rule{Domains: domains("*.example.com")},                                          // b
		policy.Rule{}, // c
		policy.Rule{Domains: domains("x.cdn.example.com", "*.com")},          // d
		policy.Rule{Domains: domains("*.cdn.example.com", "example.com")},    // e: as a
		policy.Rule{Domains: domains("only.drop"), Action: verdict.Drop},     // f
		policy.Rule{Domains: domains("*.counted"), Action: verdict.Continue}, // g
	)
	c := &mustCompile(t, p).Chains[verdict.Egress]
	tests := []struct {
		name, rules string
		ask         bool
	}{
		{"example.com", "a c d e", true},
		{"www.example.com", "b c d", true},
		{"deep.www.example.com", "b c d", true},
		{"cdn.example.com", "b c d", true},
		{"y.cdn.example.com", "a b c d e", true},
		{"x.cdn.example.com", "a b c d e", true},
		{"z.x.cdn.example.com", "a b c d e", true},
		{"notexample.com", "c d", true},
		{"com", "c", false},
		{"only.drop", "c f", false},
		{"below.only.drop", "c", false},
		{"counted", "c", false},
		{"a.b.counted", "c g", false},
		{"example.org", "c", false},
		{"", "c", false},
		{".", "c", false},
		{"..com.", "c", false},
	}
	for _, test := range tests {
		if got := strings.Join(matching(c, test.name), " "); got != test.rules {
			t.Errorf("%q meets %s, want %s", test.name, got, test.rules)
		}
		if _, ask := c.Names.Class(test.name); ask != test.ask {
			t.Errorf("%q may be asked for: %v", test.name, ask)
		}
	}
	if !slices.IsSortedFunc(c.Names.Entries, func(a, b tables.NameEntry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("entries are not sorted: %+v", c.Names.Entries)
	}
}

// Each name, and one below it, meets exactly the rules whose sets match it, in
// deep trees of names that many sets share.
func TestNameClassesAgreeWithSets(t *testing.T) {
	r := rand.New(rand.NewPCG(seed(t), 1))
	for range 200 {
		names := []string{"a"}
		for range 1 + r.IntN(60) {
			names = append(names, fmt.Sprintf("%c.%s", 'a'+rune(r.IntN(3)), names[r.IntN(len(names))]))
		}
		var rules []policy.Rule
		for range 1 + r.IntN(90) {
			var patterns []domain.Pattern
			for range r.IntN(6) {
				patterns = append(patterns, domain.Pattern{Name: names[r.IntN(len(names))], Below: r.IntN(2) == 0})
			}
			rules = append(rules, policy.Rule{Name: "x", Domains: domain.New(patterns), Action: verdict.Action(r.IntN(2))})
		}
		c := &mustCompile(t, egress(rules...)).Chains[verdict.Egress]
		for _, name := range names {
			for _, name := range []string{name, "new." + name} {
				class, ask := c.Names.Class(name)
				vector, mayAsk := c.Vector(tables.Name, class), false
				for i := range rules {
					matches := rules[i].Domains.Matches(name)
					mayAsk = mayAsk || matches && rules[i].Action == verdict.Allow
					if got := vector[i/64]>>(i%64)&1 != 0; got != matches {
						t.Fatalf("%s meets rule %d with %v: %v", name, i, rules[i].Domains.Patterns(), got)
					}
				}
				if ask != mayAsk {
					t.Fatalf("%s may be asked for: %v", name, ask)
				}
			}
		}
	}
}

func TestEqualSetsOfDomainsAreOneGroup(t *testing.T) {
	shared := domains("a.example", "*.b.example")
	g := groupNames([]policy.Rule{
		{Domains: shared}, {Domains: domains("*.b.example", "a.example", "a.example")}, {}, {Domains: domains("a.example", "b.example")}, {Domains: shared},
	})
	if want := []int{0, 0, none, 1, 0}; !slices.Equal(g.of, want) {
		t.Errorf("groups %v, want %v", g.of, want)
	}
}

func TestDNSOfTheTables(t *testing.T) {
	server := []netip.Addr{netip.MustParseAddr("10.0.0.53")}
	given := policy.DNS{Given: true, Servers: server, MaxLabel: 20, ListedOnly: true, Elsewhere: verdict.Drop}
	tests := map[string]struct {
		dns   policy.DNS
		rules []policy.Rule
		want  tables.DNS
	}{
		"a policy that says nothing of names": {policy.DNS{MaxLabel: 63}, []policy.Rule{{}}, tables.DNS{}},
		"the section":                         {given, nil, tables.DNS{DNS: given, InUse: true}},
		"a rule with domains":                 {policy.DNS{}, []policy.Rule{{Domains: domains("a.example")}}, tables.DNS{DNS: policy.DNS{MaxLabel: 63}, InUse: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := egress(test.rules...)
			p.DNS = test.dns
			if got := mustCompile(t, p).DNS; !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestRulesTellWhatTheyWantOfNames(t *testing.T) {
	set := mustCompile(t, egress(
		policy.Rule{}, policy.Rule{Domains: domains("a.example"), Verify: policy.VerifyAll, DropECH: true, DropQUIC: true},
	))
	rules := set.Chains[verdict.Egress].Rules
	if r := rules[0]; r.Named || r.Verify != policy.VerifyNone || r.DropECH || r.DropQUIC {
		t.Errorf("rule without names: %+v", r)
	}
	if r := rules[1]; !r.Named || r.Verify != policy.VerifyAll || !r.DropECH || !r.DropQUIC {
		t.Errorf("rule with names: %+v", r)
	}
}

// Names don't hide rules that ask for others, and rules with names none
// without; the exact searches are in unreachable_test.go.
func TestUnreachableRulesWithNames(t *testing.T) {
	type rule = policy.Rule
	everywhere := prefixes("0.0.0.0/0", "::/0")
	tests := map[string]struct {
		rules []rule
		want  policy.Problems
	}{
		"the same names": {
			[]rule{{Domains: domains("a.example")}, {Domains: domains("a.example"), Services: tcp(443, 443)}},
			policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a name below a wildcard": {
			[]rule{{Domains: domains("*.example")}, {Domains: domains("x.a.example", "*.b.example")}},
			policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a rule without names goes first": {
			[]rule{{Services: tcp(443, 443)}, {Domains: domains("a.example"), Services: tcp(443, 443)}},
			policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"names one by one": {
			[]rule{{Domains: domains("a.example")}, {Domains: domains("b.example")}, {Domains: domains("b.example", "a.example")}},
			policy.Problems{warn("c", 3, `rules "a" (line 1) and "b" (line 2) together take all its packets`)},
		},
		"all addresses go first": {
			[]rule{{To: everywhere}, {Domains: domains("a.example")}},
			policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"an empty list": {
			[]rule{{Domains: domains()}},
			policy.Problems{warn("a", 1, "nothing is left of its name")},
		},
		"other names":                    {rules: []rule{{Domains: domains("a.example")}, {Domains: domains("b.example")}}},
		"the name itself":                {rules: []rule{{Domains: domains("*.a.example")}, {Domains: domains("a.example")}}},
		"names below":                    {rules: []rule{{Domains: domains("a.example")}, {Domains: domains("*.a.example")}}},
		"a rule without names goes last": {rules: []rule{{Domains: domains("*.example")}, {}}},
		"a wildcard in pieces":           {rules: []rule{{Domains: domains("a.example", "*.a.example")}, {Domains: domains("*.example")}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, got, err := Compile(egress(test.rules...))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}

// What large chains are warned of holds for names as well.
func TestNamesInLargeChains(t *testing.T) {
	var rules []policy.Rule
	for i := range maxSearched + 2 {
		rules = append(rules, policy.Rule{Action: verdict.Drop, To: ipset.New([]ipset.Range{{First: ipset.From4(uint32(2 * i)), Last: ipset.From4(uint32(2 * i))}})})
	}
	rules = append(rules,
		policy.Rule{Name: "cdn", Domains: domains("*.example"), Services: tcp(443, 443)},
		policy.Rule{Domains: domains("a.example"), Services: tcp(443, 443)},
		policy.Rule{Domains: domains("a.example"), Services: tcp(80, 80)},
		policy.Rule{Domains: domains("example"), Services: tcp(443, 443)},
	)
	_, got, err := Compile(unnamed(rules...))
	if err != nil {
		t.Fatal(err)
	}
	line := maxSearched + 3
	checkWarnings(t, got, []string{fmt.Sprintf(
		`p.yaml:%d:5: warning: rule #%d can never match: rule "cdn" (line %d) takes all its packets`, line+1, line+1, line)})
}

func TestNameWarnings(t *testing.T) {
	type rule = policy.Rule
	a, sni := domains("a.example"), policy.VerifyWellKnown
	https := slices.Concat(tcp(443, 443), udp(443, 443))
	const quic = `p.yaml:1:5: warning: rule "a" lets QUIC (udp/443) to the addresses of its names pass unverified; "quic: drop" makes clients fall back to TCP`
	late := func(line int, rule string) string {
		return fmt.Sprintf(`p.yaml:%d:5: warning: rule %q comes behind rule "a" (line 1), which allows some of its packets to any address whatever its name; put it before that rule`, line, rule)
	}
	tests := map[string]struct {
		rules []rule
		want  []string
	}{
		"udp/443":             {[]rule{{Domains: a, Verify: sni, Services: https}}, []string{quic}},
		"every port":          {[]rule{{Domains: a, Verify: policy.VerifyAll}}, []string{quic}},
		"all of UDP":          {[]rule{{Domains: a, Verify: sni, Services: whole(packet.ProtoUDP)}}, []string{quic}},
		"quic: drop":          {[]rule{{Domains: a, Verify: sni, Services: https, DropQUIC: true}}, nil},
		"nothing is verified": {[]rule{{Domains: a, Services: https}}, nil},
		"TCP alone":           {[]rule{{Domains: a, Verify: sni, Services: tcp(443, 443)}}, nil},
		"no names":            {[]rule{{Services: https}}, nil},

		"drop behind ports":                {[]rule{{Services: tcp(443, 443)}, {Action: verdict.Drop, Domains: a}}, []string{late(2, "b")}},
		"reject behind some of its ports":  {[]rule{{Services: tcp(443, 443)}, {Action: verdict.Reject, Domains: a, Services: tcp(80, 8080)}}, []string{late(2, "b")}},
		"drop behind a family":             {[]rule{{To: prefixes("::/0"), Services: tcp(443, 443)}, {Action: verdict.Drop, Domains: a}}, []string{late(2, "b")}},
		"drop behind other ports":          {[]rule{{Services: tcp(443, 443)}, {Action: verdict.Drop, Domains: a, Services: tcp(80, 80)}}, nil},
		"drop behind chosen destinations":  {[]rule{{To: prefixes("10.0.0.0/8")}, {Action: verdict.Drop, Domains: a}}, nil},
		"drop behind chosen senders":       {[]rule{{From: prefixes("10.0.0.0/8")}, {Action: verdict.Drop, Domains: a}}, nil},
		"drop behind an allow with names":  {[]rule{{Domains: a, Services: tcp(443, 443)}, {Action: verdict.Drop, Domains: domains("*.example")}}, nil},
		"drop before the allow":            {[]rule{{Action: verdict.Drop, Domains: a}, {Services: tcp(443, 443)}}, nil},
		"addresses dropped behind ports":   {[]rule{{Services: tcp(443, 443)}, {Action: verdict.Drop, To: prefixes("10.0.0.0/8")}}, nil},
		"continue behind ports is counted": {[]rule{{Services: tcp(443, 443)}, {Action: verdict.Continue, Domains: a}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, got, err := Compile(egress(test.rules...))
			if err != nil {
				t.Fatal(err)
			}
			checkWarnings(t, got, test.want)
		})
	}
}

func TestNameWarningsAreBounded(t *testing.T) {
	rules := []policy.Rule{{Name: "web", Services: tcp(443, 443)}}
	for i := range 100 {
		rules = append(rules, policy.Rule{Name: fmt.Sprint(i), Action: verdict.Drop, Domains: domains(fmt.Sprintf("%d.example", i))})
	}
	_, got, err := Compile(egress(rules...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != maxWarnings+1 || got[maxWarnings].Message != "80 more such warnings from here on" {
		t.Errorf("%d warnings, the last %v", len(got), got[len(got)-1])
	}
}

func TestListedNamesWithoutAny(t *testing.T) {
	const want = `warning: "names: listed" under dns refuses every question, because no allow rule of egress has domains`
	warned := func(p *policy.Policy) bool {
		_, got, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(got, func(w policy.Problem) bool { return strings.HasSuffix(w.String(), want) })
	}
	for name, test := range map[string]struct {
		rule   policy.Rule
		listed bool
		want   bool
	}{
		"no names":         {policy.Rule{}, true, true},
		"names are barred": {policy.Rule{Action: verdict.Drop, Domains: domains("a.example")}, true, true},
		"an empty list":    {policy.Rule{Domains: domains()}, true, true},
		"names":            {policy.Rule{Domains: domains("a.example")}, true, false},
		"names: any":       {policy.Rule{}, false, false},
	} {
		p := egress(test.rule)
		p.DNS = policy.DNS{Given: true, ListedOnly: test.listed}
		if warned(p) != test.want {
			t.Errorf("%s: warned %v", name, warned(p))
		}
	}
}

// manyNames is a block list: names of two to four labels.
func manyNames(n int) *domain.Set {
	r := rand.New(rand.NewPCG(1, 2))
	patterns := make([]domain.Pattern, n)
	for i := range patterns {
		name := fmt.Sprintf("host%d.example%d.%s", r.IntN(n), r.IntN(n/4+1), []string{"com", "net", "org"}[r.IntN(3)])
		if r.IntN(2) == 0 {
			_, name, _ = strings.Cut(name, ".")
		}
		patterns[i] = domain.Pattern{Name: name, Below: r.IntN(2) == 0}
	}
	return domain.New(patterns)
}

// 100,000 names in a block list, beside rules that allow some, compile in a
// fraction of a second; the bound leaves room for busy machines.
func TestHundredThousandNames(t *testing.T) {
	p := egress(
		policy.Rule{Action: verdict.Drop, Domains: manyNames(100_000)},
		policy.Rule{Domains: domains("*.com", "host1.example1.net")},
		policy.Rule{Services: tcp(443, 443)},
	)
	start := time.Now()
	set := mustCompile(t, p)
	took := time.Since(start)
	c := &set.Chains[verdict.Egress]
	t.Logf("%d entries, %d classes in %s", len(c.Names.Entries), c.ClassCount(tables.Name), took)
	if took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	if n := c.ClassCount(tables.Name); n != 4 {
		t.Errorf("%d classes, want 4: neither rule, one, the other, both", n)
	}
}

func BenchmarkCompileNames(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		p := egress(policy.Rule{Action: verdict.Drop, Domains: manyNames(n)}, policy.Rule{Domains: domains("*.com")})
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				mustCompile(b, p)
			}
		})
	}
}

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

func prefixes(texts ...string) *ipset.Set {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return ipset.Of(out...)
}

func tcp(first, last uint16) []policy.Service {
	return []policy.Service{{Proto: packet.ProtoTCP, First: first, Last: last}}
}

func udp(first, last uint16) []policy.Service {
	return []policy.Service{{Proto: packet.ProtoUDP, First: first, Last: last}}
}

func whole(protos ...uint8) []policy.Service {
	var out []policy.Service
	for _, p := range protos {
		out = append(out, policy.Service{Proto: p, Whole: true})
	}
	return out
}

// egress makes a policy of rules that are named a, b, c, ... where they have
// no name, and stand in lines 1, 2, 3, ...
func egress(rules ...policy.Rule) *policy.Policy {
	p := &policy.Policy{Name: "test", MaxFlows: policy.DefaultFlows}
	for i := range rules {
		if rules[i].Name == "" {
			rules[i].Name = string(rune('a' + i))
		}
		rules[i].Pos = policy.Pos{File: "p.yaml", Line: i + 1, Column: 5}
	}
	p.Chains[verdict.Egress] = policy.Chain{Default: verdict.Drop, Rules: rules}
	return p
}

func warn(rule string, line int, why string) policy.Problem {
	return policy.Problem{
		Pos:      policy.Pos{File: "p.yaml", Line: line, Column: 5},
		Severity: policy.Warning,
		Message:  fmt.Sprintf("rule %q can never match: %s", rule, why),
	}
}

func TestUnreachableRules(t *testing.T) {
	any := prefixes("0.0.0.0/0", "::/0")
	type rule = policy.Rule
	tests := map[string]struct {
		rules []rule
		want  policy.Problems
	}{
		"a rule that takes everything": {
			rules: []rule{{}, {To: prefixes("10.0.0.0/8")}, {Services: tcp(1, 1)}},
			want: policy.Problems{
				warn("b", 2, `rule "a" (line 1) takes all its packets`),
				warn("c", 3, `rule "a" (line 1) takes all its packets`),
			},
		},
		"a continue rule takes nothing": {
			rules: []rule{{Action: verdict.Continue}, {To: prefixes("10.0.0.0/8")}},
		},
		"a continue rule can be unreachable too": {
			rules: []rule{{To: prefixes("10.0.0.0/8")}, {Action: verdict.Continue, To: prefixes("10.1.0.0/16")}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a later rule takes nothing": {
			rules: []rule{{To: prefixes("10.1.0.0/16")}, {To: prefixes("10.0.0.0/8")}},
		},
		"every dimension must be covered": {
			rules: []rule{
				{To: prefixes("10.0.0.0/8"), Services: tcp(80, 80)},
				{To: prefixes("10.1.0.0/16"), Services: tcp(80, 81)},
				{To: prefixes("10.1.0.0/16"), Services: tcp(80, 80)},
			},
			want: policy.Problems{warn("c", 3, `rule "a" (line 1) takes all its packets`)},
		},
		"two halves together": {
			rules: []rule{{To: prefixes("10.0.0.0/9")}, {To: prefixes("10.128.0.0/9")}, {To: prefixes("10.0.0.0/8")}},
			want:  policy.Problems{warn("c", 3, `rules "a" (line 1) and "b" (line 2) together take all its packets`)},
		},
		"five fifths together": {
			rules: []rule{
				{Services: tcp(10, 11)}, {Services: tcp(12, 13)}, {Services: tcp(14, 15)}, {Services: tcp(16, 17)},
				{Services: tcp(18, 19)}, {Services: tcp(10, 19)},
			},
			want: policy.Problems{warn("f", 6, `rules "a" (line 1), "b" (line 2), "c" (line 3) and 2 more together take all its packets`)},
		},
		"all ports are not the whole protocol": {
			rules: []rule{{Services: tcp(0, 65535)}, {Services: whole(6)}},
		},
		"the whole protocol has all ports": {
			rules: []rule{{Services: whole(6)}, {Services: tcp(0, 65535)}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"all addresses are not all packets: a source route hides the destination": {
			rules: []rule{{To: any}, {Services: tcp(80, 80)}},
		},
		"all addresses and the ports of it": {
			rules: []rule{{To: any}, {Services: tcp(80, 80), To: prefixes("2001:db8::/32")}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a packet whose ports were read has a source": {
			rules: []rule{{From: any}, {Services: tcp(80, 80)}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a packet of which nothing was read has none": {
			rules: []rule{{From: any}, {}},
		},
		"all protocols are not all packets: extension headers hide it": {
			rules: []rule{{Services: allProtocols()}, {}},
		},
		"nor beside source ports": {
			rules: []rule{{Services: allProtocols()}, {SourcePorts: udp(1, 2)}, {}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"unreadable ports beside source ports": {
			rules: []rule{{SourcePorts: udp(1, 2)}, {Services: tcp(0, 65535)}, {Services: whole(6)}},
		},
		"all addresses of both ends": {
			rules: []rule{{From: any}, {To: any}, {}},
			want:  policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"an empty set": {
			rules: []rule{{To: ipset.New(nil)}, {From: ipset.New(nil)}},
			want: policy.Problems{
				warn("a", 1, "nothing is left of its destination"),
				warn("b", 2, "nothing is left of its source"),
			},
		},
		"an IPv4 source and an IPv6 destination": {
			rules: []rule{{From: prefixes("10.0.0.0/8"), To: prefixes("2001:db8::/32")}},
			want:  policy.Problems{warn("a", 1, "no packet can meet all its conditions")},
		},
		"ports of two protocols": {
			rules: []rule{{Services: tcp(80, 80), SourcePorts: udp(1, 2)}},
			want:  policy.Problems{warn("a", 1, "no packet can meet all its conditions")},
		},
		"what no packet can be is not missed": {
			// b would be left for UDP to a TCP port if that existed.
			rules: []rule{
				{Services: whole(6)},
				{Services: slices.Concat(tcp(80, 80), udp(53, 53)), SourcePorts: tcp(1, 9)},
			},
			want: policy.Problems{warn("b", 2, `rule "a" (line 1) takes all its packets`)},
		},
		"a rule without a name": {
			rules: []rule{{}, {Name: "#"}},
			want:  policy.Problems{warn("#", 2, `rule "a" (line 1) takes all its packets`)},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, got, err := Compile(egress(test.rules...))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q\nwant %q", got, test.want)
			}
		})
	}
}

func allProtocols() (out []policy.Service) {
	for p := range 256 {
		out = append(out, policy.Service{Proto: uint8(p), Whole: true})
	}
	return out
}

func TestUnnamedRulesAreCalledByTheirPlace(t *testing.T) {
	p := egress(policy.Rule{}, policy.Rule{})
	for i := range p.Chains[verdict.Egress].Rules {
		p.Chains[verdict.Egress].Rules[i].Name = ""
	}
	_, got, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if want := "p.yaml:2:5: warning: rule #2 can never match: rule #1 (line 1) takes all its packets"; got.Error() != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Warnings are held against every packet that stands for one of the classes
// that the model's boundaries cut out: a rule is warned of exactly if the walk
// gives it no packet.
func TestWarningsAreExact(t *testing.T) {
	gen := oracle.NewGenerator(seed(t))
	warned, rules := 0, 0
	for range 60 {
		p := gen.PolicyOf(1 + gen.Rand().IntN(7))
		_, problems, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range verdict.Directions {
			chain := &p.Chains[dir]
			met := rulesMet(p, dir)
			for i := range chain.Rules {
				r := &chain.Rules[i]
				isWarned := slices.ContainsFunc(problems, func(w policy.Problem) bool {
					return w.Pos == r.Pos && strings.Contains(w.Message, "can never match")
				})
				rules++
				if isWarned {
					warned++
				}
				if isWarned == met[i] {
					t.Fatalf("%s rule %d: warned %v, but a packet meets it: %v\nrules %+v\nproblems %v", dir, i, isWarned, met[i], chain.Rules, problems)
				}
			}
		}
	}
	t.Logf("%d of %d rules can never match", warned, rules)
	if warned == 0 || warned == rules {
		t.Error("the random policies prove nothing")
	}
}

// rulesMet walks the policy with one packet for every combination of places
// between boundaries, and tells which rules one of them reaches.
func rulesMet(p *policy.Policy, dir verdict.Direction) []bool {
	rules := p.Chains[dir].Rules
	met := make([]bool, len(rules))
	try := func(k packet.Key, names ...string) {
		k.Direction, k.IP = dir, true
		for i := range rules {
			if oracle.Matches(&rules[i], &k, names) {
				met[i] = true
				if rules[i].Action.Decides() {
					return
				}
			}
		}
	}
	to, from := []ipset.Addr{}, []ipset.Addr{}
	selectors, ports := map[uint8][]uint16{}, map[uint8][]uint16{}
	protos := []uint8{253}
	var names []string
	for i := range rules {
		to = append(to, starts(rules[i].To)...)
		from = append(from, starts(rules[i].From)...)
		protos = append(protos, selectorStarts(rules[i].Services, selectors)...)
		protos = append(protos, selectorStarts(rules[i].SourcePorts, ports)...)
		if rules[i].Domains != nil {
			for _, p := range rules[i].Domains.Patterns() {
				names = append(names, p.Name, "below."+p.Name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	dedupeAddresses(&to)
	dedupeAddresses(&from)
	slices.Sort(protos)
	protos = slices.Compact(protos)

	type transport struct {
		have         packet.Have
		proto        uint8
		service, src uint16
	}
	transports := []transport{{}}
	for _, proto := range protos {
		transports = append(transports, transport{have: packet.HaveProto, proto: proto})
		for _, s := range distinct(selectors[proto]) {
			for _, q := range distinct(ports[proto]) {
				transports = append(transports, transport{packet.HaveProto | packet.HaveTransport, proto, s, q})
			}
		}
	}
	try(packet.Key{})
	for _, src := range from {
		for _, x := range transports {
			k := packet.Key{Src: src, Proto: x.proto, Selector: x.service, SourcePort: x.src}
			k.Have = x.have | packet.HaveSrc
			try(k)
			k.Have |= packet.HaveDst
			for _, dst := range to {
				if k.Dst = dst; dst.Is4() != src.Is4() {
					continue
				}
				try(k)
				for i, name := range names {
					try(k, name)
					try(k, name, names[(i+1)%len(names)])
				}
			}
		}
	}
	return met
}

// starts gives the first address of every stretch that a set cuts out, and one
// of each family.
func starts(s *ipset.Set) []ipset.Addr {
	out := []ipset.Addr{{}, ipset.From4(0), ipset.From4(^uint32(0)).Next()}
	if s != nil {
		for _, r := range s.Ranges() {
			out = append(out, r.First, r.Last.Next())
		}
	}
	return out
}

func dedupeAddresses(list *[]ipset.Addr) {
	slices.SortFunc(*list, ipset.Addr.Compare)
	*list = slices.Compact(*list)
}

func selectorStarts(list []policy.Service, out map[uint8][]uint16) (protos []uint8) {
	for _, s := range list {
		protos = append(protos, s.Proto)
		if !s.Whole {
			out[s.Proto] = append(out[s.Proto], s.First, s.Last+1)
		}
	}
	return protos
}

func distinct(list []uint16) []uint16 {
	list = append([]uint16{0}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

// Without a budget, the warnings that remain are those of rules that ask for
// the same as an earlier one, or for more.
func TestSearchWithoutBudget(t *testing.T) {
	p := egress(
		policy.Rule{To: prefixes("10.0.0.0/8")},
		policy.Rule{To: prefixes("10.1.0.0/16")}, // only the classes tell
		policy.Rule{To: prefixes("10.0.0.0/8"), Services: tcp(80, 80)},
	)
	c := &mustCompile(t, p).Chains[verdict.Egress]
	rules := p.Chains[verdict.Egress].Rules
	dims, err := compileChain(&tables.Chain{}, mergeRules(rules, false, tables.MaxRules))
	if err != nil {
		t.Fatal(err)
	}
	s := newSearch(c, dims)
	s.budget = 0
	got := []string{s.explain(0, 0), s.explain(1, 1), s.explain(2, 2)}
	if want := []string{"", "", `rule "a" (line 1) takes all its packets`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// 4,096 rules that overlap in all dimensions are searched in bounded time.
func TestSearchIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles 4,096 rules that overlap in all dimensions")
	}
	gen := oracle.NewGenerator(11)
	var rules []policy.Rule
	for i := range tables.MaxRules - 1 {
		port := uint16(gen.Rand().Uint32())
		rules = append(rules, policy.Rule{
			Name:        fmt.Sprint(i),
			To:          ipset.New([]ipset.Range{{First: ipset.From4(uint32(i) << 16), Last: ipset.From4(uint32(i+40) << 16)}}),
			From:        ipset.New([]ipset.Range{{First: ipset.From4(uint32(i) << 16), Last: ipset.From4(uint32(i+40) << 16)}}),
			Services:    tcp(port, port|0x3ff),
			SourcePorts: tcp(port&^0x3ff, port),
		})
	}
	rules = append(rules, rules[2])
	start := time.Now()
	_, got, err := Compile(egress(rules...))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("compiled in %s", took)
	if took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if !slices.ContainsFunc(got, func(w policy.Problem) bool { return w.Pos.Line == tables.MaxRules }) {
		t.Errorf("no warning of the rule that repeats another: %q", got)
	}
}

package compile

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// copyOf gives a policy that is equal and shares no set or list with p.
func copyOf(p *policy.Policy) *policy.Policy {
	out := *p
	out.DNS.Servers = slices.Clone(p.DNS.Servers)
	set := func(s *ipset.Set) *ipset.Set {
		if s == nil {
			return nil
		}
		return ipset.New(slices.Clone(s.Ranges()))
	}
	for d := range out.Chains {
		out.Chains[d].Rules = slices.Clone(out.Chains[d].Rules)
		for i := range out.Chains[d].Rules {
			r := &out.Chains[d].Rules[i]
			r.To, r.From = set(r.To), set(r.From)
			r.Services, r.SourcePorts = slices.Clone(r.Services), slices.Clone(r.SourcePorts)
			if r.Domains != nil {
				r.Domains = domain.New(slices.Clone(r.Domains.Patterns()))
			}
		}
	}
	return &out
}

func TestEqualPoliciesGiveEqualTables(t *testing.T) {
	gen := oracle.NewGenerator(seed(t))
	for _, rules := range []int{0, 1, 5, 40, 200, 600} {
		p := gen.PolicyOf(rules)
		set, problems, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			q := p
			if i%2 == 1 {
				q = copyOf(p)
			}
			again, warnings, err := Compile(q)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again, set) {
				t.Fatalf("%d rules: compilation %d gives other tables", rules, i)
			}
			if !slices.Equal(problems, warnings) {
				t.Fatalf("%d rules: compilation %d gives other warnings:\n%v\nfirst\n%v", rules, i, warnings, problems)
			}
		}
	}
}

func TestListsThatMatchTheSameAreOneGroup(t *testing.T) {
	for name, lists := range map[string][2][]policy.Service{
		"order":             {slices.Concat(tcp(1, 2), udp(3, 4)), slices.Concat(udp(3, 4), tcp(1, 2))},
		"ranges that touch": {slices.Concat(tcp(1, 2), tcp(3, 4)), tcp(1, 4)},
		"overlap":           {slices.Concat(tcp(1, 9), tcp(3, 4)), tcp(1, 9)},
		"the last port":     {slices.Concat(tcp(1, 65535), tcp(65535, 65535)), tcp(1, 65535)},
		"whole protocol":    {slices.Concat(tcp(1, 9), whole(6)), []policy.Service{{Proto: 6, Whole: true, First: 7, Last: 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := groupServices([]policy.Rule{{Services: lists[0]}, {Services: lists[1]}}, tables.Service)
			if len(g.lists) != 1 {
				t.Errorf("got %d groups: %+v", len(g.lists), g.lists)
			}
		})
	}
}

func TestTablesShareNothingWithThePolicy(t *testing.T) {
	p := oracle.NewGenerator(1).PolicyOf(30)
	p.DNS = policy.DNS{Given: true, Servers: []netip.Addr{netip.MustParseAddr("10.0.0.53")}}
	set := mustCompile(t, p)
	want := mustCompile(t, copyOf(p))
	p.Interfaces[0] = "other"
	for i := range p.DNS.Servers {
		p.DNS.Servers[i] = netip.IPv6Loopback()
	}
	for d := range p.Chains {
		for i := range p.Chains[d].Rules {
			p.Chains[d].Rules[i] = policy.Rule{Name: "other"}
		}
	}
	if !reflect.DeepEqual(set, want) {
		t.Error("a change of the policy changed the tables")
	}
}

func TestTrackFollowsTheOppositeChain(t *testing.T) {
	tests := []struct {
		name    string
		egress  policy.Chain
		ingress policy.Chain
		want    [2]bool // egress, ingress
	}{
		{"drop with replies", policy.Chain{Default: verdict.Drop, Replies: true}, policy.Chain{}, [2]bool{false, true}},
		{"reject with replies", policy.Chain{}, policy.Chain{Default: verdict.Reject, Replies: true}, [2]bool{true, false}},
		{"drop without replies", policy.Chain{Default: verdict.Drop}, policy.Chain{Replies: true}, [2]bool{}},
		{"allow needs no memory", policy.Chain{Replies: true}, policy.Chain{Replies: true}, [2]bool{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := mustCompile(t, &policy.Policy{Chains: [2]policy.Chain{test.egress, test.ingress}})
			if got := [2]bool{set.Chains[0].Track, set.Chains[1].Track}; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestOnlyWhatIsAskedIsUsed(t *testing.T) {
	set := mustCompile(t, egress(policy.Rule{From: prefixes("10.0.0.0/8")}, policy.Rule{SourcePorts: tcp(1, 2)}))
	c := &set.Chains[verdict.Egress]
	if want := [tables.DimensionCount]bool{tables.Source: true, tables.SourcePort: true}; c.Used != want {
		t.Errorf("used %v, want %v", c.Used, want)
	}
	for _, d := range []tables.Dimension{tables.Destination, tables.Service} {
		if c.Vectors[d].Words != nil {
			t.Errorf("%s has vectors", d)
		}
	}
}

func TestRefusals(t *testing.T) {
	rules := func(n int, r policy.Rule) []policy.Rule { return slices.Repeat([]policy.Rule{r}, n) }
	tests := map[string]struct {
		policy *policy.Policy
		is     error
		want   string
	}{
		"too many rules": {
			egress(rules(policy.MaxRules+1, policy.Rule{})...), ErrTooLarge,
			"compile egress rules: 1000001 rules, at most 1000000; put the addresses of rules that are treated alike into a set",
		},
		"too many rules with a name": {
			egress(rules(tables.MaxRules+2, policy.Rule{Name: "same"})...), ErrTooLarge,
			"p.yaml:4097:5: egress: 4098 rules, at most 4096; put the addresses of rules that are treated alike into a set, or drop names that need no counter of their own",
		},
		"too many continue rules": {
			egress(rules(policy.MaxContinueRules+1, policy.Rule{Action: verdict.Continue})...), ErrTooLarge,
			"65 continue rules, at most 64",
		},
		"too many classes of addresses": {
			egress(pairsOfRanges(370)...), ErrTooLarge,
			"compile egress rules: destination: the rules tell more than 65536 classes apart, because many of their elements overlap; use fewer rules, or sets that do not overlap",
		},
		"too many classes of ports": {
			egress(onePortEach(17)...), ErrTooLarge,
			"compile egress rules: service: the rules tell more than 65536 classes apart",
		},
		"a default that decides nothing": {
			&policy.Policy{Chains: [2]policy.Chain{{Default: verdict.Continue}}}, ErrModel,
			"compile egress rules: default continue does not decide",
		},
		"an unknown action": {
			&policy.Policy{Chains: [2]policy.Chain{{}, {Rules: []policy.Rule{{Action: 7}}}}}, ErrModel,
			"compile ingress rule #1: unknown action(7)",
		},
		"ports that run backwards": {
			egress(policy.Rule{SourcePorts: tcp(9, 8)}), ErrModel,
			"compile egress rule a: selectors 9-8 run backwards",
		},
		"names of what comes in": {
			&policy.Policy{Chains: [2]policy.Chain{{}, {Rules: []policy.Rule{{Domains: domains("a.example")}}}}}, ErrModel,
			"compile ingress rule #1: it lists names, which only destinations have",
		},
		"names verified of a rule without": {
			egress(policy.Rule{Verify: policy.VerifyAll}), ErrModel,
			"compile egress rule a: it verifies names but lists none",
		},
		"names verified of what is dropped": {
			egress(policy.Rule{Action: verdict.Drop, Domains: domains("a.example"), DropQUIC: true}), ErrModel,
			"compile egress rule a: it verifies names but lets no connection begin",
		},
		"an unknown way to verify": {
			egress(policy.Rule{Domains: domains("a.example"), Verify: 3}), ErrModel,
			"compile egress rule a: unknown way 3 to verify names",
		},
		"a domain that is none": {
			egress(policy.Rule{Domains: domain.New([]domain.Pattern{{Below: true}})}), ErrModel,
			"compile egress rule a: \"*.\" is no domain",
		},
		"more combinations of names than classes": {
			egress(pairsOfDomains(400)...), ErrTooLarge,
			"compile egress rules: name: the rules tell more than 65536 classes apart",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set, _, err := Compile(test.policy)
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.is) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if set != nil {
				t.Error("tables beside an error")
			}
		})
	}
}

// pairsOfRanges makes rules whose sets occur alone and in every pair: n(n+1)/2
// combinations.
func pairsOfRanges(n int) []policy.Rule {
	ranges := make([][]ipset.Range, n)
	at := uint32(0)
	for i := range n {
		for j := range i + 1 {
			one := ipset.Range{First: ipset.From4(at), Last: ipset.From4(at)}
			ranges[i] = append(ranges[i], one)
			if i != j {
				ranges[j] = append(ranges[j], one)
			}
			at += 2
		}
	}
	rules := make([]policy.Rule, n)
	for i := range rules {
		rules[i].To = ipset.New(ranges[i])
	}
	return rules
}

// onePortEach makes n rules, rule i with the ports that have bit i set, so that
// every port of TCP, and of UDP beside one more rule, is a class of its own.
func onePortEach(n int) []policy.Rule {
	rules := make([]policy.Rule, n)
	for i := range n - 1 {
		for port := range 1 << 16 {
			if port>>i&1 != 0 {
				rules[i].Services = append(rules[i].Services, policy.Service{Proto: packet.ProtoTCP, First: uint16(port), Last: uint16(port)})
				rules[i].Services = append(rules[i].Services, policy.Service{Proto: packet.ProtoUDP, First: uint16(port), Last: uint16(port)})
			}
		}
	}
	rules[n-1].Services = whole(packet.ProtoUDP)
	return rules
}

func TestCombinationsOfOneHashAreTwoClasses(t *testing.T) {
	g := newGrouping(2)
	g.add(0)
	g.add(1)
	d := newDimension(g)
	a, b := newCombination(2), newCombination(2)
	a.flip(0)
	b.flip(1)
	b.hash = a.hash
	for range 2 {
		for want, c := range []*combination{&a, &b} {
			if got, err := d.class(c); err != nil || int(got) != want+1 {
				t.Errorf("class %d, error %v, want %d", got, err, want+1)
			}
		}
	}
}

package policy

import (
	"iter"
	"slices"

	"go.yaml.in/yaml/v3"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/verdict"
)

// policy reads the whole of a file.
func (r *reader) policy(root *yaml.Node) *Policy {
	if !r.fits(root, root, "a policy", &shape{kind: section, what: "a mapping"}) {
		return nil
	}
	v := r.read(root, policyKeys, "the policy")
	r.number(v, policyKeys, "version")
	p := &Policy{
		Name:       r.name(v.value["name"], "name"),
		Interfaces: r.interfaces(v),
		Audit:      r.word(v, policyKeys, "mode") == "audit",
		MaxFlows:   DefaultFlows,
	}
	if n := v.value["flows"]; n != nil {
		if flows, ok := r.number(r.read(n, flowsKeys, "flows"), flowsKeys, "max"); ok {
			p.MaxFlows = uint32(flows)
		}
	}
	r.readSets(v.value["sets"])
	dns, dnsValues := r.dns(v.value["dns"])
	p.DNS = dns
	for _, d := range verdict.Directions {
		p.Chains[d] = r.chain(root, v.value[d.String()], d)
	}
	r.warnDNS(p, dnsValues)
	r.warnUnusedSets(v.value["sets"])
	return p
}

// chain reads one direction; n is nil where the file does not have it.
func (r *reader) chain(root, n *yaml.Node, d verdict.Direction) Chain {
	c := Chain{Default: verdict.Allow, Replies: true, Events: NoEvents, Pos: Pos{File: r.file}}
	if n == nil {
		return c
	}
	for i := 0; i < len(root.Content); i += 2 {
		if root.Content[i].Value == d.String() {
			c.Pos = r.pos(root.Content[i])
			break
		}
	}
	v := r.read(n, chainKeys, d.String())
	c.Default = action(r.word(v, chainKeys, "default"))
	c.Replies = r.boolean(v, "replies", true)
	c.Events = r.events(v.value["events"], c.Default)
	names := map[string]int{}
	continues := 0
	var coverage icmpCoverage
	nodes, count := r.ruleNodes(v)
	c.Rules = slices.Grow(c.Rules, min(count, MaxRules))
	if count > MaxRules {
		r.report(r.ruleAt(v, MaxRules), Error, "%v has %d rules; a direction has at most %d, and any number of addresses in each", d, count, MaxRules)
		return c
	}
	for node := range nodes {
		rule := r.rule(node, d, names, &coverage)
		if rule.Action == verdict.Continue {
			if continues++; continues == MaxContinueRules+1 {
				r.errorAt(node, "%v has more than %d rules with the action continue", d, MaxContinueRules)
			}
		}
		c.Rules = append(c.Rules, rule)
	}
	coverage.warn(r, d)
	return c
}

// ruleNodes gives the nodes of a chain's rules, and how many there are.
func (r *reader) ruleNodes(v values) (nodes iter.Seq[*yaml.Node], count int) {
	s := r.streams[v.value["rules"]]
	if s == nil {
		return slices.Values(v.list["rules"]), len(v.list["rules"])
	}
	s.wanted = true
	of := chainKeys.find("rules").shape.of
	return func(yield func(*yaml.Node) bool) {
		const depth = 4 // the policy, the chain, the list
		err := elementsOf(s, r.lines, func(n *yaml.Node) bool {
			r.checkPlain(n, depth)
			return !r.fits(n, n, "an element of rules", of) || yield(n)
		})
		if err != nil {
			r.cannotCut(err)
		}
	}, s.elements
}

// ruleAt is the place of one of a chain's rules.
func (r *reader) ruleAt(v values, i int) Pos {
	if s := r.streams[v.value["rules"]]; s != nil {
		return Pos{r.file, s.lineOf(i, r.lines), s.indent + len("- ") + 1}
	}
	return r.pos(v.list["rules"][i])
}

// action is the action of a word that was checked.
func action(word string) verdict.Action {
	for a := verdict.Allow; a <= verdict.Continue; a++ {
		if a.String() == word {
			return a
		}
	}
	return verdict.Allow
}

// rule reads one rule of a direction; names holds those of the rules before,
// with their lines.
func (r *reader) rule(n *yaml.Node, d verdict.Direction, names map[string]int, coverage *icmpCoverage) Rule {
	v := r.read(n, ruleKeys, "the rule")
	rule := Rule{
		Name:   r.name(v.value["name"], "name"),
		Pos:    r.pos(v.first()),
		Action: action(r.word(v, ruleKeys, "action")),
	}
	if rule.Name == "default" {
		r.errorAt(v.value["name"], "a rule cannot be called default: events call so what no rule decides")
	}
	if before, ok := names[rule.Name]; ok {
		r.errorAt(v.value["name"], "duplicate rule name %q; the rule at line %d has it already", rule.Name, before)
	} else if rule.Name != "" {
		names[rule.Name] = r.pos(v.value["name"]).Line
	}
	rule.Events = r.events(v.value["events"], rule.Action)

	errorsBefore := r.errors
	to, from := v.value["to"], v.value["from"]
	var tv values
	asked := false
	if to != nil {
		tv = r.read(to, toKeys, "to")
		sets := r.setList(tv, toKeys)
		rule.To = r.addresses(tv, toKeys, sets)
		rule.Domains, asked = r.domains(tv, d, sets)
		rule.Services = r.services(tv)
	}
	r.names(&rule, v, asked || r.errors > errorsBefore)
	if from != nil {
		fv := r.read(from, fromKeys, "from")
		rule.From = r.addresses(fv, fromKeys, r.setList(fv, fromKeys))
		rule.SourcePorts = r.portList(fv)
	}
	if r.errors == errorsBefore && to != nil && from != nil {
		r.checkEnds(&rule, from)
	}
	coverage.add(&rule, tv.list["protocols"])
	return rule
}

// checkEnds refuses a rule whose ends no packet has together.
func (r *reader) checkEnds(rule *Rule, from *yaml.Node) {
	if rule.Services != nil && rule.SourcePorts != nil {
		if len(keepProtocols(rule.Services, protocolsOf(rule.SourcePorts))) == 0 {
			r.errorAt(from, "the rule can never match: from asks for ports of protocols that to does not have")
		}
	}
	if rule.To != nil && rule.From != nil {
		to4, to6 := families(rule.To)
		from4, from6 := families(rule.From)
		if !(to4 && from4) && !(to6 && from6) {
			r.errorAt(from, "the rule can never match: to and from have no address family in common")
		}
	}
}

// families tells which families a set has addresses of.
func families(s *ipset.Set) (v4, v6 bool) {
	for _, rng := range s.Ranges() {
		if rng.First.Is4() {
			v4 = true
		} else {
			v6 = true
		}
		if v4 && v6 {
			break
		}
	}
	return v4, v6
}

// icmpCoverage finds chains that speak of one family's ICMP and forget the
// other's: nothing else in a policy covers one family only without saying so.
type icmpCoverage struct {
	covered [2]bool       // some rule asks for ICMP, ICMPv6
	named   [2]*yaml.Node // the first protocols element that names it without limiting the family by addresses
}

func (c *icmpCoverage) add(rule *Rule, protocols []*yaml.Node) {
	for i, proto := range [2]uint8{packet.ProtoICMP, packet.ProtoICMPv6} {
		c.covered[i] = c.covered[i] || protocolsOf(rule.Services)[proto]
	}
	for _, end := range []*ipset.Set{rule.To, rule.From} {
		if end == nil {
			continue
		}
		if v4, v6 := families(end); !v4 || !v6 {
			return
		}
	}
	for _, n := range protocols {
		for i, name := range [2]string{"icmp", "icmpv6"} {
			if n.Value == name && c.named[i] == nil {
				c.named[i] = n
			}
		}
	}
}

func (c *icmpCoverage) warn(r *reader, d verdict.Direction) {
	if r.errors > 0 {
		return // a rule that could not be read may speak of it
	}
	if n := c.named[0]; n != nil && !c.covered[1] {
		r.warnAt(n, "icmp is IPv4's alone, and no rule of %v speaks of icmpv6", d)
	}
	if n := c.named[1]; n != nil && !c.covered[0] {
		r.warnAt(n, "icmpv6 is IPv6's alone, and no rule of %v speaks of icmp", d)
	}
}

package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"egate/internal/domain"
	"egate/internal/packet"
	"egate/internal/verdict"
)

// readDomainFile reads the file of a set of domains; nil where it cannot be
// used, which was reported.
func (r *reader) readDomainFile(n *yaml.Node) *domain.Set {
	file, path := r.openBeside(n, "domain_file", "domain file", "domains")
	if file == nil {
		return nil
	}
	defer file.Close()
	set, errs := domain.ReadSet(file, path)
	for _, e := range errs {
		r.report(Pos{e.File, e.Line, e.Column}, Error, "%s", e.Message)
	}
	if set != nil && set.Len() == 0 {
		r.errorAt(n, "domain file %s has no name in it", quote(path))
		return nil
	}
	return r.countDomains(n, set)
}

// domainList reads `domains` of `to` or of a set: nil where it is not given, or
// where an element is wrong.
func (r *reader) domainList(v values) *domain.Set {
	n := v.value["domains"]
	if n == nil {
		return nil
	}
	errorsBefore := r.errors
	patterns := make([]domain.Pattern, 0, len(v.list["domains"]))
	for _, n := range v.list["domains"] {
		p, err := domain.Parse(n.Value)
		if err != nil {
			r.errorAt(n, "%v", err)
		}
		patterns = append(patterns, p)
	}
	if r.errors > errorsBefore || len(patterns) == 0 {
		return nil
	}
	return r.countDomains(n, domain.New(patterns))
}

// countDomains adds a set that was read to the bound of them all.
func (r *reader) countDomains(n *yaml.Node, s *domain.Set) *domain.Set {
	if s == nil {
		return nil
	}
	before := r.domainCount
	if r.domainCount += s.Len(); before <= MaxDomains && r.domainCount > MaxDomains {
		r.errorAt(n, "with these the policy has more than %d domains", MaxDomains)
	}
	return s
}

// joinDomains gives the names that are in one of several sets. Rules that name
// the same sets share what comes out.
func (r *reader) joinDomains(names []string, sets []*domain.Set) *domain.Set {
	key := strings.Join(names, " ")
	joined := r.joined[key]
	if joined == nil {
		var patterns []domain.Pattern
		for _, s := range sets {
			patterns = append(patterns, s.Patterns()...)
		}
		joined = domain.New(patterns)
		if r.joined == nil {
			r.joined = map[string]*domain.Set{}
		}
		r.joined[key] = joined
	}
	return joined
}

// domains reads the domains of `to`, or takes them from its sets. asked tells
// that the rule has some, or tries to.
func (r *reader) domains(v values, d verdict.Direction, sets chosenSets) (out *domain.Set, asked bool) {
	given, list := v.value["domains"], r.domainList(v)
	where := given
	if sets.kind == domainSet {
		where = v.value["sets"]
	}
	switch {
	case where == nil:
		return nil, false
	case d != verdict.Egress:
		r.errorAt(where, "names are learned from what this host asks, so only rules of egress take domains")
		return nil, true
	case given != nil && sets.kind == domainSet:
		r.errorAt(v.value[later(v, []string{"domains", "sets"})], "domains and sets of domains do not go together; put the domains into a set, or write two rules")
		return nil, true
	case given != nil:
		return list, true
	}
	return sets.domains, true
}

// names reads what a rule says of its domains; asked tells that it has some, or
// tries to.
func (r *reader) names(rule *Rule, v values, asked bool) {
	verify, ech, quic := r.word(v, ruleKeys, "verify"), r.word(v, ruleKeys, "ech"), r.word(v, ruleKeys, "quic")
	for _, name := range []string{"verify", "ech", "quic"} {
		switch n := v.value[name]; {
		case n == nil:
		case !asked:
			r.errorAt(n, "%s is about connections to names, and the rule has no domains in to", name)
		case rule.Action != verdict.Allow:
			r.errorAt(n, "%s goes with the action allow: only allow rules let a connection begin", name)
		}
	}
	if verify == "none" && ech == "drop" {
		r.errorAt(v.value["ech"], "ech: drop does not go with verify: none, by which no ClientHello is read")
	}
	if rule.Domains == nil || rule.Action != verdict.Allow {
		return
	}
	rule.DropECH, rule.DropQUIC = ech == "drop", quic == "drop"
	switch verify {
	case "sni":
		rule.Verify = VerifyAll
	case "":
		rule.Verify = VerifyWellKnown
	}
	r.warnNotReached(rule, v)
}

// warnNotReached reports what says something of connections that the rule's
// services leave out.
func (r *reader) warnNotReached(rule *Rule, v values) {
	warn := func(name, services string, reached bool) {
		if !reached {
			r.warnAt(v.value[name], "%s has no effect: the rule does not match %s", name, services)
		}
	}
	all := rule.Verify == VerifyAll
	if all {
		warn("verify", "tcp", rule.reaches(packet.ProtoTCP, 0, 65535))
	}
	switch {
	case rule.DropECH && all:
		warn("ech", "tcp", rule.reaches(packet.ProtoTCP, 0, 65535))
	case rule.DropECH:
		warn("ech", "tcp/443", rule.reaches(packet.ProtoTCP, 443, 443))
	}
	if rule.DropQUIC {
		warn("quic", "udp/443", rule.reaches(packet.ProtoUDP, 443, 443))
	}
}

// reaches tells whether the rule's services hold one of these ports.
func (r *Rule) reaches(proto uint8, first, last uint16) bool {
	return r.Services == nil || slices.ContainsFunc(r.Services, func(s Service) bool {
		return s.Proto == proto && (s.Whole || s.First <= last && first <= s.Last)
	})
}

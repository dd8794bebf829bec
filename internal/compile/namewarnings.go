package compile

import (
	"fmt"
	"slices"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/verdict"
)

// nameWarnings is about rules that list names and may not mean what they do.
func nameWarnings(rules []policy.Rule) policy.Problems {
	var out policy.Problems
	var open []int // allow rules before, to any address and whatever its name
	for i := range rules {
		r := &rules[i]
		warn := func(format string, args ...any) {
			out = append(out, policy.Problem{Pos: r.Pos, Severity: policy.Warning, Message: fmt.Sprintf("rule %s "+format, append([]any{quoteModel(r, i)}, args...)...)})
		}
		switch {
		case r.Domains == nil:
			if isOpen(r) {
				open = append(open, i)
			}
		case r.Action == verdict.Allow:
			if r.Verify != policy.VerifyNone && !r.DropQUIC && takesQUIC(r) {
				warn("lets QUIC (udp/443) to the addresses of its names pass unverified; \"quic: drop\" makes clients fall back to TCP")
			}
		case r.Action == verdict.Drop || r.Action == verdict.Reject:
			for _, before := range open {
				if share(&rules[before], r) {
					warn("comes behind rule %s (line %d), which allows some of its packets to any address whatever its name; put it before that rule",
						quoteModel(&rules[before], before), rules[before].Pos.Line)
					break
				}
			}
		}
	}
	return limitWarnings(out, "such warnings from here on")
}

func quoteModel(r *policy.Rule, i int) string {
	if r.Name == "" {
		return r.Label(i)
	}
	return fmt.Sprintf("%q", r.Name)
}

// isOpen tells an allow rule for any destination of a family and any sender. Rules for
// chosen addresses or senders are exceptions that are meant to go first.
func isOpen(r *policy.Rule) bool {
	return r.Action == verdict.Allow && r.From == nil && r.SourcePorts == nil &&
		(r.To == nil || holdsSet(r.To, ipset.All4()) || holdsSet(r.To, ipset.All6()))
}

// share tells whether a packet can have a service of both rules, and is not
// taken whole by the first, which is warned of elsewhere.
func share(open, r *policy.Rule) bool {
	if open.Services == nil || r.Services != nil && holdsList(open.Services, r.Services) {
		return false
	}
	return r.Services == nil || slices.ContainsFunc(open.Services, func(a policy.Service) bool {
		return slices.ContainsFunc(r.Services, func(b policy.Service) bool {
			return a.Proto == b.Proto && (a.Whole || b.Whole || a.First <= b.Last && b.First <= a.Last)
		})
	})
}

// takesQUIC tells whether the rule's services hold udp/443.
func takesQUIC(r *policy.Rule) bool {
	return r.Services == nil || slices.ContainsFunc(r.Services, func(s policy.Service) bool {
		return s.Proto == packet.ProtoUDP && (s.Whole || s.First <= 443 && 443 <= s.Last)
	})
}

// dnsWarnings is about what the section dns says.
func dnsWarnings(p *policy.Policy) policy.Problems {
	egress := &p.Chains[verdict.Egress]
	lists := func(r policy.Rule) bool { return r.Action == verdict.Allow && r.Domains != nil && r.Domains.Len() > 0 }
	if !p.DNS.ListedOnly || slices.ContainsFunc(egress.Rules, lists) {
		return nil
	}
	return policy.Problems{{
		Pos: egress.Pos, Severity: policy.Warning,
		Message: "\"names: listed\" under dns refuses every question, because no allow rule of egress has domains",
	}}
}

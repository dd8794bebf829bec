// Package oracle stands beside stages 1 to 3 and is what tests hold them
// against: Walk judges a packet by reading the policy's model rule by rule, as
// the documentation tells it to a person, and shares no code with the tables
// or the kernel side. Generator makes the random policies and packets of the
// differential tests. Nothing but tests and benchmarks imports this package.
package oracle

import (
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// Walk judges a packet by the policy, rule by rule. Rules in its result are
// counted in the policy; only that of a fragment's memory is taken as it is.
func Walk(p *policy.Policy, k *packet.Key, st tables.State) tables.Result {
	chain := &p.Chains[k.Direction]
	strict := chain.Default == verdict.Drop || chain.Default == verdict.Reject
	result := func(a verdict.Action, why verdict.Reason) tables.Result {
		return tables.Result{Action: a, Reason: why, Rule: tables.NoRule}
	}

	if !k.IP {
		if strict && k.Control {
			return result(verdict.Allow, verdict.ReasonControlFrame)
		}
		return result(chain.Default, verdict.ReasonNonIP)
	}
	if st.FragmentSeen && k.Fragment == packet.LaterFragment {
		return tables.Result{Action: st.FragmentAction, Reason: verdict.ReasonFragment, Rule: st.FragmentRule}
	}

	if p.DNS.Elsewhere != verdict.Allow && dnsElsewhere(k, st) {
		return result(p.DNS.Elsewhere, verdict.ReasonDNSElsewhere)
	}

	var continues []int
	for i := range chain.Rules {
		rule := &chain.Rules[i]
		if !Matches(rule, k, st.Names) {
			continue
		}
		if rule.Action == verdict.Continue {
			continues = append(continues, i)
			continue
		}
		if rule.Action == verdict.Allow && rule.DropQUIC && k.Proto == 17 && leavesFor(k) == 443 {
			return tables.Result{Action: verdict.Reject, Reason: verdict.ReasonQUIC, Rule: i, Continues: continues}
		}
		if rule.Action == verdict.Allow && rule.Verify != policy.VerifyNone && hidesRequest(rule, k) {
			return tables.Result{Action: verdict.Drop, Reason: verdict.ReasonNameUnreadable, Rule: i, Continues: continues}
		}
		return tables.Result{Action: rule.Action, Reason: verdict.ReasonRule, Rule: i, Continues: continues}
	}

	res := byDefault(p, strict, k, st)
	res.Continues = continues
	return res
}

// InTables says a result of Walk in the tables' rules: each rule of the policy
// by the one that stands for it.
func InTables(c *tables.Chain, r tables.Result) tables.Result {
	if r.Rule != tables.NoRule && r.Reason != verdict.ReasonFragment {
		r.Rule = int(c.Of[r.Rule])
	}
	var continues []int
	for _, i := range r.Continues {
		continues = append(continues, int(c.Of[i]))
	}
	r.Continues = continues
	return r
}

// byDefault judges what no rule decided.
func byDefault(p *policy.Policy, strict bool, k *packet.Key, st tables.State) tables.Result {
	chain := &p.Chains[k.Direction]
	res := tables.Result{Action: chain.Default, Reason: verdict.ReasonDefault, Rule: tables.NoRule}
	if strict {
		res.Action = verdict.Allow
		if neighbourDiscovery(k) {
			res.Reason = verdict.ReasonNeighbour
			return res
		}
		if dhcpClient(k) {
			res.Reason = verdict.ReasonDHCP
			return res
		}
		if readsDNS(p) && st.Resolver && k.Have&packet.HaveDst != 0 && leavesFor(k) == 53 {
			res.Reason = verdict.ReasonDNS
			return res
		}
		if chain.Replies && st.Reply {
			res.Reason = verdict.ReasonReply
			return res
		}
		if chain.Replies && st.ReplyError {
			res.Reason = verdict.ReasonReplyError
			return res
		}
		res.Action = chain.Default
	}
	if k.Problem != 0 {
		res.Reason = k.Problem
	} else if k.Fragment == packet.LaterFragment {
		res.Reason = verdict.ReasonFragmentUnknown
	}
	return res
}

// Matches tells whether a packet meets all conditions of a rule. names is what
// its destination is known as.
func Matches(r *policy.Rule, k *packet.Key, names []string) bool {
	if r.Domains != nil {
		if k.Have&packet.HaveDst == 0 || !listed(r.Domains, names) {
			return false
		}
	}
	if r.To != nil {
		if k.Have&packet.HaveDst == 0 || !contains(r.To, k.Dst) {
			return false
		}
	}
	if r.From != nil {
		if k.Have&packet.HaveSrc == 0 || !contains(r.From, k.Src) {
			return false
		}
	}
	if r.Services != nil && !anyService(r.Services, k, k.Selector) {
		return false
	}
	if r.SourcePorts != nil && !anyService(r.SourcePorts, k, k.SourcePort) {
		return false
	}
	return true
}

func anyService(list []policy.Service, k *packet.Key, selector uint16) bool {
	if k.Have&packet.HaveProto == 0 {
		return false
	}
	for _, s := range list {
		if s.Proto != k.Proto {
			continue
		}
		if s.Whole {
			return true
		}
		if k.Have&packet.HaveTransport != 0 && s.First <= selector && selector <= s.Last {
			return true
		}
	}
	return false
}

// neighbourDiscovery: router and neighbour solicitations and advertisements
// and redirects with hop limit 255, listener queries and reports with hop
// limit 1, over IPv6 and not in fragments.
func neighbourDiscovery(k *packet.Key) bool {
	readable := k.Have&packet.HaveProto != 0 && k.Have&packet.HaveTransport != 0
	if k.Family != 6 || !readable || k.Proto != 58 || k.Fragment != packet.NotFragment {
		return false
	}
	kind := k.Selector / 256
	discovery := kind >= 133 && kind <= 137
	listener := kind >= 130 && kind <= 132 || kind == 143
	return discovery && k.HopLimit == 255 || listener && k.HopLimit == 1
}

// dhcpClient: a client on this side asks from 68 to 67 (IPv6: 546 to 547), and
// is answered the other way round.
func dhcpClient(k *packet.Key) bool {
	readable := k.Have&packet.HaveProto != 0 && k.Have&packet.HaveTransport != 0
	if !readable || k.Proto != 17 || k.Fragment != packet.NotFragment {
		return false
	}
	from, to := k.SourcePort, k.Selector
	if k.Direction == verdict.Ingress {
		from, to = to, from
	}
	if k.Family == 6 {
		return from == 546 && to == 547
	}
	return from == 68 && to == 67
}

// leavesFor gives the TCP or UDP port that an egress packet goes to, 0 for
// others, and for what goes to port 0.
func leavesFor(k *packet.Key) uint16 {
	readable := k.Have&packet.HaveProto != 0 && k.Have&packet.HaveTransport != 0
	if k.Direction != verdict.Egress || !readable || k.Proto != 6 && k.Proto != 17 {
		return 0
	}
	return k.Selector
}

// hidesRequest: of a rule that verifies names, what could be TCP but shows no
// ports, and fragments of what would be verified.
func hidesRequest(rule *policy.Rule, k *packet.Key) bool {
	if k.Have&packet.HaveProto == 0 {
		return true
	}
	if k.Proto != 6 {
		return false
	}
	if k.Have&packet.HaveTransport == 0 {
		return true
	}
	wanted := rule.Verify == policy.VerifyAll || k.Selector == 443 || k.Selector == 80
	return wanted && k.Fragment != packet.NotFragment
}

// dnsElsewhere: plain DNS to others than the policy's servers, DNS over TLS or
// QUIC to anyone, DNS over HTTPS to known resolvers. Who could not be read is
// none of the servers and not known.
func dnsElsewhere(k *packet.Key, st tables.State) bool {
	readable := k.Have&packet.HaveDst != 0
	switch leavesFor(k) {
	case 53:
		return !readable || !st.Resolver
	case 443:
		return readable && st.Known
	case 853:
		return true
	}
	return false
}

// readsDNS: the policy says something of DNS, or one of its rules lists names.
func readsDNS(p *policy.Policy) bool {
	for _, r := range p.Chains[verdict.Egress].Rules {
		if r.Domains != nil {
			return true
		}
	}
	return p.DNS.Given
}

// contains looks through the ranges one by one, so that it stands on nothing
// that it may be used to test.
func contains(s *ipset.Set, a ipset.Addr) bool {
	for _, r := range s.Ranges() {
		below := a.Hi < r.First.Hi || a.Hi == r.First.Hi && a.Lo < r.First.Lo
		above := a.Hi > r.Last.Hi || a.Hi == r.Last.Hi && a.Lo > r.Last.Lo
		if !below && !above {
			return true
		}
	}
	return false
}

package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/resolvers"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// ExplainedRequest is what becomes of a connection when its TLS or HTTP request
// tells the name, where the rule that let it begin verifies names.
type ExplainedRequest struct {
	Name       string `json:"name"`
	Verdict    string `json:"verdict"`
	Reason     string `json:"reason"`
	ReasonText string `json:"reason_text"`

	Rule *tables.RuleRef `json:"rule,omitempty"` // that decided; nil for the default
}

// tell fills in what the kernel would know of the packet's destination, and
// says what that stands on.
func (a *app) tell(s *source, k *packet.Key, st *tables.State) (notes []string, err error) {
	if s.set.DNS.InUse && k.Direction == verdict.Egress && k.Has(packet.HaveDst) {
		if notes, err = a.tellResolver(s.policy, k, st); err != nil {
			return nil, err
		}
	}
	return notes, nil
}

// tellResolver says whether DNS goes to a server of the policy.
func (a *app) tellResolver(p *policy.Policy, k *packet.Key, st *tables.State) (notes []string, err error) {
	isDNS, isHTTPS := goesTo(k, 53), goesTo(k, 443)
	if isHTTPS && p.DNS.Elsewhere != verdict.Allow && holds(resolvers.Known(), k.Dst) {
		st.Known = true
		notes = append(notes, fmt.Sprintf("%v is known to answer DNS over HTTPS", k.Dst))
	}
	if !isDNS {
		return notes, nil
	}
	servers, whose, given := p.DNS.Servers, "the policy's DNS servers", ""
	if servers == nil {
		whose, given = "the DNS servers that this host uses now", "; the policy gives none"
		if servers, err = a.hostServers(); err != nil {
			return nil, err
		}
	}
	is := "is none"
	if st.Resolver = holds(servers, k.Dst); st.Resolver {
		is = "is one"
	}
	notes = append(notes, fmt.Sprintf("%v %s of %s (%s)%s", k.Dst, is, whose, serverList(servers), given))
	if d := &p.DNS; st.Resolver && (d.ListedOnly || d.Types != nil || d.MaxLabel < 63 || d.Rate != (policy.EventRate{})) {
		notes = append(notes, "which questions pass is for the section dns to say; this is about the packet alone")
	}
	return notes, nil
}

func holds(list []netip.Addr, a ipset.Addr) bool {
	return slices.ContainsFunc(list, func(o netip.Addr) bool { return ipset.FromNetip(o) == a })
}

// serverList names the first few.
func serverList(servers []netip.Addr) string {
	const named = 4
	if len(servers) == 0 {
		return "there are none"
	}
	var parts []string
	for _, s := range servers[:min(len(servers), named)] {
		parts = append(parts, s.String())
	}
	if more := len(servers) - named; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// goesTo tells whether a packet goes to a TCP or UDP port.
func goesTo(k *packet.Key, port uint16) bool {
	return k.HasPorts() && (k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP) && k.Selector == port
}

// aboutNames says what there is to say of names beside the steps.
func aboutNames(s *source, k *packet.Key, st tables.State, t *tables.Trace) (notes []string) {
	c := &s.set.Chains[k.Direction]
	if !c.Used[tables.Name] || len(t.Steps) == 0 || !k.Has(packet.HaveDst) {
		return nil
	}
	if len(st.Names) == 0 {
		return []string{fmt.Sprintf("no name is known here that %v was learned under, so no rule with domains matches; "+
			"write name=NAME behind the packet to give it one", k.Dst)}
	}
	if t.Result.Reason != verdict.ReasonRule || t.Result.Action != verdict.Allow {
		return nil
	}
	rule := &c.Rules[t.Result.Rule]
	if rule.Verify != policy.VerifyNone && k.Proto == packet.ProtoUDP && goesTo(k, 443) {
		notes = append(notes, "the name in a QUIC connection is not verified; \"quic: drop\" makes clients fall back to TCP")
	}
	return notes
}

// request judges what the connection's request says, which is the first of the
// names; nil where nobody looks.
func (s *source) request(k *packet.Key, st tables.State, t *tables.Trace) *ExplainedRequest {
	c := &s.set.Chains[k.Direction]
	if len(st.Names) == 0 || t.Result.Reason != verdict.ReasonRule || !c.Rules[t.Result.Rule].Verifies(k) {
		return nil
	}
	name := st.Names[0]
	res := s.set.Request(k, st, name)
	out := &ExplainedRequest{Name: name, Verdict: res.Action.String(), Reason: res.Reason.String(), ReasonText: res.Reason.Text()}
	if res.Rule != tables.NoRule {
		ref := c.Ref(res.Rule)
		out.Rule = &ref
	}
	return out
}

// requestText is one clause for the terminal.
func requestText(r *ExplainedRequest) string {
	text := fmt.Sprintf("says %s: %s", r.Name, r.Verdict)
	if r.Reason != verdict.ReasonRule.String() {
		text += fmt.Sprintf(", %s: %s", r.Reason, r.ReasonText)
	}
	if r.Rule != nil {
		text += fmt.Sprintf(", rule %s (%s)", r.Rule.Label, r.Rule.Lines())
	}
	return text
}

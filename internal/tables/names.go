package tables

import (
	"sort"
	"strings"

	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/verdict"
)

// Well-known ports of what is said in names, or about them.
const (
	portDNS       = 53
	portHTTP      = 80
	portHTTPS     = 443
	portSecureDNS = 853 // DNS over TLS, and over QUIC
)

// Entry finds the longest entry that a name in egate's form is at or below, or
// nil. exact tells that the entry is for the name itself.
func (t *NameTable) Entry(name string) (e *NameEntry, exact bool) {
	for above := name; above != ""; _, above, _ = strings.Cut(above, ".") {
		i := sort.Search(len(t.Entries), func(i int) bool { return t.Entries[i].Name >= above })
		if i < len(t.Entries) && t.Entries[i].Name == above {
			return &t.Entries[i], len(above) == len(name)
		}
	}
	return nil, false
}

// Class gives the class of a name in egate's form, 0 where no rule asks for
// it, and whether an allow rule lists it.
func (t *NameTable) Class(name string) (class uint16, ask bool) {
	switch e, exact := t.Entry(name); {
	case e == nil:
		return 0, false
	case exact:
		return e.Exact, e.AskExact
	default:
		return e.Below, e.AskBelow
	}
}

// Bound gives the name that a connection goes by from the packet on that rule r
// let pass: the first of the destination's names that the rule lists. ok is
// false where it lists none, as a rule does that asks for no names.
func (c *Chain) Bound(r int, names []string) (name string, ok bool) {
	if r < 0 || r >= len(c.Rules) || !c.Rules[r].Named {
		return "", false
	}
	for _, name := range names {
		class, _ := c.Names.Class(name)
		if c.Vectors[Name].Word(class, r/64)>>(r%64)&1 != 0 {
			return name, true
		}
	}
	return "", false
}

// Verifies tells whether the rule, having let a packet pass, wants to see the
// name in the request that its connection begins with.
func (r *Rule) Verifies(k *packet.Key) bool {
	if r.Action != verdict.Allow || !k.HasPorts() || k.Proto != packet.ProtoTCP {
		return false
	}
	return r.Verify == policy.VerifyAll || r.Verify == policy.VerifyWellKnown && (k.Selector == portHTTPS || k.Selector == portHTTP)
}

// hidesRequest tells whether the rule verifies names and the packet may be of
// a connection whose request could not be read: its protocol or its ports
// can't be told, or what it carries goes on in later fragments.
func (r *Rule) hidesRequest(k *packet.Key) bool {
	if r.Verify == policy.VerifyNone {
		return false
	}
	if !k.Has(packet.HaveProto) {
		return true
	}
	return k.Proto == packet.ProtoTCP && !k.HasPorts() || r.Verifies(k) && k.Fragment != packet.NotFragment
}

// Request judges the packet with the request of a connection that a rule lets
// begin and verifies. The name in the request takes the place of all that the
// destination is known as; what it does not open is rejected.
func (s *Set) Request(k *packet.Key, st State, name string) Result {
	st.Names = []string{name}
	res := s.Lookup(k, st)
	if res.Action != verdict.Allow {
		res.Action, res.Reason = verdict.Reject, verdict.ReasonNameMismatch
	}
	return res
}

// isDNS tells DNS from this side to a server of the policy.
func isDNS(k *packet.Key, st State) bool {
	return k.Has(packet.HaveDst) && st.Resolver && isSentTo(k, portDNS)
}

// isDNSElsewhere tells DNS to any but a server of the policy, DNS over TLS or
// QUIC to anyone, and what may be DNS over HTTPS. A destination that could not
// be read is no server of the policy.
func isDNSElsewhere(k *packet.Key, st State) bool {
	readable := k.Has(packet.HaveDst)
	return isSentTo(k, portDNS) && !(readable && st.Resolver) ||
		isSentTo(k, portSecureDNS) ||
		isSentTo(k, portHTTPS) && readable && st.Known
}

// isQUIC tells what may be HTTP/3.
func isQUIC(k *packet.Key) bool { return k.Proto == packet.ProtoUDP && isSentTo(k, portHTTPS) }

// isSentTo tells what leaves for a TCP or UDP port.
func isSentTo(k *packet.Key, port uint16) bool {
	return k.Direction == verdict.Egress && k.HasPorts() &&
		(k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP) && k.Selector == port
}

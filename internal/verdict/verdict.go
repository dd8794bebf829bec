// Package verdict names what egate can decide about a packet and why. It
// stands before stage 1: every later stage, from the policy text to the
// counters a person reads, speaks of actions, directions and reasons with the
// words of this package. The kernel side's copy is bpf/include/abi.h; a test
// in package datapath holds the two together by name and number.
package verdict

import "fmt"

// Direction tells which hook a packet met. The numbers index every
// two-element array that crosses to the kernel.
type Direction uint8

const (
	Egress  Direction = 0
	Ingress Direction = 1
)

// Directions lists both, in the order of their numbers.
var Directions = [2]Direction{Egress, Ingress}

func (d Direction) String() string {
	switch d {
	case Egress:
		return "egress"
	case Ingress:
		return "ingress"
	}
	return fmt.Sprintf("direction(%d)", uint8(d))
}

// Opposite is the other direction.
func (d Direction) Opposite() Direction { return d ^ 1 }

// Action is what a rule, or a chain's default, does with a packet.
type Action uint8

const (
	Allow    Action = 0 // let the packet go on
	Drop     Action = 1 // discard it silently
	Reject   Action = 2 // discard it and answer its sender
	Continue Action = 3 // count it, apply modifiers, and go on with the next rule
)

var actionNames = [...]string{"allow", "drop", "reject", "continue"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Decides tells whether a matching rule with this action ends the walk.
func (a Action) Decides() bool { return a != Continue }

// Reason tells why a packet got its verdict.
type Reason uint8

// The reasons, in the order of bpf/include/abi.h. New ones go at the end:
// counters of pinned state are indexed by these numbers.
const (
	ReasonRule Reason = iota
	ReasonDefault
	ReasonReply
	ReasonReplyError
	ReasonControlFrame
	ReasonNeighbour
	ReasonDHCP
	ReasonNonIP
	ReasonFragment
	ReasonFragmentUnknown
	ReasonTruncated
	ReasonBadIPHeader
	ReasonBadLength
	ReasonVLANDepth
	ReasonExtensionDepth
	ReasonSourceRoute
	ReasonBadTransport
	ReasonOwnAnswer
	ReasonRejectLimited
	ReasonRejectUnanswerable
	ReasonDNS
	ReasonDNSElsewhere
	ReasonDNSUnlisted
	ReasonDNSType
	ReasonDNSLabel
	ReasonDNSRate
	ReasonDNSQuestion
	ReasonDNSAnswer
	ReasonNameMismatch
	ReasonNameUnreadable
	ReasonECH
	ReasonQUIC
	ReasonCount // how many there are; not a reason
)

var reasons = [ReasonCount]struct{ name, text string }{
	ReasonRule:               {"rule", "a rule of the policy decided"},
	ReasonDefault:            {"default", "no rule matched; the chain's default decided"},
	ReasonReply:              {"reply", "belongs to a connection that the other side opened, under a default that is not allow"},
	ReasonReplyError:         {"reply-error", "ICMP error about a connection that the other side opened, under a default that is not allow"},
	ReasonControlFrame:       {"control-frame", "ARP or another link-control frame that is not IP, under a default that is not allow"},
	ReasonNeighbour:          {"neighbour-discovery", "IPv6 neighbour discovery or the multicast listener reports it needs, under a default that is not allow"},
	ReasonDHCP:               {"dhcp", "DHCP or DHCPv6 client traffic, under a default that is not allow"},
	ReasonNonIP:              {"non-ip", "not IP and not a known link-control frame; no rule can match it, the default decided"},
	ReasonFragment:           {"fragment", "later fragment; it follows the verdict of its first fragment"},
	ReasonFragmentUnknown:    {"fragment-unknown", "later fragment whose first fragment was not seen; no rule without ports matched, the default decided"},
	ReasonTruncated:          {"truncated", "the packet ends before its headers do; no rule that needs them matched, the default decided"},
	ReasonBadIPHeader:        {"bad-ip-header", "IP version or header length contradicts the frame; no rule that reads it matched, the default decided"},
	ReasonBadLength:          {"bad-length", "the IP length field contradicts the packet's size; no rule that reads it matched, the default decided"},
	ReasonVLANDepth:          {"vlan-depth", "more VLAN tags than egate reads; no rule that reads behind them matched, the default decided"},
	ReasonExtensionDepth:     {"extension-depth", "more extension headers than egate reads; no rule that reads behind them matched, the default decided"},
	ReasonSourceRoute:        {"source-route", "a source-routed packet hides its final destination; no rule without a destination matched, the default decided"},
	ReasonBadTransport:       {"bad-transport", "the TCP, UDP or ICMP header contradicts the packet's size; no rule that reads it matched, the default decided"},
	ReasonOwnAnswer:          {"own-answer", "the answer that egate itself sent to a rejected packet"},
	ReasonRejectLimited:      {"reject-limited", "rejected, but dropped without an answer because answers are over their rate"},
	ReasonRejectUnanswerable: {"reject-unanswerable", "rejected, but dropped without an answer because packets of this kind are never answered (RFC 1122, RFC 4443)"},
	ReasonDNS:                {"dns", "DNS with a resolver of the policy, under a default that is not allow"},
	ReasonDNSElsewhere:       {"dns-elsewhere", "DNS, DNS over TLS or DNS over HTTPS to a server that is none of the policy's resolvers"},
	ReasonDNSUnlisted:        {"dns-unlisted", "a question for a name that no rule allows"},
	ReasonDNSType:            {"dns-type", "a question of a type that the policy does not allow"},
	ReasonDNSLabel:           {"dns-label", "a question for a name with a longer label than the policy allows"},
	ReasonDNSRate:            {"dns-rate", "more questions than the policy allows in this time"},
	ReasonDNSQuestion:        {"dns-question", "a question that could not be read, where the policy allows only listed names"},
	ReasonDNSAnswer:          {"dns-answer", "an answer to a question of this host that could not be read, so that the names it tells would not be opened"},
	ReasonNameMismatch:       {"name-mismatch", "the TLS server name or HTTP Host of the connection, or their absence, leads to no rule that allows it"},
	ReasonNameUnreadable:     {"name-unreadable", "the rule verifies names, and the connection does not begin with a TLS or HTTP request that could be read"},
	ReasonECH:                {"ech", "an encrypted ClientHello, which the rule does not allow"},
	ReasonQUIC:               {"quic", "QUIC, which the rule does not allow, so that clients fall back to TCP"},
}

func (r Reason) String() string {
	if r < ReasonCount {
		return reasons[r].name
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Text explains the reason in one clause, for documentation and explain.
func (r Reason) Text() string {
	if r < ReasonCount {
		return reasons[r].text
	}
	return "unknown"
}

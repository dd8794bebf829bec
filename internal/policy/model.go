// Package policy is stage 1: policy text to a model. It reads YAML strictly,
// reports every error of a file at once with its line and column, and resolves
// names (sets, protocols, ICMP types) so that later stages see numbers only.
// It needs no kernel and no privilege.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/verdict"
)

// Limits of what one policy may hold.
const (
	MaxRules         = 1_000_000 // in each direction of the text; compile merges what it can
	MaxMergedRules   = 4096      // in each direction, once rules without a name are merged
	MaxContinueRules = 64        // in each direction: every one may cost work on every packet
	MaxNameLength    = 63        // of a policy, a set or a rule, in bytes
	MaxDomains       = 1_000_000 // in the policy, its sets and their files, each counted once
	MaxServers       = 64        // of dns
	DefaultFlows     = 65536
	MinFlows         = 1024
	MaxFlows         = 16 << 20
)

// Pos is a place in a policy file or set file. Line and Column count from 1,
// columns in runes; a zero Line means the file as a whole.
type Pos struct {
	File   string
	Line   int
	Column int
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Policy is one policy file, checked and resolved. Equal files give equal
// policies.
type Policy struct {
	Name       string
	Interfaces []string // names, globs, or "default", in the order of the file
	Audit      bool     // mode: audit; decide and count, but let everything pass
	MaxFlows   uint32   // flows: bound of the table that recognises replies
	DNS        DNS
	Chains     [2]Chain // indexed by verdict.Direction
}

// DNS is what the policy says of DNS itself: whose answers open names, and
// what may be asked.
type DNS struct {
	Given      bool         // the policy has the section
	Servers    []netip.Addr // whose answers open names, sorted; nil: those that the host uses, found when the policy is applied
	ListedOnly bool         // questions for names that no allow rule lists are refused
	NXDomain   bool         // and answered with NXDOMAIN instead of REFUSED
	Types      []uint16     // of questions, sorted; nil: all
	MaxLabel   uint8        // bytes of the longest label in a question, 63: any
	Rate       EventRate    // of questions; the zero value: unbounded

	// Elsewhere is what happens to DNS with other servers, to DNS over TLS and
	// QUIC with any, and to known resolvers' DNS over HTTPS: Drop or Reject, or
	// Allow, which leaves it to the rules.
	Elsewhere verdict.Action
}

// ReadsDNS tells whether answers are read: the policy has a section dns, or a
// rule of egress has domains.
func (p *Policy) ReadsDNS() bool {
	return p.DNS.Given || slices.ContainsFunc(p.Chains[verdict.Egress].Rules, func(r Rule) bool { return r.Domains != nil })
}

// Chain is the rules of one direction, in the order of the file.
type Chain struct {
	Default verdict.Action // allow, drop or reject
	Replies bool           // under a default that is not allow, replies pass
	Events  EventRate      // of packets that no rule decided
	Rules   []Rule
	Pos     Pos // of the section's key, or of the file where it is absent
}

// Rule is one rule. A nil field asks for nothing. All fields that are not nil
// must match. A field never matches a packet whose value could not be read.
type Rule struct {
	Name   string // as written, or "" where the file gives none
	Pos    Pos    // of the rule's first key
	Action verdict.Action

	// To and From hold (addresses ∩ sets) − except of `to` and `from`. Rules
	// that name the same set alone share one pointer.
	To, From *ipset.Set

	// Services holds `to`'s protocols, ports and icmp; SourcePorts holds
	// `from`'s ports. A packet matches if one element does.
	Services    []Service
	SourcePorts []Service

	// Domains holds `to`'s domains, or those of its sets of domains: the packet
	// goes to an address that one of these names resolved to. Rules that name
	// the same set alone share one pointer. Only in egress.
	Domains  *domain.Set
	Verify   Verify
	DropECH  bool // of connections that are verified
	DropQUIC bool // udp/443

	Events EventRate
}

// Verify says which connections must name one of the rule's domains in their
// TLS ClientHello or HTTP request. It is VerifyNone where Domains is nil.
type Verify uint8

const (
	VerifyNone      Verify = iota
	VerifyWellKnown        // to tcp/443 and tcp/80
	VerifyAll              // to any TCP port
)

// Label is what people see: the name, or the rule's place in its chain
// counted from 1, as "#3".
func (r *Rule) Label(index int) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("#%d", index+1)
}

// Service is a protocol and, unless Whole, an inclusive range of its
// selectors: ports, or type<<8|code for ICMP and ICMPv6. A whole protocol
// matches even where the transport header could not be read.
type Service struct {
	Proto       uint8
	Whole       bool
	First, Last uint16
}

// EventRate bounds the events of one rule: at most Burst at once and one each
// Interval after that. An Interval of 0 with a Burst > 0 means every packet; a
// Burst of 0 means none.
type EventRate struct {
	Interval time.Duration
	Burst    uint32
}

// Event rates where the policy gives none: what is blocked is reported, what
// passes is only counted, because an event costs a passing packet a clock read.
var (
	DefaultEvents = EventRate{Interval: 100 * time.Millisecond, Burst: 10} // drop, reject
	NoEvents      = EventRate{}                                            // allow, continue
	AllEvents     = EventRate{Burst: 1}
)

package datapath

import (
	"time"
)

// State is how a gate stands.
type State string

const (
	Enforcing State = "enforcing" // the policy is in force everywhere it should be
	Pending   State = "pending"   // it is, but egate confirm is due
	Reverted  State = "reverted"  // the confirmation did not come; the policy before is in force, or nothing if there was none
	Broken    State = "broken"    // see Problems
)

// Status is all there is to know of a gate. The JSON names are stable. Every
// slice is empty rather than nil.
type Status struct {
	Gate       string     `json:"gate"`
	State      State      `json:"state"`
	Problems   []string   `json:"problems"` // what is not as apply left it, in sentences
	Policy     string     `json:"policy"`
	Path       string     `json:"path"` // of the policy file as apply was given it
	SHA256     string     `json:"sha256"`
	Generation uint32     `json:"generation"`
	Applied    time.Time  `json:"applied"`
	Audit      bool       `json:"audit"`
	Netns      uint64     `json:"netns"`              // inode number of the network namespace
	Hook       string     `json:"hook"`               // "tcx" or "clsact"
	Deadline   *time.Time `json:"deadline,omitempty"` // of the confirmation, while pending and when reverted
	Previous   string     `json:"previous,omitempty"` // while pending: the policy before

	Interfaces []InterfaceStatus `json:"interfaces"` // sorted by ifindex
	Chains     [2]ChainStatus    `json:"chains"`     // egress, ingress
	Totals     [2]Totals         `json:"totals"`     // egress, ingress
	Flows      FlowsStatus       `json:"flows"`
	Names      NamesStatus       `json:"names"`
}

// Counter is packets and bytes. GSO super-packets count as their segments.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// InterfaceStatus is one interface that the gate is attached to.
type InterfaceStatus struct {
	Name    string        `json:"name"`     // as it is called now
	NamedAt string        `json:"named_at"` // as it was called when the policy was applied
	Ifindex int           `json:"ifindex"`
	Link    string        `json:"link"`     // "ethernet" or "none": what stands before the IP header
	DNSOnly bool          `json:"dns_only"` // not guarded: packets pass unjudged, but DNS is read, since a server is reached by it
	Gone    bool          `json:"gone"`
	Hooks   [2]HookStatus `json:"hooks"` // egress, ingress
}

// HookStatus is one direction of an interface. Counters are by the gate's
// verdict, over all policies it had since it was made.
type HookStatus struct {
	Attached bool      `json:"attached"`
	Position int       `json:"position"` // of the gate among Programs, from 1; 0 where it is not
	Programs []Program `json:"programs"` // all on the hook, in the order in which packets meet them
	Allowed  Counter   `json:"allowed"`
	Dropped  Counter   `json:"dropped"`
	Rejected Counter   `json:"rejected"`
}

// Program is one program on a hook, anyone's.
type Program struct {
	ID       uint32 `json:"id"`   // 0 for filters that are no BPF program
	Name     string `json:"name"` // of the program, or the kind of filter; "" where the kernel does not tell
	Egate    bool   `json:"egate"`
	Gate     string `json:"gate,omitempty"`     // whose, where it is one of this host's gates
	Kind     string `json:"kind"`               // "tcx" or "clsact"; packets meet all of tcx first
	Priority uint16 `json:"priority,omitempty"` // of a clsact filter
	Handle   uint32 `json:"handle,omitempty"`   // of a clsact filter
}

// ChainStatus is one direction's rules. Counters of rules with a name, and of
// the default, are over all policies the gate had since it was made; those of
// other rules are of this policy alone.
type ChainStatus struct {
	Default  string       `json:"default"` // allow, drop or reject
	Replies  bool         `json:"replies"`
	Rules    []RuleStatus `json:"rules"`
	Fallback RuleCounters `json:"fallback"` // what no rule decided
}

// RuleStatus is one rule, or several that were merged.
type RuleStatus struct {
	Label  string `json:"label"` // the name, or "#" and the position from 1, as "#3-102" of rules that were merged
	Name   string `json:"name,omitempty"`
	Line   int    `json:"line"`
	Action string `json:"action"`

	// Only of rules that were merged, and are counted together.
	Merged   int `json:"merged,omitempty"`    // how many
	LastLine int `json:"last_line,omitempty"` // of the last of them
	RuleCounters
}

// RuleCounters are packets by what the rule did with them. For a rule's own
// action alone they are not zero, except that after the action of a rule of
// that name was changed the counters of before stay.
type RuleCounters struct {
	Allowed   Counter `json:"allowed"`
	Dropped   Counter `json:"dropped"`
	Rejected  Counter `json:"rejected"`
	Continued Counter `json:"continued"`
}

// Totals are the counters of one direction, over all policies the gate had
// since it was made.
type Totals struct {
	Protocols []ProtocolTotals `json:"protocols"` // those seen, by number
	Reasons   []ReasonTotals   `json:"reasons"`   // those met, in the order of the list in the documentation
	Answers   AnswerTotals     `json:"answers"`
	Events    EventTotals      `json:"events"`
}

// ProtocolTotals are those of one IP protocol. 255 counts packets whose
// protocol could not be read.
type ProtocolTotals struct {
	Number  uint8   `json:"number"`
	Name    string  `json:"name,omitempty"`
	Passed  Counter `json:"passed"`
	Blocked Counter `json:"blocked"` // in audit mode: would have been
}

// ReasonTotals tell how many packets got their verdict for a reason.
type ReasonTotals struct {
	Reason string `json:"reason"`
	Counter
}

// AnswerTotals are about answers to rejected packets.
type AnswerTotals struct {
	Sent   uint64 `json:"sent"`
	Failed uint64 `json:"failed"` // the kernel did not take it; the packet was dropped all the same
}

// EventTotals are about events.
type EventTotals struct {
	Sent       uint64 `json:"sent"`
	Lost       uint64 `json:"lost"`       // the ring was full: nobody read, or too slowly
	Suppressed uint64 `json:"suppressed"` // over their rule's rate
}

// FlowsStatus is about the connections that are remembered.
type FlowsStatus struct {
	Known  uint64 `json:"known"`
	Max    uint64 `json:"max"`
	Failed uint64 `json:"failed"` // could not be remembered
}

package datapath

import (
	"net/netip"
	"time"
)

// NamesStatus is about names. Counters are over all policies that used names
// since the first one of the gate.
type NamesStatus struct {
	InUse     bool            `json:"in_use"`    // the policy in force reads DNS answers
	Servers   []netip.Addr    `json:"servers"`   // whose answers open names, sorted
	Messages  []MessageTotals `json:"messages"`  // those met, in the order of the list in the documentation
	Addresses AddressTotals   `json:"addresses"` // of answers
	Texts     TextTotals      `json:"texts"`
	Bound     uint64          `json:"bound"`  // connections that got a name to go by
	Failed    uint64          `json:"failed"` // something could not be remembered
	Unread    UnreadTotals    `json:"unread"`
	Tables    []TableStatus   `json:"tables"`
}

// MessageTotals tell how many DNS messages had an outcome.
type MessageTotals struct {
	Outcome string `json:"outcome"`
	Text    string `json:"text"`
	Count   uint64 `json:"count"`
}

// AddressTotals are about addresses in answers.
type AddressTotals struct {
	New       uint64 `json:"new"`       // opened that were not open to any name
	Prolonged uint64 `json:"prolonged"` // opened for longer, or to another name too
	Special   uint64 `json:"special"`   // not opened: loopback, link-local, multicast
	Displaced uint64 `json:"displaced"` // an address lost a name to another: it has 8 at the most
}

// TextTotals are about the texts of names.
type TextTotals struct {
	New       uint64 `json:"new"`
	Forgotten uint64 `json:"forgotten"` // gone when a policy wanted to see one, which then opened nothing
}

// UnreadTotals are about answers that the kernel could not read and told the daemon of.
type UnreadTotals struct {
	Sent uint64 `json:"sent"`
	Lost uint64 `json:"lost"` // nobody read, or too slowly
}

// TableStatus is one of the tables of names. They make room by themselves:
// what was not used for longest is evicted.
type TableStatus struct {
	Name    string  `json:"name"`
	Known   uint64  `json:"known"`
	Max     uint64  `json:"max"`
	Evicted *uint64 `json:"evicted,omitempty"` // where it can be told
}

// NameStatus is one name that was learned, or that a connection named.
type NameStatus struct {
	Name        string        `json:"name"`          // lower case, ASCII; "" if its text is forgotten
	Seen        time.Time     `json:"seen,omitzero"` // when it was last learned or named
	Rules       []string      `json:"rules"`         // labels of the rules in force that list it
	Addresses   []NameAddress `json:"addresses"`     // that are open to it, sorted
	Connections int           `json:"connections"`   // remembered ones that go by it; also such as have ended since
}

// NameAddress is an address that a name opens.
type NameAddress struct {
	Address netip.Addr `json:"address"`
	Expires time.Time  `json:"expires"` // for connections that begin
}

// Outcomes lists what can become of a DNS message, by number: name and meaning.
func Outcomes() []MessageTotals {
	out := make([]MessageTotals, len(outcomes))
	for i, o := range outcomes {
		out[i] = MessageTotals{Outcome: o.name, Text: o.text}
	}
	return out
}

// outcomes is enum egate_dns_outcome.
var outcomes = [...]struct{ name, text string }{
	abiEgateDnsOutcomeEGATE_DNS_ASKED:        {"asked", "a question left and is remembered"},
	abiEgateDnsOutcomeEGATE_DNS_LEARNED:      {"learned", "an answer that opened an address, or prolonged it"},
	abiEgateDnsOutcomeEGATE_DNS_EMPTY:        {"empty", "an answer without an address that could be opened"},
	abiEgateDnsOutcomeEGATE_DNS_ERROR:        {"error", "an answer that is an error, such as NXDOMAIN"},
	abiEgateDnsOutcomeEGATE_DNS_NOT_LISTED:   {"not-listed", "an answer about a name that no rule lists"},
	abiEgateDnsOutcomeEGATE_DNS_UNASKED:      {"unasked", "an answer to no question that left; it opens nothing"},
	abiEgateDnsOutcomeEGATE_DNS_OTHER_NAME:   {"other-name", "an answer with the id of a question, but about another name or type; it opens nothing"},
	abiEgateDnsOutcomeEGATE_DNS_MALFORMED:    {"malformed", "a message whose counts or names contradict it"},
	abiEgateDnsOutcomeEGATE_DNS_TOO_LONG:     {"too-long", "an answer longer than the kernel side reads; dropped"},
	abiEgateDnsOutcomeEGATE_DNS_FRAGMENTED:   {"fragmented", "an answer in several fragments; dropped"},
	abiEgateDnsOutcomeEGATE_DNS_OUT_OF_ORDER: {"out-of-order", "a TCP segment that came before the one it follows; dropped, and sent again"},
	abiEgateDnsOutcomeEGATE_DNS_NOT_ANSWER:   {"not-answer", "a message from a server that is no answer to a query"},
	abiEgateDnsOutcomeEGATE_DNS_VOUCHED:      {"vouched", "an answer that could not be read, but the daemon asked the same and learned"},
}

// Package tables is stage 3: a policy compiled to plain, comparable values,
// laid out as the kernel maps hold them. Lookup gives the verdict in Go with
// the same steps as the BPF program; explain and the tests use it. The package
// needs no kernel and no privilege.
//
// # How a packet is classified
//
// Each dimension (destination address, source address, service, source port,
// name of the destination) maps the packet's value to a class; values that no
// rule tells apart share one. Class 0 stands for "could not be read" in every dimension, and for what
// no rule asks for. Each class has a bit vector over the chain's rules: bit r
// is set if rule r can match a packet of this class. The vectors of all
// dimensions that the policy uses are ANDed; the lowest bit left that belongs
// to a deciding rule is the verdict, continue bits below it apply on the way. A
// summary word in front of each vector has a bit for each of its words that is
// not zero, so words that are empty are neither stored nor read. A destination
// can have several names: the vectors of their classes are ORed first. The scheme is the bit-
// vector classification of Lakshman and Stiliadis (SIGCOMM 1998) with the
// aggregation of Baboescu and Varghese (SIGCOMM 2001).
package tables

import (
	"egate/internal/policy"
	"egate/internal/verdict"
)

// Limits of the encoding; compile refuses what would pass them.
const (
	MaxRules   = policy.MaxMergedRules // of one chain: 64 words have one summary word
	MaxClasses = 1 << 16               // of one dimension: classes are u16
	NoRow      = 0xffff                // a protocol whose selectors no rule tells apart
)

// Dimension is one property of a packet that rules ask for.
type Dimension uint8

const (
	Destination Dimension = iota
	Source
	Service
	SourcePort
	Name
	DimensionCount
)

var dimensionNames = [DimensionCount]string{"destination", "source", "service", "source port", "name"}

func (d Dimension) String() string { return dimensionNames[d] }

// Set is a whole policy in tables.
type Set struct {
	Name       string
	Interfaces []string // patterns, as in the policy
	Audit      bool
	MaxFlows   uint32
	DNS        DNS
	Chains     [2]Chain // indexed by verdict.Direction
}

// DNS is as policy.DNS.
type DNS struct {
	policy.DNS
	InUse bool // the policy lists names or says something of DNS: answers are read, and DNS with its resolvers passes the default
}

// Chain is the tables of one direction.
type Chain struct {
	Default verdict.Action
	Replies bool // packets of connections that the other side opened pass, where Default is not allow
	Track   bool // connections opened in this direction are remembered, because the opposite chain lets replies pass
	Events  policy.EventRate
	Rules   []Rule
	Of      []uint32 // rule i of the policy's chain became rule Of[i]

	Words     int      // of a vector, without its summary: (len(Rules)+63)/64
	Deciding  []uint64 // Words words: the rules whose action ends the walk
	Used      [DimensionCount]bool
	Vectors   [DimensionCount]VectorTable
	Addresses [2]AddressTable  // indexed by Destination and Source
	Selectors [2]SelectorTable // indexed by Service-Service and SourcePort-Service
	Names     NameTable
}

// NameTable maps a name to a class. Each entry is complete: it holds what
// shorter patterns say too, so the longest entry that a name is at or below
// decides alone.
type NameTable struct {
	Entries []NameEntry // sorted by Name
}

// NameEntry is a name that the policy's patterns mention.
type NameEntry struct {
	Name     string // lower case, ASCII, without a dot at the end
	Exact    uint16 // class of the name itself
	Below    uint16 // class of the names below it that have no longer entry
	AskExact bool   // an allow rule lists the name, so it may be asked for
	AskBelow bool
}

// VectorTable holds each class's bit vector over the rules, class c at c*Stride.
// A row is a summary word, which has a bit for each word of the vector
// that is not zero, and then these words alone: what is empty takes no memory,
// and what is read lies together. Rows are padded to the longest, and so that
// short ones don't straddle cache lines. A vector of one word stands for itself,
// with a Stride of 1.
type VectorTable struct {
	Stride int
	Words  []uint64
}

// Rule is what the kernel and the reader need of a rule beside its vectors.
// It stands for one rule of the policy, or for several without a name that
// were merged into it and are counted together.
type Rule struct {
	Name   string // "" where the policy gives none
	Label  string
	Action verdict.Action
	Events policy.EventRate
	Line   int // in the policy file; of the first rule it stands for

	Named    bool // it asks for names
	Verify   policy.Verify
	DropECH  bool
	DropQUIC bool

	First    int // the first rule it stands for: its index in the policy's chain
	Last     int // the last one; where Count is Last-First+1, all between are too
	Count    int // how many it stands for
	LastLine int // line of the last one
}

// SelectorTable maps a protocol and a 16-bit selector (a port, or ICMP type and
// code) to a class, in pages of 256 selectors; equal pages are stored once.
type SelectorTable struct {
	Protos [256]ProtoEntry
	Rows   [][256]uint16 // row -> page of each selector>>8
	Pages  [][256]uint16 // page -> class of each selector&255
}

// ProtoEntry is what a protocol's packets get: Class where the selector could
// not be read or no rule tells selectors apart (Row == NoRow).
type ProtoEntry struct {
	Class uint16
	Row   uint16
}

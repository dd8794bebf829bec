package tables

import (
	"math/bits"

	"egate/internal/packet"
	"egate/internal/verdict"
)

// State is what only the kernel knows of a packet; the zero State is a packet
// of which nothing is remembered.
type State struct {
	Reply      bool // of a connection that the other side opened
	ReplyError bool // an ICMP error about such a connection

	// FragmentSeen says that the first fragment of this later fragment was
	// judged; FragmentAction and FragmentRule are what it got.
	FragmentSeen   bool
	FragmentAction verdict.Action
	FragmentRule   int

	// Names is what the destination is known as, in egate's form: the names
	// that it was learned under, or the one that the packet's connection goes by.
	// Nothing is known of a destination that could not be read.
	Names    []string
	Resolver bool // the remote address is one of the policy's DNS servers
	Known    bool // the remote address is known to answer DNS over HTTPS
}

// NoRule stands for the chain's default where a rule's index is expected.
const NoRule = -1

// Result is a verdict and how it came about.
type Result struct {
	Action    verdict.Action // allow, drop or reject
	Reason    verdict.Reason
	Rule      int   // index of the rule that decided, or NoRule
	Continues []int // continue rules that matched on the way, in order
}

// Lookup judges one packet with the steps of the BPF program.
func (s *Set) Lookup(k *packet.Key, st State) Result {
	c := &s.Chains[k.Direction]
	if !k.IP {
		if k.Control && c.Default != verdict.Allow {
			return Result{Action: verdict.Allow, Reason: verdict.ReasonControlFrame, Rule: NoRule}
		}
		return Result{Action: c.Default, Reason: verdict.ReasonNonIP, Rule: NoRule}
	}
	if k.Fragment == packet.LaterFragment && st.FragmentSeen {
		return Result{Action: st.FragmentAction, Reason: verdict.ReasonFragment, Rule: st.FragmentRule}
	}
	if s.DNS.Elsewhere != verdict.Allow && isDNSElsewhere(k, st) {
		return Result{Action: s.DNS.Elsewhere, Reason: verdict.ReasonDNSElsewhere, Rule: NoRule}
	}
	res := c.Match(c.Classes(k, st.Names))
	switch {
	case res.Rule == NoRule:
		res.Action, res.Reason = s.fallback(k, st)
	case res.Action == verdict.Allow && c.Rules[res.Rule].DropQUIC && isQUIC(k):
		res.Action, res.Reason = verdict.Reject, verdict.ReasonQUIC
	case res.Action == verdict.Allow && c.Rules[res.Rule].hidesRequest(k):
		res.Action, res.Reason = verdict.Drop, verdict.ReasonNameUnreadable
	}
	return res
}

// Classes is a packet's class in each dimension in use, 0 elsewhere. A packet
// can have several names; Of[Name] is the class of the first.
type Classes struct {
	Of    [DimensionCount]uint16
	Names []uint16 // of the other names
}

// Match finds the rules that a packet of these classes meets. Where no rule
// decides, Rule is NoRule and Action the default.
func (c *Chain) Match(classes Classes) Result {
	res := Result{Action: c.Default, Reason: verdict.ReasonDefault, Rule: NoRule}
	if len(c.Rules) == 0 {
		return res
	}
	for summary := c.summary(classes); summary != 0; summary &= summary - 1 {
		w := bits.TrailingZeros64(summary)
		for word := c.And(classes, w); word != 0; word &= word - 1 {
			r := w*64 + bits.TrailingZeros64(word)
			if c.Rules[r].Action.Decides() {
				res.Rule, res.Action, res.Reason = r, c.Rules[r].Action, verdict.ReasonRule
				return res
			}
			res.Continues = append(res.Continues, r)
		}
	}
	return res
}

// summary tells in which words the classes may have a rule in common.
func (c *Chain) summary(classes Classes) uint64 {
	summary := firstBits(c.Words)
	for d := range DimensionCount {
		if !c.Used[d] || c.Words == 1 {
			continue
		}
		of := c.Vectors[d].row(classes.Of[d])[0]
		if d == Name {
			for _, class := range classes.Names {
				of |= c.Vectors[d].row(class)[0]
			}
		}
		summary &= of
	}
	return summary
}

// And combines word i of the classes' vectors over the dimensions in use. With
// no dimension in use, every rule matches every packet.
func (c *Chain) And(classes Classes, i int) uint64 {
	word := c.All(i)
	for d := range DimensionCount {
		if c.Used[d] {
			word &= c.word(classes, d, i)
		}
	}
	return word
}

// word is word i of what the packet has in a dimension. A rule that asks for
// names is met if one of the packet's is among them.
func (c *Chain) word(classes Classes, d Dimension, i int) uint64 {
	word := c.Vectors[d].Word(classes.Of[d], i)
	if d == Name {
		for _, class := range classes.Names {
			word |= c.Vectors[d].Word(class, i)
		}
	}
	return word
}

// All is word i of a vector in which every rule matches.
func (c *Chain) All(i int) uint64 { return firstBits(len(c.Rules) - i*64) }

func firstBits(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

func (v *VectorTable) row(class uint16) []uint64 { return v.Words[int(class)*v.Stride:][:v.Stride] }

// Word is word i of a class's vector.
func (v *VectorTable) Word(class uint16, i int) uint64 {
	row := v.row(class)
	if v.Stride == 1 {
		return row[0]
	}
	if row[0]>>i&1 == 0 {
		return 0
	}
	return row[1+bits.OnesCount64(row[0]&(1<<i-1))]
}

// Vector is a class's vector in full.
func (c *Chain) Vector(d Dimension, class uint16) []uint64 {
	out := make([]uint64, c.Words)
	for i := range out {
		out[i] = c.Vectors[d].Word(class, i)
	}
	return out
}

// Classes gives the classes of a packet whose destination has these names.
func (c *Chain) Classes(k *packet.Key, names []string) (classes Classes) {
	of := &classes.Of
	if c.Used[Destination] && k.Has(packet.HaveDst) {
		of[Destination] = c.Addresses[0].Class(k.Dst)
	}
	if c.Used[Source] && k.Has(packet.HaveSrc) {
		of[Source] = c.Addresses[1].Class(k.Src)
	}
	if k.Has(packet.HaveProto) {
		if c.Used[Service] {
			of[Service] = c.Selectors[0].Class(k.Proto, k.Selector, k.Has(packet.HaveTransport))
		}
		if c.Used[SourcePort] {
			of[SourcePort] = c.Selectors[1].Class(k.Proto, k.SourcePort, k.Has(packet.HaveTransport))
		}
	}
	if c.Used[Name] && k.Has(packet.HaveDst) {
		for i, name := range names {
			class, _ := c.Names.Class(name)
			if i == 0 {
				of[Name] = class
			} else {
				classes.Names = append(classes.Names, class)
			}
		}
	}
	return classes
}

// Class finds the class of a protocol and selector.
func (t *SelectorTable) Class(proto uint8, selector uint16, readable bool) uint16 {
	e := t.Protos[proto]
	if e.Row == NoRow || !readable {
		return e.Class
	}
	return t.Pages[t.Rows[e.Row][selector>>8]][selector&255]
}

// fallback decides what no rule decided.
func (s *Set) fallback(k *packet.Key, st State) (verdict.Action, verdict.Reason) {
	c := &s.Chains[k.Direction]
	if c.Default != verdict.Allow {
		switch {
		case isNeighbour(k):
			return verdict.Allow, verdict.ReasonNeighbour
		case isDHCPClient(k):
			return verdict.Allow, verdict.ReasonDHCP
		case s.DNS.InUse && isDNS(k, st):
			return verdict.Allow, verdict.ReasonDNS
		case c.Replies && st.Reply:
			return verdict.Allow, verdict.ReasonReply
		case c.Replies && st.ReplyError:
			return verdict.Allow, verdict.ReasonReplyError
		}
	}
	switch {
	case k.Problem != verdict.ReasonRule:
		return c.Default, k.Problem
	case k.Fragment == packet.LaterFragment:
		return c.Default, verdict.ReasonFragmentUnknown
	}
	return c.Default, verdict.ReasonDefault
}

// isNeighbour tells IPv6 neighbour discovery (RFC 4861, hop limit 255) and the
// multicast listener reports that it needs behind switches which snoop them
// (RFC 2710, RFC 3810, hop limit 1). A fragment is neither (RFC 6980).
func isNeighbour(k *packet.Key) bool {
	if k.Family != 6 || !k.HasICMP() || k.Proto != packet.ProtoICMPv6 || k.Fragment != packet.NotFragment {
		return false
	}
	switch t := k.Selector >> 8; t {
	case 133, 134, 135, 136, 137:
		return k.HopLimit == 255
	case 130, 131, 132, 143:
		return k.HopLimit == 1
	}
	return false
}

// isDHCPClient tells DHCP and DHCPv6 between a client on this side and a server
// on the other.
func isDHCPClient(k *packet.Key) bool {
	if k.Proto != packet.ProtoUDP || !k.HasPorts() || k.Fragment != packet.NotFragment {
		return false
	}
	client, server := uint16(68), uint16(67)
	if k.Family == 6 {
		client, server = 546, 547
	}
	if k.Direction == verdict.Egress {
		return k.SourcePort == client && k.Selector == server
	}
	return k.SourcePort == server && k.Selector == client
}

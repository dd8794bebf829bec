package tables

import (
	"bufio"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/verdict"
)

// Dump writes the tables as text for people and for golden files: every rule,
// every class and what falls into it. Equal sets give equal text. It may be
// long: a line for each interval. Errors are those of w.
func (s *Set) Dump(w io.Writer) error {
	out := bufio.NewWriter(w)
	mode := "enforce"
	if s.Audit {
		mode = "audit"
	}
	fmt.Fprintf(out, "policy %q, mode %s, %d flows\n", s.Name, mode, s.MaxFlows)
	fmt.Fprintf(out, "interfaces %s\n", strings.Join(s.Interfaces, " "))
	if s.DNS.InUse {
		s.DNS.dump(out)
	}
	for _, dir := range verdict.Directions {
		s.Chains[dir].dump(out, dir)
	}
	return out.Flush()
}

func (c *Chain) dump(out *bufio.Writer, dir verdict.Direction) {
	fmt.Fprintf(out, "\n%s: default %s, events %s", dir, c.Default, eventText(c.Events))
	if c.Replies {
		out.WriteString(", replies pass")
	}
	if c.Track {
		out.WriteString(", connections are remembered")
	}
	out.WriteString("\n")
	for i, r := range c.Rules {
		fmt.Fprintf(out, "  rule %d: %s %s, line %d, events %s%s\n", i, r.Action, r.Label, r.Line, eventText(r.Events), r.namesText())
	}
	if len(c.Rules) > 0 {
		fmt.Fprintf(out, "  deciding: %s\n", ruleList(c.Deciding))
	}
	for d := range DimensionCount {
		if !c.Used[d] {
			continue
		}
		fmt.Fprintf(out, "  %s\n", d)
		switch d {
		case Destination, Source:
			c.Addresses[d].dump(out)
		case Name:
			c.Names.dump(out)
		default:
			c.Selectors[d-Service].dump(out)
		}
		for class := range c.ClassCount(d) {
			fmt.Fprintf(out, "    class %d: rules %s\n", class, ruleList(c.Vector(d, uint16(class))))
		}
	}
}

func (d *DNS) dump(out *bufio.Writer) {
	servers, names, types, rate := "of the host", "any", "any type", "any rate"
	if d.Servers != nil {
		servers = joined(d.Servers)
	}
	if d.ListedOnly {
		names = "listed, others refused"
		if d.NXDomain {
			names = "listed, others do not exist"
		}
	}
	if d.Types != nil {
		types = "types " + joined(d.Types)
	}
	if d.Rate != (policy.EventRate{}) {
		rate = eventText(d.Rate)
	}
	fmt.Fprintf(out, "dns: servers %s; questions for names %s, %s, labels up to %d, %s; elsewhere %s\n",
		servers, names, types, d.MaxLabel, rate, d.Elsewhere)
}

func joined[T any](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

// namesText says what the rule wants beside a name of the destination.
func (r *Rule) namesText() string {
	if !r.Named {
		return ""
	}
	text := [...]string{
		policy.VerifyNone:      ", by name",
		policy.VerifyWellKnown: ", by name, verified on 443 and 80",
		policy.VerifyAll:       ", by name, verified",
	}[r.Verify]
	if r.DropECH {
		text += ", no ech"
	}
	if r.DropQUIC {
		text += ", no quic"
	}
	return text
}

func (t *NameTable) dump(out *bufio.Writer) {
	fmt.Fprintf(out, "    %d entries\n", len(t.Entries))
	ask := map[bool]string{true: " (may be asked for)"}
	for _, e := range t.Entries {
		fmt.Fprintf(out, "    %s class %d%s, below class %d%s\n", e.Name, e.Exact, ask[e.AskExact], e.Below, ask[e.AskBelow])
	}
}

func (t *AddressTable) dump(out *bufio.Writer) {
	fmt.Fprintf(out, "    %d lines\n", len(t.Lines))
	for first, class := range t.Intervals() {
		fmt.Fprintf(out, "    from %s class %d\n", first, class)
	}
}

func (t *SelectorTable) dump(out *bufio.Writer) {
	fmt.Fprintf(out, "    %d rows, %d pages\n", len(t.Rows), len(t.Pages))
	for proto, e := range t.Protos {
		name := packet.ProtoName(uint8(proto))
		if e.Row == NoRow {
			if e.Class != 0 {
				fmt.Fprintf(out, "    %s: class %d\n", name, e.Class)
			}
			continue
		}
		fmt.Fprintf(out, "    %s, row %d: class %d where unreadable\n", name, e.Row, e.Class)
		class := func(selector int) uint16 { return t.Class(uint8(proto), uint16(selector), true) }
		for first := 0; first < 1<<16; {
			last := first
			for last+1 < 1<<16 && class(last+1) == class(first) {
				last++
			}
			fmt.Fprintf(out, "      %s: class %d\n", selectorRange(uint8(proto), uint16(first), uint16(last)), class(first))
			first = last + 1
		}
	}
}

// selectorRange writes ports as numbers, ICMP types and codes as type/code.
func selectorRange(proto uint8, first, last uint16) string {
	text := func(s uint16) string {
		if proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 {
			return fmt.Sprintf("%d/%d", s>>8, s&255)
		}
		return fmt.Sprint(s)
	}
	if first == last {
		return text(first)
	}
	return text(first) + "-" + text(last)
}

func eventText(e policy.EventRate) string {
	switch {
	case e.Burst == 0:
		return "none"
	case e.Interval == 0:
		return "all"
	}
	return fmt.Sprintf("%d, then one each %s", e.Burst, e.Interval)
}

// ruleList writes the indexes of the bits set, runs as first-last.
func ruleList(words []uint64) string {
	var parts []string
	first, last := -1, -1
	flush := func() {
		switch {
		case first < 0:
		case first == last:
			parts = append(parts, fmt.Sprint(first))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", first, last))
		}
	}
	for i, word := range words {
		for ; word != 0; word &= word - 1 {
			r := i*64 + bits.TrailingZeros64(word)
			if first < 0 || r != last+1 {
				flush()
				first = r
			}
			last = r
		}
	}
	flush()
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

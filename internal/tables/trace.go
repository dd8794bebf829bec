package tables

import (
	"fmt"
	"math/bits"
	"strings"

	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/verdict"
)

// firstLabels is how many of the rules left a Step names.
const firstLabels = 5

// Trace is how a packet gets its verdict, for people.
type Trace struct {
	Direction string `json:"direction"`

	// Skipped says why no rule was asked, or is empty.
	Skipped string `json:"skipped,omitempty"`
	Rules   int    `json:"rules"` // of the policy's chain

	// MergedTo is how many rules those of the policy became, where some were
	// merged; the steps count these.
	MergedTo int    `json:"merged_to,omitempty"`
	Steps    []Step `json:"steps,omitempty"`

	Continues  []RuleRef `json:"continues,omitempty"` // that matched on the way
	Rule       *RuleRef  `json:"rule,omitempty"`      // that decided; nil for the default
	Default    string    `json:"default"`
	Verdict    string    `json:"verdict"`
	Reason     string    `json:"reason"`
	ReasonText string    `json:"reason_text"`
	Audit      bool      `json:"audit,omitempty"` // the verdict is counted and reported, not enforced

	Result Result `json:"-"` // what Lookup gives
}

// Step is one dimension that the chain's rules ask for.
type Step struct {
	Dimension string   `json:"dimension"`
	Value     string   `json:"value"` // the packet's
	Class     uint16   `json:"class"` // of several names the first one's
	Names     []Named  `json:"names,omitempty"`
	Left      int      `json:"left"`            // rules that match in this dimension and those before
	First     []string `json:"first,omitempty"` // labels of the first few of them
}

// Named is one of the names of a packet's destination.
type Named struct {
	Name  string `json:"name"`
	Entry string `json:"entry,omitempty"` // of the table of names, that decides its class; "*.x" where it is below x
	Class uint16 `json:"class"`
}

// RuleRef names a rule of the tables. Index and Line are those of the first
// rule of the policy that it stands for.
type RuleRef struct {
	Index    int        `json:"index"` // in the policy's chain, from 0
	Label    string     `json:"label"`
	Action   string     `json:"action"`
	Line     int        `json:"line"`
	Merged   int        `json:"merged,omitempty"`    // how many rules it stands for, if several
	LastLine int        `json:"last_line,omitempty"` // of the last of them
	Matched  *MemberRef `json:"matched,omitempty"`   // which of them the packet meets first; see Locate
}

// MemberRef is one of the rules of the policy that were merged.
type MemberRef struct {
	Index int `json:"index"` // in the policy's chain, from 0
	Line  int `json:"line"`
}

// Lines is as that of Rule.
func (r *RuleRef) Lines() string { return linesText(r.Line, r.LastLine) }

// Trace judges a packet as Lookup does and tells each step.
func (s *Set) Trace(k *packet.Key, st State) Trace {
	c := &s.Chains[k.Direction]
	res := s.Lookup(k, st)
	t := Trace{
		Direction:  k.Direction.String(),
		Rules:      c.PolicyRules(),
		Default:    c.Default.String(),
		Verdict:    res.Action.String(),
		Reason:     res.Reason.String(),
		ReasonText: res.Reason.Text(),
		Audit:      s.Audit,
		Result:     res,
	}
	if len(c.Rules) < t.Rules {
		t.MergedTo = len(c.Rules)
	}
	switch {
	case !k.IP:
		t.Skipped = "no rule is asked: the packet is not IP"
	case res.Reason == verdict.ReasonFragment:
		t.Skipped = "no rule is asked: the first fragment's verdict holds"
	case res.Reason == verdict.ReasonDNSElsewhere:
		t.Skipped = "no rule is asked: the section dns says what becomes of DNS elsewhere"
	default:
		t.Steps = c.steps(k, st.Names)
	}
	for _, r := range res.Continues {
		t.Continues = append(t.Continues, c.Ref(r))
	}
	if res.Rule >= 0 && res.Rule < len(c.Rules) {
		ref := c.Ref(res.Rule)
		t.Rule = &ref
	}
	return t
}

// Ref names rule r.
func (c *Chain) Ref(r int) RuleRef {
	rule := &c.Rules[r]
	ref := RuleRef{Index: rule.First, Label: rule.Label, Action: rule.Action.String(), Line: rule.Line}
	if rule.Merged() {
		ref.Merged, ref.LastLine = rule.Count, rule.LastLine
	}
	return ref
}

// Locate fills in which rule of the policy the packet meets, where the rule
// that decided stands for several. c is the chain of the trace, rules are what
// it was compiled from, and names what the destination is known as.
func (t *Trace) Locate(c *Chain, rules []policy.Rule, k *packet.Key, names []string) {
	if t.Rule == nil || t.Rule.Merged == 0 {
		return
	}
	if i, ok := c.Member(rules, t.Result.Rule, k, names); ok {
		t.Rule.Matched = &MemberRef{i, rules[i].Pos.Line}
	}
}

// steps narrows the rules down, dimension by dimension.
func (c *Chain) steps(k *packet.Key, names []string) []Step {
	var out []Step
	classes := c.Classes(k, names)
	left := make([]uint64, c.Words)
	for i := range left {
		left[i] = c.All(i)
	}
	for d := range DimensionCount {
		if !c.Used[d] {
			continue
		}
		step := Step{Dimension: d.String(), Class: classes.Of[d]}
		if d == Name {
			step.Names = c.named(k, names)
			step.Value = namesValue(k, step.Names)
		} else {
			step.Value = valueText(k, d)
		}
		for i := range left {
			left[i] &= c.word(classes, d, i)
			step.Left += bits.OnesCount64(left[i])
			for word := left[i]; word != 0 && len(step.First) < firstLabels; word &= word - 1 {
				step.First = append(step.First, c.Rules[i*64+bits.TrailingZeros64(word)].Label)
			}
		}
		out = append(out, step)
	}
	return out
}

// named looks the destination's names up one by one.
func (c *Chain) named(k *packet.Key, names []string) []Named {
	if !k.Has(packet.HaveDst) {
		return nil
	}
	var out []Named
	for _, name := range names {
		n := Named{Name: name}
		n.Class, _ = c.Names.Class(name)
		if e, exact := c.Names.Entry(name); exact {
			n.Entry = e.Name
		} else if e != nil {
			n.Entry = "*." + e.Name
		}
		out = append(out, n)
	}
	return out
}

func namesValue(k *packet.Key, names []Named) string {
	switch {
	case !k.Has(packet.HaveDst):
		return "destination " + unreadable
	case len(names) == 0:
		return "none known"
	}
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = n.Name
		switch {
		case n.Class == 0:
			texts[i] += " (in no rule)"
		case n.Entry != n.Name:
			texts[i] += " (" + n.Entry + ")"
		}
	}
	return strings.Join(texts, ", ")
}

// classText is the class of a step, or the classes of the names.
func classText(s Step) string {
	if len(s.Names) < 2 {
		return fmt.Sprintf("class %d", s.Class)
	}
	classes := make([]string, len(s.Names))
	for i, n := range s.Names {
		classes[i] = fmt.Sprint(n.Class)
	}
	last := len(classes) - 1
	return "classes " + strings.Join(classes[:last], ", ") + " and " + classes[last]
}

const unreadable = "could not be read"

// valueText is what a packet has in a dimension.
func valueText(k *packet.Key, d Dimension) string {
	switch {
	case d == Destination && k.Has(packet.HaveDst):
		return k.Dst.String()
	case d == Source && k.Has(packet.HaveSrc):
		return k.Src.String()
	case d == Service && k.Has(packet.HaveProto):
		return serviceText(k)
	case d == SourcePort && k.HasPorts():
		return fmt.Sprintf("%s/%d", packet.ProtoName(k.Proto), k.SourcePort)
	case d == SourcePort && k.Has(packet.HaveProto):
		switch k.Proto {
		case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
			return packet.ProtoName(k.Proto) + ", ports " + unreadable
		}
		return protoText(k.Proto) + ", no ports"
	}
	return unreadable
}

func serviceText(k *packet.Key) string {
	name := protoText(k.Proto)
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		if k.HasPorts() {
			return fmt.Sprintf("%s/%d", name, k.Selector)
		}
		return name + ", ports " + unreadable
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if !k.HasICMP() {
			return name + ", type " + unreadable
		}
		text := fmt.Sprintf("%s type %d code %d", name, k.Selector>>8, k.Selector&255)
		if message, ok := packet.ICMPName(k.Proto, k.Selector); ok {
			text += " (" + message + ")"
		}
		return text
	}
	return name
}

// protoText is a protocol's name, or its number said to be one.
func protoText(proto uint8) string {
	name := packet.ProtoName(proto)
	if name[0] >= '0' && name[0] <= '9' {
		return "protocol " + name
	}
	return name
}

// Text writes the trace for a terminal, a line for each step.
func (t *Trace) Text() string {
	var b strings.Builder
	merged := ""
	if t.MergedTo > 0 {
		merged = fmt.Sprintf(" merged to %d", t.MergedTo)
	}
	fmt.Fprintf(&b, "%-12s  %d rules%s, default %s\n", t.Direction, t.Rules, merged, t.Default)
	if t.Skipped != "" {
		fmt.Fprintf(&b, "%-12s  %s\n", "rules", t.Skipped)
	}
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "%-12s  %s: %s, %s\n", s.Dimension, s.Value, classText(s), leftText(s))
	}
	for _, r := range t.Continues {
		fmt.Fprintf(&b, "%-12s  rule %s (line %d)\n", "continue", r.Label, r.Line)
	}
	switch {
	case t.Rule != nil && t.Reason == verdict.ReasonRule.String():
		fmt.Fprintf(&b, "%-12s  rule %s (%s)%s", t.Verdict, t.Rule.Label, t.Rule.Lines(), matchedText(t.Rule))
	case t.Rule != nil:
		fmt.Fprintf(&b, "%-12s  %s: %s, rule %s (%s)%s", t.Verdict, t.Reason, t.ReasonText, t.Rule.Label, t.Rule.Lines(), matchedText(t.Rule))
	default:
		fmt.Fprintf(&b, "%-12s  %s: %s", t.Verdict, t.Reason, t.ReasonText)
	}
	if t.Audit && t.Verdict != verdict.Allow.String() {
		b.WriteString("; mode audit: counted and reported, but the packet passes")
	}
	b.WriteString("\n")
	return b.String()
}

// matchedText names the rule of the policy that was met.
func matchedText(r *RuleRef) string {
	if r.Matched == nil {
		return ""
	}
	return fmt.Sprintf(": it is rule #%d (line %d)", r.Matched.Index+1, r.Matched.Line)
}

func leftText(s Step) string {
	switch s.Left {
	case 0:
		return "no rule left"
	case 1:
		return "1 rule left: " + s.First[0]
	}
	text := fmt.Sprintf("%d rules left: %s", s.Left, strings.Join(s.First, ", "))
	if s.Left > len(s.First) {
		text += ", ..."
	}
	return text
}

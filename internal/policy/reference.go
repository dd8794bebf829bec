package policy

import (
	"fmt"
	"strings"
)

// Reference is the part of docs/POLICY.md that follows from the tables: every
// key with its meaning and an example, protocols, ICMP messages and types of
// DNS questions.
func Reference() string {
	var b strings.Builder
	for _, o := range objects {
		o.reference(&b)
	}
	b.WriteString("### Protocol names\n\n")
	for i, p := range protocols {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "`%s` %d", p.name, p.number)
	}
	b.WriteString(".\n\n### ICMP names\n\nA dash stands for a family that has no such message.\n\n| name | ICMP | ICMPv6 |\n|---|---|---|\n")
	for _, m := range icmpMessages {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, typeAndCode(m.type4, m.code4), typeAndCode(m.type6, m.code6))
	}
	b.WriteString("\n### Types of questions\n\n")
	for i, t := range questionTypes {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "`%s` %d", t.name, t.number)
	}
	b.WriteString(".\n")
	return b.String()
}

func (o *object) reference(b *strings.Builder) {
	fmt.Fprintf(b, "### %s\n\n%s\n", o.name, o.doc)
	if len(o.exactlyOne) > 0 {
		fmt.Fprintf(b, "It has exactly one of the keys `%s`.\n", strings.Join(o.exactlyOne, "`, `"))
	}
	for _, k := range o.keys {
		fmt.Fprintf(b, "\n**`%s`**: %s", k.name, k.shape.describe())
		switch {
		case k.required:
			b.WriteString("; required")
		case k.absent != "":
			fmt.Fprintf(b, "; if absent: %s", k.absent)
		}
		fmt.Fprintf(b, ".\n%s\n\n```yaml\n%s\n```\n", k.doc, k.example)
	}
	b.WriteString("\n")
}

// describe says in words what a value may be.
func (s *shape) describe() string {
	switch {
	case s.kind == section:
		return "a mapping, see [" + s.object.name + "](#" + s.object.name + ")"
	case s.kind == named:
		return "a mapping of names, each with a mapping, see [" + s.of.object.name + "](#" + s.of.object.name + ")"
	case s.kind == list && s.of.kind == section:
		return "a list of mappings, see [" + s.of.object.name + "](#" + s.of.object.name + ")"
	case s.kind == list:
		return "a list; each element is " + s.of.what
	case s.number && s.pattern == "" && s.min == s.max:
		return fmt.Sprintf("the number %d", s.min)
	case s.number && s.pattern == "":
		return fmt.Sprintf("a whole number from %d to %d", s.min, s.max)
	}
	return s.what
}

func typeAndCode(typ, code int) string {
	switch {
	case typ == none:
		return "-"
	case code == anyCode:
		return fmt.Sprint(typ)
	}
	return fmt.Sprintf("%d/%d", typ, code)
}

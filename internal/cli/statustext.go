package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"egate/internal/cli/table"
	"egate/internal/datapath"
	"egate/internal/verdict"
)

// writeStatus prints a gate for people; now is what ages are counted to.
func writeStatus(w io.Writer, s *datapath.Status, width int, now time.Time) error {
	line := func(head, text string) {
		fmt.Fprintln(w, table.Wrap(fmt.Sprintf("  %-8s  ", head), table.Clean(text), width))
	}
	fmt.Fprintln(w, table.Wrap("gate "+s.Gate+": ", headline(s), width))
	if s.Path != "" {
		line("file", fmt.Sprintf("%s, sha256 %.12s", s.Path, s.SHA256))
		line("applied", fmt.Sprintf("%s, %s ago", s.Applied.Format(time.DateTime), table.Duration(max(now.Sub(s.Applied), 0))))
		line("hook", fmt.Sprintf("%s, generation %d", s.Hook, s.Generation))
	}
	if s.Names.InUse {
		line("names", "learned from the DNS answers of "+serverList(s.Names.Servers))
	}
	if s.Deadline != nil {
		line("trial", trialText(s, now))
	}
	for _, p := range s.Problems {
		line("problem", p)
	}
	if len(s.Interfaces) == 0 {
		return nil
	}
	tables := []*table.Table{interfaceTable(s)}
	for _, d := range verdict.Directions {
		tables = append(tables, ruleTable(d, &s.Chains[d]))
	}
	for _, t := range append(tables, protocolTable(s), reasonTable(s)) {
		if t.Len() == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := t.Write(w, width); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	for _, text := range append(totalsText(s), namesText(s)...) {
		fmt.Fprintln(w, table.Wrap("", text, width))
	}
	return nil
}

// headline is the policy and how it stands.
func headline(s *datapath.Status) string {
	text := fmt.Sprintf("%s, %s", policyTitle(s.Policy), s.State)
	if s.Audit {
		text += ", in audit mode: BLOCKED counts what would be blocked, and everything passes"
	}
	return text
}

func trialText(s *datapath.Status, now time.Time) string {
	if s.State == datapath.Reverted {
		return fmt.Sprintf("the policy after this one was not confirmed by %s, so this one is in force again", s.Deadline.Format(time.TimeOnly))
	}
	text := fmt.Sprintf("%s left for \"egate confirm%s\"", table.Duration(max(s.Deadline.Sub(now), 0)), flagFor(s.Gate))
	if s.Previous != "" {
		return text + ", or policy " + s.Previous + " comes back"
	}
	return text + ", or what was before comes back"
}

// interfaceTable has a row for each program of each hook, in the order in which
// packets meet them. What the gate counted stands beside its own.
func interfaceTable(s *datapath.Status) *table.Table {
	t := table.New(
		table.Column{Head: "INTERFACE", Min: 9},
		table.Column{Head: "HOOK"},
		table.Column{Head: "PROGRAMS IN ORDER", Min: 12},
		table.Column{Head: "PASSED", Right: true},
		table.Column{Head: "BLOCKED", Right: true},
	)
	for _, i := range s.Interfaces {
		name := i.Name
		if i.Gone {
			name += " (gone)"
		}
		if i.DNSOnly {
			name += " (DNS only)"
		}
		for _, d := range verdict.Directions {
			h := &i.Hooks[d]
			passed, blocked := table.Count(h.Allowed.Packets), table.Count(h.Dropped.Packets+h.Rejected.Packets)
			counts := []string{passed, blocked}
			if i.DNSOnly {
				counts = nil // nothing is judged there
			}
			if !h.Attached {
				t.Add(append([]string{name, d.String(), "(not attached)"}, counts...)...)
			}
			for n, p := range h.Programs {
				row := []string{name, d.String(), programText(p)}
				if h.Attached && n == h.Position-1 {
					row = append(row, counts...)
				}
				t.Add(row...)
			}
		}
	}
	return t
}

func programsText(programs []datapath.Program) string {
	if len(programs) == 0 {
		return "none"
	}
	texts := make([]string, len(programs))
	for i, p := range programs {
		texts[i] = programText(p)
	}
	return strings.Join(texts, ", ")
}

// programText is "egate/GATE", or the name of another's program and its id.
func programText(p datapath.Program) string {
	switch {
	case p.Gate != "":
		return "egate/" + p.Gate
	case p.ID == 0:
		return p.Name
	case p.Name == "":
		return fmt.Sprintf("#%d", p.ID)
	}
	return fmt.Sprintf("%s#%d", p.Name, p.ID)
}

// ruleTable has one row a rule and one for the default. Allowed and continued
// packets passed the rule; dropped and rejected ones are blocked.
func ruleTable(d verdict.Direction, c *datapath.ChainStatus) *table.Table {
	t := table.New(
		table.Column{Head: strings.ToUpper(d.String()) + " RULE", Min: 12},
		table.Column{Head: "ACTION"},
		table.Column{Head: "PASSED", Right: true},
		table.Column{Head: "BLOCKED", Right: true},
		table.Column{Head: "BYTES", Right: true},
	)
	add := func(label, action string, r datapath.RuleCounters) {
		t.Add(label, action,
			table.Count(r.Allowed.Packets+r.Continued.Packets),
			table.Count(r.Dropped.Packets+r.Rejected.Packets),
			table.Bytes(r.Allowed.Bytes+r.Continued.Bytes+r.Dropped.Bytes+r.Rejected.Bytes))
	}
	for _, r := range c.Rules {
		add(r.Label, r.Action, r.RuleCounters)
	}
	add(defaultRule, c.Default, c.Fallback)
	return t
}

// defaultRule is what people see where no rule decided.
const defaultRule = "(default)"

func protocolTable(s *datapath.Status) *table.Table {
	t := table.New(
		table.Column{Head: "PROTOCOL", Min: 8},
		table.Column{Head: "WAY"},
		table.Column{Head: "PASSED", Right: true},
		table.Column{Head: "BLOCKED", Right: true},
		table.Column{Head: "BYTES", Right: true},
	)
	for _, d := range verdict.Directions {
		for _, p := range s.Totals[d].Protocols {
			name := p.Name
			if name == "" {
				name = "(unreadable)"
			}
			t.Add(name, d.String(), table.Count(p.Passed.Packets), table.Count(p.Blocked.Packets),
				table.Bytes(p.Passed.Bytes+p.Blocked.Bytes))
		}
	}
	return t
}

func reasonTable(s *datapath.Status) *table.Table {
	t := table.New(
		table.Column{Head: "DECIDED BY", Min: 10},
		table.Column{Head: "WAY"},
		table.Column{Head: "PACKETS", Right: true},
		table.Column{Head: "BYTES", Right: true},
	)
	for _, d := range verdict.Directions {
		for _, r := range s.Totals[d].Reasons {
			t.Add(r.Reason, d.String(), table.Count(r.Packets), table.Bytes(r.Bytes))
		}
	}
	return t
}

// totalsText says the rest in lines; failures are left out where there are none.
func totalsText(s *datapath.Status) []string {
	var answers datapath.AnswerTotals
	var events datapath.EventTotals
	for _, d := range s.Totals {
		answers.Sent += d.Answers.Sent
		answers.Failed += d.Answers.Failed
		events.Sent += d.Events.Sent
		events.Lost += d.Events.Lost
		events.Suppressed += d.Events.Suppressed
	}
	return []string{
		fmt.Sprintf("answers to rejected packets: %s sent%s", table.Count(answers.Sent), unlessZero(answers.Failed, "failed")),
		fmt.Sprintf("events: %s sent%s%s", table.Count(events.Sent),
			unlessZero(events.Lost, "lost because nobody read them"), unlessZero(events.Suppressed, "over their rate")),
		fmt.Sprintf("connections remembered: %s of %s%s", table.Count(s.Flows.Known), table.Count(s.Flows.Max),
			unlessZero(s.Flows.Failed, "failed")),
	}
}

func unlessZero(n uint64, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %s %s", table.Count(n), what)
}

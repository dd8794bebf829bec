package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"egate/internal/cli/table"
	"egate/internal/datapath"
	"egate/internal/verdict"
)

// How much of the names a terminal is given. Programs and files get all.
const (
	latestNames       = 10 // of status
	mostNames         = 100
	mostNameAddresses = 3 // of a name
)

// writeLatestNames prints the names that were learned last, and how many more
// there are.
func writeLatestNames(w io.Writer, gate string, names []datapath.NameStatus, width int, now time.Time) error {
	if len(names) == 0 {
		return nil
	}
	latest := slices.Clone(names)
	slices.SortStableFunc(latest, func(a, b datapath.NameStatus) int { return b.Seen.Compare(a.Seen) })
	latest = latest[:min(len(latest), latestNames)]
	fmt.Fprintln(w)
	if err := nameTable(latest, mostNameAddresses, now).Write(w, width); err != nil {
		return err
	}
	if more := len(names) - len(latest); more > 0 {
		fmt.Fprintln(w, table.Wrap("", fmt.Sprintf("... and %s more, learned before: egate status --names%s", table.Count(uint64(more)), flagFor(gate)), width))
	}
	return nil
}

// writeNames prints what `status --names` shows of a gate: names sorted, all of
// them where no terminal limits it.
func writeNames(w io.Writer, r *GateReport, width int, now time.Time) error {
	fmt.Fprintln(w, table.Wrap("gate "+r.Gate+": ", headline(r.Status), width))
	if len(r.Learned) == 0 {
		fmt.Fprintln(w, "  no names are known")
		return nil
	}
	names, addresses := r.Learned, 0
	if width > 0 {
		names, addresses = names[:min(len(names), mostNames)], mostNameAddresses
	}
	fmt.Fprintln(w)
	if err := nameTable(names, addresses, now).Write(w, width); err != nil {
		return err
	}
	if more := len(r.Learned) - len(names); more > 0 {
		fmt.Fprintln(w, table.Wrap("", fmt.Sprintf("... and %s more: egate status --names%s | less", table.Count(uint64(more)), flagFor(r.Gate)), width))
	}
	return nil
}

// nameTable has a row for each address of a name. Where most is not 0 it shows
// so many of a name's addresses, and the name once; else each row is complete,
// for who searches in it.
func nameTable(names []datapath.NameStatus, most int, now time.Time) *table.Table {
	t := table.New(
		table.Column{Head: "NAME", Min: 20, KeepEnd: true},
		table.Column{Head: "ADDRESSES", Min: 15},
		table.Column{Head: "LIVES"},
		table.Column{Head: "RULES", Min: 6},
		table.Column{Head: "CONNS", Right: true},
	)
	for i := range names {
		n := &names[i]
		name, rules, connections := nameText(n.Name), list(n.Rules), table.Count(uint64(n.Connections))
		if len(n.Addresses) == 0 {
			t.Add(name, "-", "", rules, connections)
			continue
		}
		shown := n.Addresses
		if most > 0 && len(shown) > most {
			shown = latestAddresses(shown, most)
		}
		for j, a := range shown {
			address, lives := a.Address.String(), livesText(a.Expires.Sub(now))
			if j > 0 && most > 0 {
				t.Add("", address, lives)
			} else {
				t.Add(name, address, lives, rules, connections)
			}
		}
		if more := len(n.Addresses) - len(shown); more > 0 {
			t.Add("", fmt.Sprintf("and %s more", table.Count(uint64(more))))
		}
	}
	return t
}

// latestAddresses picks those that live longest, in the order of the list.
func latestAddresses(all []datapath.NameAddress, most int) []datapath.NameAddress {
	latest := slices.SortedStableFunc(slices.Values(all), func(a, b datapath.NameAddress) int { return b.Expires.Compare(a.Expires) })[:most]
	slices.SortFunc(latest, func(a, b datapath.NameAddress) int {
		return cmp.Or(a.Address.Compare(b.Address), a.Expires.Compare(b.Expires))
	})
	return latest
}

// nameText is a name for people.
func nameText(name string) string {
	if name == "" {
		return "(forgotten)" // its text was evicted; its hash still opens addresses
	}
	return name
}

// livesText is the rest of a lifetime in one unit: TTLs are a day at the most.
func livesText(left time.Duration) string {
	switch {
	case left <= 0:
		return "ended"
	case left < 100*time.Second:
		return fmt.Sprintf("%d s", (left+time.Second-1)/time.Second)
	case left < 100*time.Minute:
		return fmt.Sprintf("%d min", left/time.Minute)
	}
	return fmt.Sprintf("%d h", left/time.Hour)
}

// refusals are the reasons why questions do not leave.
var refusals = []verdict.Reason{
	verdict.ReasonDNSUnlisted, verdict.ReasonDNSType, verdict.ReasonDNSLabel, verdict.ReasonDNSRate, verdict.ReasonDNSQuestion,
}

// namesText says in lines what became of questions, answers and what they told.
// What did not happen is left out; there are no lines where no names were used.
func namesText(s *datapath.Status) []string {
	n := &s.Names
	if !n.InUse && len(n.Messages) == 0 {
		return nil
	}
	lines := []string{knownText(n), questionsText(s)}
	if text := answersText(n); text != "" {
		lines = append(lines, text)
	}
	if n.Unread.Sent+n.Unread.Lost > 0 {
		lines = append(lines, fmt.Sprintf("answers left to egate daemon: %s%s", table.Count(n.Unread.Sent),
			unlessZero(n.Unread.Lost, "lost because it did not read them in time")))
	}
	if a := &n.Addresses; a.New+a.Prolonged+a.Special+a.Displaced > 0 {
		lines = append(lines, fmt.Sprintf("addresses learned: %s new, %s again%s%s", table.Count(a.New), table.Count(a.Prolonged),
			unlessZero(a.Special, "not opened because they are loopback, link-local or multicast"),
			unlessZero(a.Displaced, "names gave way on addresses that have too many")))
	}
	return lines
}

// tableTexts is what people call the entries of the tables.
var tableTexts = map[string]string{
	"learned": "addresses", "names": "names", "questions": "questions without an answer", "bindings": "connections by name",
	"streams": "connections being read", "stream_rooms": "of these in pieces",
}

// knownText is how full the tables are, and what had to go for want of room.
func knownText(n *datapath.NamesStatus) string {
	var known, evicted []string
	for _, t := range n.Tables {
		what := tableTexts[t.Name]
		if what == "" {
			what = t.Name
		}
		if t.Known > 0 {
			known = append(known, fmt.Sprintf("%s of %s %s", table.Count(t.Known), table.Count(t.Max), what))
		}
		if t.Evicted != nil && *t.Evicted > 0 {
			evicted = append(evicted, fmt.Sprintf("%s %s", table.Count(*t.Evicted), what))
		}
	}
	text := "names: nothing learned yet"
	if len(known) > 0 {
		text = "names: " + strings.Join(known, ", ")
	}
	if len(evicted) > 0 {
		text += "; evicted for want of room: " + strings.Join(evicted, ", ")
	}
	if n.Texts.Forgotten > 0 {
		text += fmt.Sprintf("; forgotten when a new policy asked for them: %s", table.Count(n.Texts.Forgotten))
	}
	if n.Failed > 0 {
		text += fmt.Sprintf("; the kernel had no memory %s times", table.Count(n.Failed))
	}
	return text
}

// questionsText tells how many questions left, and how many were refused.
func questionsText(s *datapath.Status) string {
	counts := map[string]uint64{}
	for _, r := range s.Totals[verdict.Egress].Reasons {
		counts[r.Reason] = r.Packets
	}
	var refused uint64
	var why []string
	for _, r := range refusals {
		if c := counts[r.String()]; c > 0 {
			refused += c
			why = append(why, fmt.Sprintf("%s %s", r, table.Count(c)))
		}
	}
	text := fmt.Sprintf("DNS questions: %s left", table.Count(messagesOf(&s.Names, asked)))
	if refused > 0 {
		text += fmt.Sprintf(", %s refused (%s)", table.Count(refused), strings.Join(why, ", "))
	}
	return text
}

// asked is the outcome of a question that left; all others are of answers, or
// of what is neither.
const asked = "asked"

func messagesOf(n *datapath.NamesStatus, outcome string) (count uint64) {
	for _, m := range n.Messages {
		if m.Outcome == outcome {
			count += m.Count
		}
	}
	return count
}

func answersText(n *datapath.NamesStatus) string {
	var parts []string
	for _, m := range n.Messages {
		if m.Outcome != asked && m.Count > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", table.Count(m.Count), m.Outcome))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "DNS answers: " + strings.Join(parts, ", ")
}

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"egate/internal/datapath"
)

var statusTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fabricated is a gate with all that a status can show: foreign programs, a
// trial, counters small and large, names long and strange.
func fabricated() *datapath.Status {
	deadline := statusTime.Add(42 * time.Second)
	programs := []datapath.Program{
		{Name: "cil_to_netdev", ID: 55, Kind: "tcx"},
		{Name: "egate_egress", ID: 71, Egate: true, Gate: "host", Kind: "tcx"},
		{ID: 99, Kind: "tcx"},
		{Name: "u32", Kind: "clsact", Priority: 7},
	}
	counter := func(packets, bytes uint64) datapath.Counter { return datapath.Counter{Packets: packets, Bytes: bytes} }
	return &datapath.Status{
		Gate: "host", State: datapath.Pending, Policy: "web-server", Previous: "old-server",
		Path:       "/etc/egate/policies/production/web-server.yaml",
		SHA256:     "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Generation: 7, Applied: statusTime.Add(-3*time.Hour - 12*time.Minute), Hook: "tcx", Deadline: &deadline,
		Problems: []string{"interface eth3 (ifindex 4) is gone; the next apply forgets it"},
		Interfaces: []datapath.InterfaceStatus{
			{Name: "eth0", NamedAt: "eth0", Ifindex: 2, Hooks: [2]datapath.HookStatus{
				{Attached: true, Position: 2, Programs: programs, Allowed: counter(1234567, 1), Dropped: counter(80, 1), Rejected: counter(9, 1)},
				{Attached: true, Position: 1, Programs: programs[1:2], Allowed: counter(23456789, 1)},
			}},
			{Name: "wg-internal", NamedAt: "eth3", Ifindex: 4, Gone: true},
		},
		Chains: [2]datapath.ChainStatus{
			{
				Default: "drop",
				Rules: []datapath.RuleStatus{
					{Label: "no-ping", Action: "reject", RuleCounters: datapath.RuleCounters{Rejected: counter(12, 1176), Dropped: counter(3, 294)}},
					{Label: "everything-that-the-office-may-reach", Action: "allow", RuleCounters: datapath.RuleCounters{Allowed: counter(1234567, 987654321)}},
					{Label: "#3", Action: "continue", RuleCounters: datapath.RuleCounters{Continued: counter(1<<62, 1<<63)}},
				},
				Fallback: datapath.RuleCounters{Dropped: counter(74, 4440)},
			},
			{Default: "allow", Fallback: datapath.RuleCounters{Allowed: counter(23456789, 34567890123)}},
		},
		Totals: [2]datapath.Totals{
			{
				Protocols: []datapath.ProtocolTotals{
					{Number: 1, Name: "icmp", Blocked: counter(15, 1470)},
					{Number: 6, Name: "tcp", Passed: counter(1234567, 987654321)},
					{Number: 255, Blocked: counter(1, 60)},
				},
				Reasons: []datapath.ReasonTotals{{Reason: "rule", Counter: counter(1234582, 987655791)}, {Reason: "neighbour-discovery", Counter: counter(74, 4440)}},
				Answers: datapath.AnswerTotals{Sent: 12, Failed: 1},
				Events:  datapath.EventTotals{Sent: 50, Lost: 2, Suppressed: 1234},
			},
			{Protocols: []datapath.ProtocolTotals{{Number: 6, Name: "tcp", Passed: counter(23456789, 34567890123)}}},
		},
		Flows: datapath.FlowsStatus{Known: 1024, Max: 65536, Failed: 3},
	}
}

func TestStatusText(t *testing.T) {
	for _, width := range []int{60, 80, 120} {
		var b bytes.Buffer
		if err := writeStatus(&b, fabricated(), width, statusTime); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("status.%d.golden", width), b.String())
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: a line of %d characters: %s", width, n, line)
			}
		}
	}
}

func TestStatusTextTellsHowTheGateStands(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*datapath.Status)
		want   string
	}{
		{"in audit mode", func(s *datapath.Status) { s.Audit = true }, "pending, in audit mode: BLOCKED counts what would be blocked, and everything passes"},
		{"on trial", func(*datapath.Status) {}, `42 s left for "egate confirm", or policy old-server comes back`},
		{"on its first trial", func(s *datapath.Status) { s.Previous, s.Gate = "", "lab" }, `42 s left for "egate confirm --gate lab", or what was before comes back`},
		{"reverted", func(s *datapath.Status) { s.State = datapath.Reverted }, "the policy after this one was not confirmed by 12:00:42, so this one is in force again"},
		{"in force", func(s *datapath.Status) { s.State, s.Deadline = datapath.Enforcing, nil }, "gate host: policy web-server, enforcing\n"},
		{"without a name", func(s *datapath.Status) { s.Policy = "" }, "gate host: the policy, pending"},
	} {
		s := fabricated()
		c.change(s)
		var b bytes.Buffer
		if err := writeStatus(&b, s, 0, statusTime); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), c.want) {
			t.Errorf("%s: no %q in\n%s", c.name, c.want, b.String())
		}
	}
}

func TestStatusTextOfABrokenGate(t *testing.T) {
	s := &datapath.Status{Gate: "host", State: datapath.Broken, Problems: []string{"nothing is in force: an apply or off was interrupted; run it again"}}
	var b bytes.Buffer
	if err := writeStatus(&b, s, 80, statusTime); err != nil {
		t.Fatal(err)
	}
	want := "gate host: the policy, broken\n  problem   nothing is in force: an apply or off was interrupted; run it again\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// Names come from policies and from other people's programs.
func TestStatusTextKeepsEscapesOffTheTerminal(t *testing.T) {
	s := fabricated()
	s.Policy, s.Path, s.Chains[0].Rules[0].Label = "\x1b[31m", "a\nb", "c\u009bd"
	s.Interfaces[0].Hooks[0].Programs[0].Name = "\x1b]0;"
	s.Problems = []string{"\x07"}
	var b bytes.Buffer
	if err := writeStatus(&b, s, 80, statusTime); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07\u009b") || strings.Contains(b.String(), "\nb,") {
		t.Errorf("%q", b.String())
	}
}

func TestStatus(t *testing.T) {
	setup := func(a *app) {
		a.kernel.Gates = func() ([]string, error) { return []string{"broken", "gone", "host", "lab"}, nil }
		a.kernel.ReadStatus = func(gate string) (*datapath.Status, error) {
			switch gate {
			case "broken":
				return nil, errors.New("read status of gate broken: no")
			case "gone":
				return nil, fmt.Errorf("read status of gate gone: %w", datapath.ErrNoGate)
			}
			s := fabricated()
			s.Gate = gate
			return s, nil
		}
	}
	r := run(t, setup, "status")
	r.expect(t, ExitRefused, "egate: read status of gate broken: no\n")
	for _, want := range []string{"gate host: ", "\n\ngate lab: "} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("a gate that cannot be read hides others; no %q in:\n%s", want, r.stdout)
		}
	}
	if strings.Contains(r.stderr, "gone") {
		t.Errorf("a gate that was removed meanwhile is an error: %s", r.stderr)
	}
	run(t, setup, "status", "--gate", "lab").expect(t, ExitOK, "gate lab: ")
	run(t, setup, "status", "--gate", "gone").expect(t, ExitRefused, "no such gate")

	r = run(t, setup, "status", "--gate", "lab", "-o", "json")
	r.expect(t, ExitOK)
	var report StatusReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Gates) != 1 || report.Gates[0].Gate != "lab" || report.Gates[0].Chains[0].Rules[0].Rejected.Packets != 12 {
		t.Errorf("report: %s", r.stdout)
	}

	none := func(a *app) { a.kernel.Gates = func() ([]string, error) { return nil, nil } }
	run(t, none, "status").expect(t, ExitOK, "there is no gate: everything passes")
	if r := run(t, none, "status", "-o", "json"); r.stdout != "{\n  \"gates\": []\n}\n" {
		t.Errorf("no gates as JSON: %s", r.stdout)
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"egate/internal/datapath"
	"egate/internal/verdict"
)

// named is fabricated with a policy that uses names, and much that became of
// them.
func named() *datapath.Status {
	s := fabricated()
	evicted, none := uint64(5), uint64(0)
	s.Interfaces = append(s.Interfaces[:1], datapath.InterfaceStatus{
		Name: "lo", NamedAt: "lo", Ifindex: 1, DNSOnly: true,
		Hooks: [2]datapath.HookStatus{
			{Attached: true, Position: 1, Programs: s.Interfaces[0].Hooks[0].Programs[1:2]},
			{Attached: true, Position: 1, Programs: s.Interfaces[0].Hooks[0].Programs[1:2]},
		},
	})
	s.Problems = nil
	s.Totals[verdict.Egress].Reasons = append(s.Totals[verdict.Egress].Reasons,
		datapath.ReasonTotals{Reason: "dns-unlisted", Counter: datapath.Counter{Packets: 1200, Bytes: 90000}},
		datapath.ReasonTotals{Reason: "dns-type", Counter: datapath.Counter{Packets: 34, Bytes: 2000}},
		datapath.ReasonTotals{Reason: "name-mismatch", Counter: datapath.Counter{Packets: 2, Bytes: 1034}})
	s.Names = datapath.NamesStatus{
		InUse:   true,
		Servers: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("2001:db8::53")},
		Messages: []datapath.MessageTotals{
			{Outcome: "asked", Count: 12345}, {Outcome: "learned", Count: 12000}, {Outcome: "empty", Count: 300},
			{Outcome: "unasked", Count: 2}, {Outcome: "malformed", Count: 1}, {Outcome: "fragmented", Count: 4},
		},
		Addresses: datapath.AddressTotals{New: 900, Prolonged: 23000, Special: 3, Displaced: 7},
		Texts:     datapath.TextTotals{New: 12, Forgotten: 1},
		Bound:     77, Failed: 0,
		Unread: datapath.UnreadTotals{Sent: 4, Lost: 1},
		Tables: []datapath.TableStatus{
			{Name: "learned", Known: 31, Max: 32768, Evicted: &evicted}, {Name: "names", Known: 13, Max: 32768, Evicted: &none},
			{Name: "questions", Known: 0, Max: 8192}, {Name: "bindings", Known: 6, Max: 65536},
		},
	}
	return s
}

// learnedNames are names with many addresses, none, long ones and strange ones,
// sorted by name; there are more than status shows.
func learnedNames() []datapath.NameStatus {
	address := func(text string, lives time.Duration) datapath.NameAddress {
		return datapath.NameAddress{Address: netip.MustParseAddr(text), Expires: statusTime.Add(lives)}
	}
	many := datapath.NameStatus{Name: "many.cdn.example.com", Seen: statusTime, Rules: []string{"registry", "everything-that-the-office-may-reach"}, Connections: 1234}
	for i := range 200 {
		many.Addresses = append(many.Addresses, address(fmt.Sprintf("192.0.2.%d", i), time.Duration(60+i%7)*time.Second))
	}
	names := []datapath.NameStatus{
		{Rules: []string{}, Addresses: []datapath.NameAddress{address("198.51.100.9", time.Minute)}}, // whose text is forgotten
		{Name: strings.Repeat("label.", 12) + "long.example.com", Seen: statusTime.Add(-2 * time.Second), Rules: []string{"#3"}, Addresses: []datapath.NameAddress{
			address("2001:db8:1111:2222:3333:4444:5555:6666", 23*time.Hour+59*time.Minute), address("203.0.113.5", 0),
		}},
		many,
	}
	for i := range 9 {
		names = append(names, datapath.NameStatus{Name: fmt.Sprintf("n%d.example.com", i), Seen: statusTime.Add(time.Duration(i-60) * time.Second), Rules: []string{"registry"}})
	}
	return append(names, datapath.NameStatus{Name: `w\007eird.example.com`, Seen: statusTime.Add(-time.Second), Rules: []string{"\x1b[31m"},
		Addresses: []datapath.NameAddress{address("203.0.113.7", 59*time.Minute+50*time.Second)}})
}

func statusOf(names []datapath.NameStatus, width int) func(*app) {
	return func(a *app) {
		a.width = func() int { return width }
		a.kernel.Gates = func() ([]string, error) { return []string{"host"}, nil }
		a.kernel.ReadStatus = func(string) (*datapath.Status, error) { return named(), nil }
		a.kernel.ReadNames = func(string) ([]datapath.NameStatus, error) { return names, nil }
	}
}

func TestStatusTextOfNames(t *testing.T) {
	for _, width := range []int{60, 80, 120} {
		var b bytes.Buffer
		r := &GateReport{Status: named(), Learned: learnedNames()}
		if err := writeGate(&b, r, false, width, statusTime); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n--names\n")
		if err := writeGate(&b, r, true, width, statusTime); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("statusnames.%d.golden", width), b.String())
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: a line of %d characters: %s", width, n, line)
			}
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Error("an escape reaches the terminal")
		}
	}
}

// A pipe gets every address of every name, each on a line of its own that has
// all of the name.
func TestStatusNamesInFullForPrograms(t *testing.T) {
	names := learnedNames()
	for i := range 300 {
		names = append(names, datapath.NameStatus{Name: fmt.Sprintf("z%03d.example.com", i)})
	}
	r := run(t, statusOf(names, 0), "status", "--names")
	r.expect(t, ExitOK)
	if strings.Contains(r.stdout, "more") {
		t.Errorf("something is left out:\n%s", r.stdout)
	}
	if got := strings.Count(r.stdout, "many.cdn.example.com"); got != 200 {
		t.Errorf("%d lines with the name of 200 addresses", got)
	}
	if !strings.Contains(r.stdout, "z299.example.com") || !strings.Contains(r.stdout, strings.Repeat("label.", 12)+"long.example.com") {
		t.Errorf("a name is missing or cut:\n%s", r.stdout)
	}
	if strings.Contains(r.stdout, "EGRESS RULE") {
		t.Error("--names shows the counters of rules too")
	}

	r = run(t, statusOf(names, 100), "status", "--names")
	r.expect(t, ExitOK, "... and 213 more: egate status --names | less")
	if strings.Contains(r.stdout, "z299.example.com") || strings.Count(r.stdout, "192.0.2.") != mostNameAddresses {
		t.Errorf("a terminal gets all of a long list:\n%s", r.stdout)
	}
	if !strings.Contains(r.stdout, "and 197 more") {
		t.Errorf("what is left out of a name's addresses is not told:\n%s", r.stdout)
	}
}

func TestStatusShowsLatestNames(t *testing.T) {
	r := run(t, statusOf(learnedNames(), 0), "status")
	r.expect(t, ExitOK, "... and 3 more, learned before: egate status --names\n")
	var got []string
	_, list, _ := strings.Cut(r.stdout, "\nNAME ")
	for line := range strings.Lines(list) {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, "n") {
			got = append(got, name)
		}
	}
	want := []string{"n8.example.com", "n7.example.com", "n6.example.com", "n5.example.com", "n4.example.com", "n3.example.com", "n2.example.com"}
	if !slices.Equal(got, want) {
		t.Errorf("names %q, want the latest first: %q", got, want)
	}
	few := run(t, statusOf(learnedNames()[:2], 0), "status")
	if few.expect(t, ExitOK); strings.Contains(few.stdout, "learned before") {
		t.Errorf("two names, and some are left out:\n%s", few.stdout)
	}
	none := run(t, statusOf(nil, 0), "status")
	if none.expect(t, ExitOK); strings.Contains(none.stdout, "NAME ") {
		t.Errorf("a table of no names:\n%s", none.stdout)
	}
	run(t, statusOf(nil, 0), "status", "--names").expect(t, ExitOK, "gate host: policy web-server, pending\n  no names are known\n")
}

func TestStatusNamesJSON(t *testing.T) {
	var report StatusReport
	r := run(t, statusOf(learnedNames(), 80), "status", "-o", "json", "--names")
	r.expect(t, ExitOK)
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if g := report.Gates[0]; len(g.Learned) != len(learnedNames()) || len(g.Learned[2].Addresses) != 200 || g.Names.Messages[0].Count != 12345 {
		t.Errorf("names as JSON: %s", r.stdout)
	}
	if r := run(t, statusOf(nil, 80), "status", "-o", "json", "--names"); !strings.Contains(r.stdout, `"learned": []`) {
		t.Errorf("no names with --names: %s", r.stdout)
	}
	r = run(t, statusOf(learnedNames(), 80), "status", "-o", "json")
	if strings.Contains(r.stdout, `"learned":`) || !strings.Contains(r.stdout, `"max": 32768`) {
		t.Errorf("without --names, totals and no names are wanted: %s", r.stdout)
	}
}

// What cannot be read of names hides nothing else, and is said.
func TestStatusNamesFail(t *testing.T) {
	setup := func(err error) func(*app) {
		return func(a *app) {
			statusOf(nil, 0)(a)
			a.kernel.ReadNames = func(string) ([]datapath.NameStatus, error) { return nil, err }
		}
	}
	broken := setup(errors.New("read names of gate host: broken"))
	r := run(t, broken, "status")
	r.expect(t, ExitRefused, "egate: read names of gate host: broken")
	if !strings.Contains(r.stdout, "EGRESS RULE") {
		t.Errorf("names that cannot be read hide the rest:\n%s", r.stdout)
	}
	if r := run(t, broken, "status", "--names", "-o", "json"); r.code != ExitRefused || r.stdout != "" {
		t.Errorf("exit code %d, %s", r.code, r.stdout)
	}
	run(t, setup(fmt.Errorf("read names: %w", datapath.ErrNoGate)), "status").expect(t, ExitOK)
}

// What did not happen takes no line, and a gate without names says nothing of
// them.
func TestNamesTextLeavesZerosOut(t *testing.T) {
	if lines := namesText(fabricated()); lines != nil {
		t.Errorf("a gate without names: %q", lines)
	}
	s := fabricated()
	s.Names.InUse = true
	want := []string{"names: nothing learned yet", "DNS questions: 0 left"}
	if got := namesText(s); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLivesText(t *testing.T) {
	for left, want := range map[time.Duration]string{
		-time.Second: "ended", 0: "ended", time.Millisecond: "1 s", 60 * time.Second: "60 s", 99 * time.Second: "99 s",
		100 * time.Second: "1 min", 99*time.Minute + 59*time.Second: "99 min", 100 * time.Minute: "1 h", 24 * time.Hour: "24 h",
	} {
		if got := livesText(left); got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
}

package table

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		got, want string
	}{
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1000), "1,000"},
		{Count(9_999_999), "9,999,999"},
		{Count(10_000_000), "10.0M"},
		{Count(999_600_000), "1.00G"},
		{Count(1<<64 - 1), "18.4E"},
		{Bytes(999), "999 B"},
		{Bytes(1000), "1.00 kB"},
		{Bytes(999_499), "999 kB"},
		{Bytes(999_500), "1.00 MB"},
		{Bytes(1<<64 - 1), "18.4 EB"},
		{Duration(250 * time.Microsecond), "250 µs"},
		{Duration(1300 * time.Microsecond), "1.3 ms"},
		{Duration(42 * time.Second), "42 s"},
		{Duration(2 * time.Minute), "2 min"},
		{Duration(3*time.Hour + 12*time.Minute), "3 h 12 min"},
		{Duration(50 * time.Hour), "2 d 2 h"},
		{Duration(-time.Second), "-1.0 s"},
		{Plural(1, "rule"), "1 rule"},
		{Plural(2000, "rule"), "2,000 rules"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTableFitsItsWidth(t *testing.T) {
	tab := New(Column{Head: "RULE", Min: 6}, Column{Head: "WHERE", Min: 6}, Column{Head: "PACKETS", Right: true})
	tab.Add("a-rule-with-a-very-long-name-indeed", "somewhere", "1,234")
	tab.Add("short", "an-interface-name-that-is-long", "7")
	for _, width := range []int{0, 120, 80, 60, 40, 30} {
		var b strings.Builder
		if err := tab.Write(&b, width); err != nil {
			t.Fatal(err)
		}
		longest := 0
		for line := range strings.Lines(b.String()) {
			longest = max(longest, utf8.RuneCountInString(strings.TrimRight(line, "\n")))
		}
		if width > 0 && longest > width {
			t.Errorf("width %d: a line has %d characters:\n%s", width, longest, b.String())
		}
		if !strings.Contains(b.String(), "1,234\n") {
			t.Errorf("width %d: a count was cut:\n%s", width, b.String())
		}
	}
	want := "" +
		"RULE        WHERE       PACKETS\n" +
		"a-rule-wi…  somewhere     1,234\n" +
		"short       an-interf…        7\n"
	var b strings.Builder
	if err := tab.Write(&b, 31); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestCleanKeepsEscapesOffTheTerminal(t *testing.T) {
	if got, want := Clean("a\x1b[31mb\nc\x9bd"), "a·[31mb·c·d"; got != want {
		t.Errorf("Clean = %q, want %q", got, want)
	}
}

func TestWrap(t *testing.T) {
	if got, want := Wrap("  - ", "one two three four", 12), "  - one two\n    three\n    four"; got != want {
		t.Errorf("Wrap = %q, want %q", got, want)
	}
	if got, want := Wrap("  file  ", "one  two", 0), "  file  one  two"; got != want {
		t.Errorf("Wrap = %q, want %q", got, want)
	}
}

func TestTableKeepsTheEndOfAColumn(t *testing.T) {
	tab := New(Column{Head: "NAME", Min: 8, KeepEnd: true}, Column{Head: "N", Right: true})
	tab.Add("a.long.name.example", "1")
	tab.Add("b.example", "2")
	want := "" +
		"NAME        N\n" +
		"…e.example  1\n" +
		"b.example   2\n"
	var b strings.Builder
	if err := tab.Write(&b, 13); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

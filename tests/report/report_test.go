package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// of wraps the events of one package's run, each given as "ACTION TEST OUTPUT".
func of(events ...string) string {
	var s strings.Builder
	for _, e := range events {
		fields := strings.SplitN(e, " ", 3)
		s.WriteString(`{"Package":"egate/internal/x","Action":"` + fields[0] + `"`)
		if fields[1] != "-" {
			s.WriteString(`,"Test":"` + fields[1] + `"`)
		}
		if len(fields) > 2 {
			s.WriteString(`,"Output":"` + fields[2] + `\n"`)
		}
		s.WriteString("}\n")
	}
	return s.String()
}

func TestReport(t *testing.T) {
	skips := filepath.Join(t.TempDir(), "skips.txt")
	const list = "# comment\n\nhost internal/x TestA needs IPv9\n6.1 internal/* TestTCX* TCX needs Linux 6.6\n"
	if err := os.WriteFile(skips, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	skipA := []string{"run TestA", "output TestA     a_test.go:7: needs IPv9", "skip TestA", "pass -"}
	for name, c := range map[string]struct {
		where, record string
		ok            bool
		want          string // in what is printed
	}{
		"pass": {"host", of("run TestA", "pass TestA", "pass -"), true, "passed: 1, failed: 0, skipped: 0"},
		"fail": {
			"host", of("run TestA", "output TestA boom", "fail TestA", "fail -"), false,
			"--- failed: egate/internal/x TestA\nboom\n",
		},
		"allowed skip":          {"host", of(skipA...), true, "skipped: internal/x TestA: needs IPv9\n"},
		"skip on another place": {"nobody", of(skipA...), false, "SKIPPED, not in the list"},
		"skip of another test":  {"host", strings.ReplaceAll(of(skipA...), "TestA", "TestB"), false, "1 not allowed"},
		"skip of another package": {
			"host", strings.ReplaceAll(of(skipA...), "internal/x", "internal/y"), false, "1 not allowed",
		},
		"skip for another reason": {"host", strings.ReplaceAll(of(skipA...), "IPv9", "luck"), false, "1 not allowed"},
		"pattern": {
			"6.1", of("run TestTCXMore", "output TestTCXMore x.go:1: TCX needs Linux 6.6", "skip TestTCXMore", "pass -"),
			true, "skipped: 1 (0 not allowed)",
		},
		"package without tests": {"host", of("skip -") + of("run TestA", "pass TestA", "pass -"), true, "packages: 1"},
		"nothing at all":        {"host", "", false, "no package was tested"},
		"a test never ends": {
			"host", of("run TestA", "output TestA last words", "run TestB", "pass TestB", "pass -"), false,
			"--- never ended: egate/internal/x TestA\nlast words",
		},
		"package fails outside its tests": {
			"host", of("run TestA", "pass TestA", "output - panic in TestMain", "fail -"), false, "panic in TestMain",
		},
		"build fails": {
			"host", `{"ImportPath":"egate/internal/x [egate/internal/x.test]","Action":"build-output","Output":"x.go:1: syntax error\n"}` +
				"\n" + `{"ImportPath":"egate/internal/x [egate/internal/x.test]","Action":"build-fail"}` + "\n" + of("fail -"),
			false, "x.go:1: syntax error",
		},
		"plain text": {"host", "go: warning\n" + of("run TestA", "pass TestA", "pass -"), true, "go: warning\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run([]string{"-where", c.where, "-skips", skips}, strings.NewReader(c.record), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != c.ok || !strings.Contains(out.String(), c.want) {
				t.Errorf("ok = %v, want %v; printed, want %q in it:\n%s", ok, c.ok, c.want, out.String())
			}
		})
	}
}

func TestParseSkipsNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"host x TestA\n":            "skips:1: want WHERE PACKAGE TEST MESSAGE",
		"\nmoon x TestA because\n":  `skips:2: unknown place "moon"`,
		"host x Test[ because\n":    `skips:1: pattern "Test["`,
		"host [ TestA because\n":    `skips:1: pattern "["`,
		"host x TestA m\nhost y z ": "skips:2: want",
	} {
		if _, err := parseSkips("skips", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseSkips(%q): error %v, want %q", text, err, want)
		}
	}
}

// TestCommittedList holds the list that .ci/run uses against its own form.
func TestCommittedList(t *testing.T) {
	text, err := os.ReadFile("../skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseSkips("tests/skips.txt", string(text)); err != nil {
		t.Error(err)
	}
}

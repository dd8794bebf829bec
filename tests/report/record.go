package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// testID names a test; an empty test is the package as a whole.
type testID struct{ pkg, test string }

// record is what a run did.
type record struct {
	passed   int
	skipped  []testID
	failed   []testID
	packages int
	unended  map[testID]bool // tests that began and never ended
	output   map[testID]*strings.Builder
}

// readRecord reads a whole run and prints a line for each package as it ends.
func readRecord(in io.Reader, progress io.Writer) (*record, error) {
	r := &record{unended: map[testID]bool{}, output: map[testID]*strings.Builder{}}
	lines := bufio.NewReader(in)
	for number := 1; ; number++ {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				// The go command itself says some things in plain text.
				fmt.Fprintf(progress, "%s\n", strings.TrimSpace(line))
			} else {
				r.add(e, progress)
			}
		}
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read record, line %d: %w", number, err)
		}
	}
}

func (r *record) add(e event, progress io.Writer) {
	if e.ImportPath != "" && e.Package == "" {
		e.Package, _, _ = strings.Cut(e.ImportPath, " ")
	}
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "run":
		r.unended[id] = true
	case "output", "build-output":
		if r.output[id] == nil {
			r.output[id] = &strings.Builder{}
		}
		r.output[id].WriteString(e.Output)
	case "pass", "skip", "fail", "build-fail":
		r.end(e, id, progress)
	}
}

func (r *record) end(e event, id testID, progress io.Writer) {
	delete(r.unended, id)
	failed := e.Action == "fail" || e.Action == "build-fail"
	if failed {
		if !slices.Contains(r.failed, id) {
			r.failed = append(r.failed, id)
		}
	}
	if id.test == "" {
		// A package without tests is "skipped"; that is no test's skip.
		if e.Action != "skip" && e.Action != "build-fail" {
			r.packages++
			fmt.Fprintf(progress, "%-4s %s %.1fs\n", map[bool]string{true: "FAIL", false: "ok"}[failed], id.pkg, e.Elapsed)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
		delete(r.output, id) // nobody asks for it any more
	case "skip":
		r.skipped = append(r.skipped, id)
	}
}

// print writes the failures with their output, the skips and the counts, and
// reports whether all is well.
func (r *record) print(out io.Writer, where string, allowed []skip) bool {
	failedTests := 0
	for _, id := range r.failed {
		if id.test != "" {
			failedTests++
		}
		fmt.Fprintf(out, "\n--- failed: %s %s\n%s", id.pkg, id.test, r.text(id))
	}
	for id := range r.unended {
		fmt.Fprintf(out, "\n--- never ended: %s %s\n%s", id.pkg, id.test, r.text(id))
	}
	notAllowed := 0
	for _, id := range r.skipped {
		_, below, _ := strings.Cut(id.pkg, "/")
		text := r.text(id)
		mark := "skipped"
		if !slices.ContainsFunc(allowed, func(s skip) bool { return s.allows(where, below, id.test, text) }) {
			mark = "SKIPPED, not in the list of allowed skips"
			notAllowed++
		}
		fmt.Fprintf(out, "%s: %s %s: %s\n", mark, below, id.test, reason(text))
	}
	if r.packages == 0 {
		fmt.Fprintln(out, "no package was tested")
	}
	fmt.Fprintf(out, "passed: %d, failed: %d, skipped: %d (%d not allowed), packages: %d, on: %s\n",
		r.passed, failedTests, len(r.skipped), notAllowed, r.packages, where)
	return len(r.failed) == 0 && len(r.unended) == 0 && notAllowed == 0 && r.packages > 0
}

func (r *record) text(id testID) string {
	if b := r.output[id]; b != nil {
		return b.String()
	}
	return ""
}

// reason is the message of a skipped test: its output without the lines that
// the testing package adds and without the place in the source.
func reason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, message, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") {
			line = message
		}
		words = append(words, line)
	}
	return strings.Join(words, " ")
}

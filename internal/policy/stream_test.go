package policy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"egate/internal/verdict"
)

// cuts have lists of any length read in pieces.
var cuts = []cutting{{from: 1, length: 1}, {from: 2, length: 3}}

// A list that is read in pieces means what it means as one, with the same
// places and the same errors.
func TestPiecesMeanTheSame(t *testing.T) {
	const head = "version: 1\negress:\n  default: drop\n"
	tests := map[string]struct {
		text  string
		whole bool // it must be read as one
	}{
		"one line each":            {text: head + "  rules:\n  - {action: drop, to: {addresses: [10.0.0.0/8]}}\n  - {action: allow}\n  - {action: reject}\n"},
		"blocks":                   {text: head + "  rules:\n    - action: drop\n      to:\n        addresses:\n        - 10.0.0.0/8\n        - 10.1.0.0/16\n    - action: allow\n"},
		"comments and blank lines": {text: head + "  rules: # of it\n\n# x\n  - action: drop # y\n      # z\n  - action: allow\n\n  # end\ningress: {default: drop}\n"},
		"both directions":          {text: head + "  rules:\n  - action: drop\n  - action: allow\ningress:\n  default: drop\n  rules:\n  - action: reject\n"},
		"keys behind the list":     {text: head + "  rules:\n  - action: drop\n  - action: allow\n  events: none\n"},
		"at the key's indentation": {text: "version: 1\negress:\n  rules:\n  - action: drop\n  default: allow\n"},
		"wrong rules":              {text: head + "  rules:\n  - {action: dorp}\n  - {action: allow, x: 1}\n  - 7\n  - {action: allow, name: a}\n  - {action: allow, name: a}\n"},
		"no list of rules":         {text: "version: 1\nname:\n  rules:\n  - 1\n  - 2\n", whole: true},
		"rules twice":              {text: head + "  rules:\n  - action: drop\n  rules:\n  - action: allow\n", whole: true},
		"CRLF":                     {text: strings.ReplaceAll(head+"  rules:\n  - action: drop\n  - action: allow\n", "\n", "\r\n")},
		"no newline at the end":    {text: head + "  rules:\n  - action: drop\n  - action: allow"},
		"an anchor":                {text: head + "  rules:\n  - &a {action: drop}\n  - action: allow\n"},

		"an alias":                     {text: head + "  rules:\n  - &a {action: drop}\n  - x\n  - y\n  - *a\n", whole: true},
		"a quoted text over elements":  {text: head + "  rules:\n  - {action: drop, name: \"a\n  - b\"}\n", whole: true},
		"a flow list over elements":    {text: head + "  rules:\n  - {action: drop, to: {addresses: [10.0.0.0/8,\n  - 10.0.0.1]}}\n", whole: true},
		"an unclosed brace":            {text: head + "  rules:\n  - {action: drop\n  - {action: allow}\n", whole: true},
		"a list that nobody wants":     {text: "rules:\n- \"", whole: true},
		"a block text":                 {text: "version: 1\nname: |\n  rules:\n  - a\n  - b\n", whole: true},
		"a list in a quoted text":      {text: "version: 1\nname: \"\n  rules:\n  - a\n  - b\"\n", whole: true},
		"what follows joins the last":  {text: head + "  rules:\n  - action: drop\n  - allow\n   more\n"},
		"a mapping behind the list":    {text: head + "  rules:\n  - action: drop\n  - action: allow\n x: 1\n", whole: true},
		"a second document":            {text: head + "  rules:\n  - action: drop\n  - action: allow\n---\nversion: 1\n", whole: true},
		"a tab in the indentation":     {text: head + "  rules:\n  - action: drop\n\t- action: allow\n", whole: true},
		"a hash in a block text":       {text: head + "  rules:\n  - action: drop\n    name: >-\n      web\n      # foo\n  - action: allow\n    name: >-\n      b\n      # c\n"},
		"an element of several levels": {text: head + "  rules:\n  - - action: drop\n  - action: allow\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want, wantProblems := parse("p.yaml", []byte(tt.text), nil, cutting{})
			for _, cut := range cuts {
				got, problems := parse("p.yaml", []byte(tt.text), nil, cut)
				if !reflect.DeepEqual(got, want) || !slices.Equal(problems, wantProblems) {
					t.Errorf("in pieces of %d: %+v\n%v\nas one: %+v\n%v", cut.length, got, problems, want, wantProblems)
				}
			}
			r := &reader{file: "p.yaml", suggestions: 100, cut: cuts[0]}
			r.parse([]byte(tt.text))
			if r.unfit != tt.whole {
				t.Errorf("read as one: %v, want %v", r.unfit, tt.whole)
			}
		})
	}
}

// A file that is too large to be read as one says where it cannot be read in
// pieces.
func TestLargeFilesAreReadInPieces(t *testing.T) {
	many := longLists.from
	line := "  - {action: drop} " + strings.Repeat("#", maxWhole/many) + "\n"
	text := func(other string) []byte {
		return []byte("version: 1\negress:\n  default: drop\n  rules:\n" + strings.Repeat(line, many-10) + other + strings.Repeat(line, 10))
	}
	for other, want := range map[string]string{
		"":                                       "",
		"  - {action: drop, to: {ports: [*]}}\n": fmt.Sprintf("p.yaml:%d:3: YAML: did not find expected alphabetic or numeric character; a text that begins with * or & needs quotes", many-10+5),
		"  - {action: drop, to: {ports: [tcp/x]}}\n": fmt.Sprintf(`p.yaml:%d:33: "tcp/x" is not a port or range of ports; ports are whole numbers from 0 to 65535`, many-10+5),
	} {
		p, problems := Parse("p.yaml", text(other), nil)
		if got := problems.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if want == "" && len(p.Chains[verdict.Egress].Rules) != many {
			t.Errorf("%d rules, want %d", len(p.Chains[verdict.Egress].Rules), many)
		}
	}
}

// Lines that begin no element lead to none, also one of nothing but the
// list's indentation.
func TestLineOfAnElement(t *testing.T) {
	lines := splitLines([]byte("rules:\n    - a\n    \n    # x\n    - b\n      - c\n    - d\n"))
	s := listBehind(lines, 0, 2)
	if s == nil || s.elements != 3 {
		t.Fatalf("found %+v, want 3 elements", s)
	}
	for element, want := range []int{2, 5, 7} {
		if got := s.lineOf(element, lines); got != want {
			t.Errorf("element %d is on line %d, want %d", element, got, want)
		}
	}
}

// A file that somebody writes to while it is read is not taken for a policy.
func TestReadFileThatChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, bytes.Repeat([]byte("# a line\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := ReadFile(path); err != nil || len(text) != 9<<20 {
		t.Fatalf("read %d bytes, %v", len(text), err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := f.WriteString("# more\n"); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	seen := error(nil)
	for range 100 {
		if _, seen = ReadFile(path); seen != nil {
			break
		}
	}
	close(stop)
	<-done
	if seen == nil || !strings.Contains(seen.Error(), "was changed while it was read") {
		t.Errorf("got %v of a file that is being written", seen)
	}
}

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells whether a problem keeps a policy from being used.
type Severity uint8

const (
	Error   Severity = 0 // the policy is refused
	Warning Severity = 1 // the policy is used, but hardly means what it says
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is one thing that is wrong, and where.
type Problem struct {
	Pos      Pos
	Severity Severity
	Message  string
}

// String is file:line:column: message, with "warning: " before the message
// where it is one.
func (p Problem) String() string {
	if p.Severity == Warning {
		return fmt.Sprintf("%v: warning: %s", p.Pos, p.Message)
	}
	return fmt.Sprintf("%v: %s", p.Pos, p.Message)
}

// Problems is all that is wrong: the policy file's first, in the order of its
// text, then those of its set files.
type Problems []Problem

// HasErrors tells whether one of them is an error.
func (ps Problems) HasErrors() bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return p.Severity == Error })
}

// Err is nil where there are only warnings, else the problems as one error.
func (ps Problems) Err() error {
	if ps.HasErrors() {
		return ps
	}
	return nil
}

// Error gives one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sortProblems orders them for the reader; file is the policy's own.
func sortProblems(ps Problems, file string) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if inA, inB := a.Pos.File == file, b.Pos.File == file; inA != inB {
			if inA {
				return -1
			}
			return 1
		}
		return cmp.Or(
			strings.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			cmp.Compare(a.Severity, b.Severity),
		)
	})
}

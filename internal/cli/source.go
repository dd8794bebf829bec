package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"egate/internal/cli/table"
	"egate/internal/compile"
	"egate/internal/policy"
	"egate/internal/tables"
)

// stdinName is what positions call a policy that comes from standard input.
const stdinName = "stdin"

// source is a policy that was read, and what it became.
type source struct {
	name     string // of the file as it was given, in positions
	path     string // of the file from the root, for status
	sum      [sha256.Size]byte
	policy   *policy.Policy // nil if there are errors
	set      *tables.Set    // nil if there are errors
	problems policy.Problems
}

// readSource reads and compiles the policy in a file, "-" for standard input.
// What is wrong with the policy is in problems; the error is about the file.
// The stages are shown on line.
func (a *app) readSource(path string, line *progress) (*source, error) {
	line.stage(reading(path))
	name, text, err := a.readText(path)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, path: name, sum: sha256.Sum256(text)}
	if path != "-" {
		if s.path, err = filepath.Abs(path); err != nil {
			return nil, readError(path, err)
		}
	}
	s.policy, s.problems = policy.Parse(name, text, line.open)
	if s.policy == nil {
		return s, nil
	}
	line.stage("compiling " + name)
	set, warnings, err := compile.Compile(s.policy)
	var limit *compile.LimitError
	if errors.As(err, &limit) {
		s.policy, s.problems = nil, append(s.problems, limit.Problem)
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.set = set
	s.problems = append(s.problems, warnings...)
	return s, nil
}

// readWithProgress is readSource for commands that do nothing slow behind it.
func (a *app) readWithProgress(path string) (*source, error) {
	line := a.startProgress()
	defer line.stop()
	return a.readSource(path, line)
}

// readText reads no more than a policy may have, and one byte to tell.
func (a *app) readText(path string) (name string, text []byte, err error) {
	if path == "-" {
		name = stdinName
		text, err = io.ReadAll(io.LimitReader(a.stdin, policy.MaxFileBytes+1))
	} else {
		name = path
		text, err = policy.ReadFile(path)
	}
	if err != nil {
		return "", nil, readError(name, err)
	}
	return name, text, nil
}

func readError(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if name == "" {
		name = `""`
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// printProblems writes one problem a line to standard error, as compilers do,
// and behind errors how many there are. It returns errReported if there are.
func (a *app) printProblems(s *source, outcome string) error {
	errorCount := 0
	for _, p := range s.problems {
		if p.Severity == policy.Error {
			errorCount++
		}
		fmt.Fprintf(a.stderr, "%v: %v: %s\n", p.Pos, p.Severity, table.Clean(p.Message))
	}
	if errorCount == 0 {
		return nil
	}
	fmt.Fprintf(a.stderr, "egate: %s in %s; %s\n", table.Plural(errorCount, "error"), s.name, outcome)
	return errReported
}

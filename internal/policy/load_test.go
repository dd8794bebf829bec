package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLoadFindsSetFilesBesideThePolicy(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sets", "a.txt"), "10.0.0.0/8\n")
	write(t, filepath.Join(dir, "p.yaml"), inTo("{sets: [a, b]}")+"sets: {a: {file: sets/a.txt}, b: {file: "+filepath.Join(dir, "sets", "a.txt")+"}}\n")
	if p, problems := Load(filepath.Join(dir, "p.yaml")); p == nil || len(problems) > 0 {
		t.Errorf("policy %v, problems %v", p, problems)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.yaml")
	write(t, path, "version: 1\nsets:\n  a: {file: fifo}\n  b: {file: .}\n  c: {file: none.txt}\n  d: {file: bad.txt}\n  e: {domain_file: fifo}\n  f: {domain_file: bad.txt}\n")
	write(t, filepath.Join(dir, "bad.txt"), "10.0.0.0/8\nfoo\n")
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, want string }{
		{filepath.Join(dir, "none.yaml"), "DIR/none.yaml: read policy: no such file or directory"},
		{dir, "DIR: read policy: is a directory"},
		{path, "DIR/p.yaml:3:13: open set file \"DIR/fifo\": not a regular file\n" +
			"DIR/p.yaml:4:13: open set file \"DIR\": not a regular file\n" +
			"DIR/p.yaml:5:13: open set file \"DIR/none.txt\": no such file or directory\n" +
			"DIR/p.yaml:7:20: open domain file \"DIR/fifo\": not a regular file\n" +
			"DIR/bad.txt:1:1: \"10.0.0.0/8\" is an address and not a name; write it under addresses\n" +
			"DIR/bad.txt:2:1: \"foo\" is not an address"},
	}
	for _, tt := range tests {
		p, problems := Load(tt.path)
		if got := strings.ReplaceAll(problems.Error(), dir, "DIR"); got != tt.want || p != nil {
			t.Errorf("got policy %v and\n%s\nwant\n%s", p, got, tt.want)
		}
	}
}

func TestParseWithoutOpener(t *testing.T) {
	_, problems := Parse("p.yaml", []byte("version: 1\nsets: {a: {file: x}, b: {domain_file: y}}\n"), nil)
	if got, want := problems.Error(), "p.yaml:2:18: set files cannot be read here; write the addresses into the policy\n"+
		"p.yaml:2:39: domain files cannot be read here; write the domains into the policy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrIsNilForWarnings(t *testing.T) {
	p, problems := Parse("p.yaml", []byte("version: 1\nsets: {a: {addresses: [10.0.0.1]}}\n"), nil)
	if p == nil || len(problems) != 1 || problems.Err() != nil || problems[0].Severity.String() != "warning" {
		t.Errorf("policy %v, problems %v, error %v", p, problems, problems.Err())
	}
	_, problems = Parse("p.yaml", nil, nil)
	if problems.Err() == nil || problems[0].Severity.String() != "error" {
		t.Error("an empty file is no error")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTimeIsLinear: a long line of errors once took quadratic time, which is
// minutes here.
func TestTimeIsLinear(t *testing.T) {
	start := time.Now()
	_, problems := Parse("p.yaml", []byte("version: 1\nsets: {a: {addresses: ["+strings.Repeat("x,", 300_000)+"]}}\n"), nil)
	if took := time.Since(start); len(problems) != 300_000 || took > 20*time.Second {
		t.Errorf("%d problems in %v", len(problems), took)
	}
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"egate/internal/datapath"
	"egate/internal/probe"
	"egate/internal/tables"
)

var update = flag.Bool("update", false, "write golden files and docs/COMMANDS.md anew")

type result struct {
	code           int
	stdout, stderr string
}

// fakeApp is an app that touches nothing of the host: it runs in no SSH session
// and the kernel below it refuses everything.
func fakeApp(stdin string, stdout, stderr *bytes.Buffer) *app {
	a := newApp(Process{
		Stdin: strings.NewReader(stdin), Stdout: stdout, Stderr: stderr,
		Env: func(string) string { return "" }, Version: "v1.2.3",
	})
	unexpected := errors.New("unexpected call of the kernel")
	a.kernel = kernel{
		Apply:      func(*tables.Set, datapath.ApplyOptions) (*datapath.Applied, error) { return nil, unexpected },
		Confirm:    func(string) error { return unexpected },
		Off:        func(string) error { return unexpected },
		Gates:      func() ([]string, error) { return nil, unexpected },
		ReadStatus: func(string) (*datapath.Status, error) { return nil, unexpected },
		ReadNames:  func(string) ([]datapath.NameStatus, error) { return nil, unexpected },
		OpenEvents: func(string) (eventReader, error) { return nil, unexpected },
		Served:     func(string) (bool, error) { return false, unexpected },
	}
	a.sessions = sessionFinder{proc: "/nonexistent", env: a.env, pid: 1}
	a.probe = func() (*probe.Report, error) { return nil, unexpected }
	a.hostServers = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.0.0.53")}, nil }
	return a
}

// run runs one command in process; setup, if given, changes the app.
func run(t *testing.T, setup func(*app), args ...string) result {
	t.Helper()
	return runWith(t, "", setup, args...)
}

func runWith(t *testing.T, stdin string, setup func(*app), args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := fakeApp(stdin, &stdout, &stderr)
	if setup != nil {
		setup(a)
	}
	code := a.run(context.Background(), args)
	return result{code, stdout.String(), stderr.String()}
}

// expect fails the test unless the exit code is right and every text is in
// the output; it looks at standard error unless the code is 0.
func (r result) expect(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.stdout, r.stderr)
	}
	where := r.stdout
	if code != ExitOK {
		where = r.stderr
	}
	for _, text := range texts {
		if !strings.Contains(where, text) {
			t.Errorf("no %q in:\n%s", text, where)
		}
	}
}

// golden compares a text with testdata/NAME; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./internal/cli -update writes it anew); got:\n%s", file, got)
	}
}

// policyFile writes a policy for a test.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUsageErrors(t *testing.T) {
	policy := policyFile(t, goodPolicy)
	for _, c := range []struct {
		name string
		args []string
		want string // in standard error
	}{
		{"unknown command", []string{"aply"}, `"aply" is no command; did you mean "apply"?`},
		{"unknown command without a neighbour", []string{"xyzzy"}, `"xyzzy" is no command`},
		{"unknown command to help", []string{"help", "aply"}, `did you mean "apply"?`},
		{"help about two commands", []string{"help", "xyzzy", "apply"}, `"xyzzy" is no command`},
		{"unknown flag", []string{"status", "--wat"}, "unknown flag: --wat"},
		{"unknown flag of egate itself", []string{"--wat"}, "unknown flag: --wat"},
		{"unknown word", []string{"status", "-o", "yaml"}, `--output takes text or json, found "yaml"`},
		{"apply without a file", []string{"apply"}, "apply wants one policy FILE"},
		{"apply with two files", []string{"apply", "a", "b"}, `found "b" too`},
		{"confirm time without unit", []string{"apply", policy, "--confirm", "60"}, `--confirm takes a time such as 60s or 5m, found "60"`},
		{"count that is no number", []string{"events", "--count", "x"}, `--count takes a whole number, found "x"`},
		{"confirm time too short", []string{"apply", policy, "--confirm", "1s"}, "--confirm takes from 5s"},
		{"confirm time of zero", []string{"apply", policy, "--confirm", "0s"}, "--confirm takes from 5s"},
		{"negative confirm time", []string{"apply", policy, "--confirm", "-5s"}, "--confirm takes from 5s"},
		{"unknown hook", []string{"apply", policy, "--hook", "xdp"}, `--hook takes auto, tcx or clsact, found "xdp"`},
		{"unknown risk", []string{"apply", policy, "--accept-risk", "all"}, `--accept-risk takes lose-ssh, found "all"`},
		{"gate with a slash", []string{"apply", policy, "--gate", "a/b"}, `egate: --gate: check gate name "a/b"`},
		{"gate of nothing", []string{"off", "--gate", ""}, "--gate"},
		{"gate too long", []string{"confirm", "--gate", strings.Repeat("x", 33)}, "--gate"},
		{"gate and all", []string{"off", "--gate", "x", "--all"}, "not both"},
		{"argument of off", []string{"off", "host"}, `off takes no arguments, found "host"`},
		{"explain without a packet", []string{"explain", policy}, "wants a 'PACKET' in quotes, or --pcap"},
		{"explain with both", []string{"explain", policy, "arp", "--pcap", "x"}, "not both"},
		{"explain with an unquoted packet", []string{"explain", policy, "tcp", "10.0.0.1", "->"}, "in quotes"},
		{"explain with a bad packet", []string{"explain", policy, "tcp 10.0.0.1 => 10.0.0.2:80"}, "column 14"},
		{"explain with standard input twice", []string{"explain", "-", "--pcap", "-"}, "cannot read both"},
		{"packet number without capture", []string{"explain", policy, "arp", "--packet", "3"}, "--packet belongs to --pcap"},
		{"events, none of them", []string{"events", "--count", "0"}, "--count takes 1 or more"},
		{"events of another verdict", []string{"events", "--verdict", "deny"}, `--verdict takes allow, drop or reject, found "deny"`},
		{"demo for no time", []string{"demo", "--seconds", "0"}, "--seconds takes 1"},
		{"completion of nothing", []string{"completion"}, "one shell: bash, zsh or fish"},
		{"completion of another shell", []string{"completion", "tcsh"}, "bash, zsh and fish"},
		{"argument of doctor", []string{"doctor", "now"}, "doctor takes no arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, nil, c.args...)
			r.expect(t, ExitUsage, "egate: ", c.want, "--help")
			if r.stdout != "" {
				t.Errorf("a usage error printed to standard output: %s", r.stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	alone := run(t, nil)
	alone.expect(t, ExitOK, "Usage:", "apply", "status", "sudo egate demo")
	var out bytes.Buffer
	a := fakeApp("", &out, &out)
	for _, c := range a.root().Commands() {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no short text", c.Name())
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short text ends with a full stop", c.Name())
		}
		if c.Name() == "help" {
			continue
		}
		if c.Long == "" {
			t.Errorf("%s: --help teaches nothing", c.Name())
		}
		for _, args := range [][]string{{c.Name(), "--help"}, {"help", c.Name()}} {
			run(t, nil, args...).expect(t, ExitOK, "Usage:", c.Example)
		}
		if !strings.Contains(alone.stdout, c.Short) {
			t.Errorf("%s is not in the help of egate", c.Name())
		}
	}
}

// A line of help that is broken by the terminal is hard to read.
func TestHelpFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	for _, c := range fakeApp("", &out, &out).root().Commands() {
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 {
				t.Errorf("%s: a line of %d characters: %s", c.Name(), n, line)
			}
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	var stderr bytes.Buffer
	a := fakeApp("", nil, &stderr)
	a.stdout = &output{w: failingWriter{errors.New("no space left on device")}}
	if code := a.run(context.Background(), []string{"version"}); code != ExitRefused {
		t.Errorf("exit code %d", code)
	}
	if got := stderr.String(); got != "egate: write output: no space left on device\n" {
		t.Errorf("stderr %q", got)
	}
}

func TestVersion(t *testing.T) {
	run(t, nil, "version").expect(t, ExitOK, "egate v1.2.3", "go1.", "kernel ABI")
	run(t, nil, "version", "-o", "json").expect(t, ExitOK, `"version": "v1.2.3"`, `"kernel_abi": `)
	if r := versionReport(""); r.Version == "" {
		t.Error("no version without one given at link time")
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			r := run(t, nil, "completion", shell)
			r.expect(t, ExitOK, "egate")
			program, err := exec.LookPath(shell)
			if err != nil {
				t.Logf("%s is not installed, so its script is not checked for syntax", shell)
				return
			}
			c := exec.Command(program, "-n")
			c.Stdin = strings.NewReader(r.stdout)
			if text, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v\n%s", shell, err, text)
			}
		})
	}
}

// TestBashCompletesByItself: a shell that has not loaded bash-completion.
func TestBashCompletesByItself(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	c := exec.Command(bash, "--norc", "--noprofile")
	c.Env = append(os.Environ(), "LC_ALL=C") // or it warns of a locale that is not installed
	c.Stdin = strings.NewReader(run(t, nil, "completion", "bash").stdout + `
egate() { [ "$*" = "__complete off --g" ] && printf '%s\n' --gate :4; }
COMP_WORDS=(egate off --g) COMP_CWORD=2
__start_egate 2>/dev/null # compopt works only while bash completes
echo "completed: ${COMPREPLY[*]}"
`)
	if text, err := c.CombinedOutput(); err != nil || string(text) != "completed: --gate\n" {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestVersionFlag(t *testing.T) {
	run(t, func(a *app) { a.version = "v1.2.3" }, "--version").expect(t, ExitOK, "egate v1.2.3\n")
}

func TestCompletionOfValues(t *testing.T) {
	withGates := func(a *app) { a.kernel.Gates = func() ([]string, error) { return []string{"host", "lab"}, nil } }
	run(t, withGates, "__complete", "off", "--gate", "").expect(t, ExitOK, "host\n", "lab\n")
	run(t, nil, "__complete", "apply", "x", "--hook", "").expect(t, ExitOK, "tcx\n", "clsact\n")
	run(t, nil, "__complete", "apply", "x", "--accept-risk", "").expect(t, ExitOK, "lose-ssh\n")
}

func TestReferenceIsUpToDate(t *testing.T) {
	const file = "../../docs/COMMANDS.md"
	var b bytes.Buffer
	if err := Reference(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(have) {
		t.Error("docs/COMMANDS.md is stale: run go generate ./internal/cli")
	}
}

func TestOff(t *testing.T) {
	var gone []string
	setup := func(a *app) {
		a.kernel.Gates = func() ([]string, error) { return []string{"host", "lab", "old"}, nil }
		a.kernel.Off = func(gate string) error {
			if gate == "lab" {
				return errors.New("another egate is writing")
			}
			gone = append(gone, gate)
			return nil
		}
	}
	run(t, setup, "off").expect(t, ExitOK, "host: off")
	run(t, setup, "off", "--gate", "old").expect(t, ExitOK, "old: off")
	gone = nil
	run(t, setup, "off", "--all").expect(t, ExitRefused, "egate: another egate is writing")
	if strings.Join(gone, " ") != "host old" {
		t.Errorf("off --all removed %q; one gate that fails must not keep the others", gone)
	}
	none := func(a *app) { a.kernel.Gates = func() ([]string, error) { return nil, nil } }
	run(t, none, "off", "--all").expect(t, ExitOK, "there is no gate")
}

func TestConfirm(t *testing.T) {
	run(t, func(a *app) {
		a.kernel.Confirm = func(gate string) error {
			if gate != "lab" {
				t.Errorf("confirmed %q", gate)
			}
			return nil
		}
	}, "confirm", "--gate", "lab").expect(t, ExitOK, "lab: the policy stays in force")
	run(t, func(a *app) {
		a.kernel.Confirm = func(string) error { return datapath.ErrNoGate }
	}, "confirm").expect(t, ExitRefused, "egate: no such gate; \"egate status\" lists")
}

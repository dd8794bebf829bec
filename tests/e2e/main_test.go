// Package e2e stands behind the stages: it uses egate as a person does. Each
// test makes network namespaces, runs egate's own commands in them, sends real
// traffic with real tools, and compares the counters of `egate status` with
// what must have happened, packet by packet.
//
// The test binary is egate as well: with EGATE_TEST_MAIN set it runs that
// command instead of tests. So the binary alone is enough in the guests of
// tests/vm. Tests share nothing: each has namespaces and a bpffs of its own.
package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/cli"
	"egate/internal/datapath"
	"egate/internal/testutil"
)

// envMain makes a process of the test binary something else than a test.
const envMain = "EGATE_TEST_MAIN"

// What a process of the test binary can be.
const (
	mainEgate  = "egate"  // the command egate
	mainSwitch = "switch" // see switch_test.go
	mainFetch  = "fetch"  // see namechain_test.go
)

func TestMain(m *testing.M) {
	switch os.Getenv(envMain) {
	case mainEgate:
		os.Exit(cli.Run(context.Background(), cli.Process{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv,
		}))
	case mainSwitch:
		exitWith(switchPolicies(os.Args[1:]))
	case mainFetch:
		exitWith(fetch(os.Args[1:]))
	}
	flag.Parse()
	runAtOnce()
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runAtOnce runs at least four tests at a time, for most of their time is
// waiting for what must not come. Not where -parallel is given, nor where
// processors are emulated.
func runAtOnce() {
	_, asIs := testutil.InVM()
	flag.Visit(func(f *flag.Flag) { asIs = asIs || f.Name == "test.parallel" })
	if asIs {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
}

// egate is the command, run in one namespace.
type egate struct {
	t     *testing.T
	netns *testutil.Netns
	bpffs string
}

// newEgate gives the command a bpffs of its own, which is unmounted with all
// that is pinned in it when the test ends.
func newEgate(t *testing.T, in *testutil.Netns) *egate {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("e2e", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return &egate{t: t, netns: in, bpffs: dir}
}

// command is the command line of `egate args...`, as env takes it.
func (e *egate) command(args ...string) []string {
	return e.commandAs(mainEgate, args...)
}

func (e *egate) commandAs(main string, args ...string) []string {
	e.t.Helper()
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	return append([]string{envMain + "=" + main, datapath.EnvBPFFS + "=" + e.bpffs, self}, args...)
}

// try runs `egate args...`.
func (e *egate) try(args ...string) testutil.Result {
	e.t.Helper()
	return e.netns.Try("env", e.command(args...)...)
}

// run runs `egate args...`, which must succeed without a warning.
func (e *egate) run(args ...string) string {
	e.t.Helper()
	r := e.try(args...)
	if r.Code != cli.ExitOK || r.Stderr != "" {
		e.t.Fatalf("egate %q: exit code %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// apply puts the text of a policy in force.
func (e *egate) apply(policy string, flags ...string) {
	e.t.Helper()
	e.run(append([]string{"apply", e.file(policy)}, flags...)...)
}

// file writes a policy to a file.
func (e *egate) file(policy string) string {
	e.t.Helper()
	path := filepath.Join(e.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return path
}

// status reads `egate status -o json` of one gate.
func (e *egate) status(gate string) *datapath.Status {
	e.t.Helper()
	var report cli.StatusReport
	if err := json.Unmarshal([]byte(e.run("status", "--gate", gate, "-o", "json")), &report); err != nil {
		e.t.Fatalf("parse egate status: %v", err)
	}
	if len(report.Gates) != 1 {
		e.t.Fatalf("egate status --gate %s shows %d gates", gate, len(report.Gates))
	}
	return report.Gates[0].Status
}

// eventually waits for something that takes the kernel or another process a
// moment, and fails the test if it does not come true within the limit.
func eventually(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(testutil.Patience(limit))
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

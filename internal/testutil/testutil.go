// Package testutil stands beside the stages: it is what their tests share.
// It makes network namespaces and wires them, and says in one way for all
// tests what happens when a privilege or a kernel feature is missing.
//
// A test that needs root begins with RequireRoot. A test that needs something
// of the kernel skips with a sentence that names it; .ci/run fails for every
// skip that tests/skips.txt does not list.
package testutil

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Environment variables by which .ci/run and tests/vm talk to the tests.
const (
	// EnvVM names the guest's kernel line, "6.1" or "6.12", when the test runs
	// in a virtual machine started by tests/vm; it is unset on the host.
	EnvVM = "EGATE_VM"
	// EnvUnprivileged is "1" in the run of .ci/run that shows what passes
	// without root; there a missing privilege is expected.
	EnvUnprivileged = "EGATE_UNPRIVILEGED"
)

// needed are the capabilities that loading, attaching and namespaces take.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_BPF, "CAP_BPF"},
}

// RequireRoot skips the test unless it runs as root with the capabilities that
// egate and network namespaces need. With CI=true it fails instead, because
// there a skip would hide a test that never runs; EGATE_UNPRIVILEGED=1 marks
// the one run that is meant to be without root.
func RequireRoot(t testing.TB) {
	t.Helper()
	lack, err := missingPrivilege()
	if err != nil {
		t.Fatalf("read capabilities: %v", err)
	}
	if lack == "" {
		return
	}
	if os.Getenv("CI") == "true" && os.Getenv(EnvUnprivileged) != "1" {
		t.Fatalf("needs root: %s (a failure, not a skip, because CI=true)", lack)
	}
	t.Skipf("needs root: %s", lack)
}

// missingPrivilege says what this process lacks to be root, "" for nothing.
func missingPrivilege() (string, error) {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Sprintf("runs as uid %d", uid), nil
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	effective, err := effectiveCaps(status)
	if err != nil {
		return "", err
	}
	var lack []string
	for _, c := range needed {
		if effective&(1<<c.bit) == 0 {
			lack = append(lack, c.name)
		}
	}
	if len(lack) > 0 {
		return "uid 0 without " + strings.Join(lack, ", "), nil
	}
	return "", nil
}

// effectiveCaps reads the CapEff line of a /proc/PID/status text.
func effectiveCaps(status []byte) (uint64, error) {
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if hex, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, fmt.Errorf("read /proc/self/status: no CapEff line")
}

// InVM reports whether the test runs in a guest of tests/vm, and on which
// kernel line ("6.1", "6.12").
func InVM() (kernel string, ok bool) {
	kernel = os.Getenv(EnvVM)
	return kernel, kernel != ""
}

// Patience stretches a time limit for the machine the test runs on: emulated
// guests run Go code 10 to 20 times slower than the host. Use it for limits
// that only say "hangs", never for a latency that the test asserts.
func Patience(d time.Duration) time.Duration {
	if _, vm := InVM(); vm {
		return 10 * d
	}
	return d
}

// KernelAtLeast reports whether the running kernel is major.minor or newer.
// Where a feature can be probed, probe it instead: distributions backport.
func KernelAtLeast(t testing.TB, major, minor int) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatalf("uname: %v", err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	gotMajor, gotMinor, err := parseRelease(release)
	if err != nil {
		t.Fatal(err)
	}
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// parseRelease takes major and minor from a uname release like "6.1.0-32-amd64".
func parseRelease(release string) (major, minor int, err error) {
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("parse kernel release %q: %w", release, err)
	}
	return major, minor, nil
}

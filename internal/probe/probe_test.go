package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

func TestFeature(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want State
	}{
		{"there", nil, OK},
		{"not in this kernel", fmt.Errorf("x: %w", ebpf.ErrNotSupported), Missing},
		{"not for this user", fmt.Errorf("x: %w", unix.EPERM), Unknown},
		{"something else", errors.New("first\nsecond"), Unknown},
	} {
		got := feature(Check{Do: "act"}, c.err)
		if got.State != c.want {
			t.Errorf("%s: state %s, want %s", c.name, got.State, c.want)
		}
		if (got.Do == "") != (c.want == OK) {
			t.Errorf("%s: advice %q", c.name, got.Do)
		}
		if got.Detail == "first\nsecond" {
			t.Errorf("%s: a detail of two lines", c.name)
		}
	}
}

func TestKernelCheck(t *testing.T) {
	for _, c := range []struct {
		release string
		want    State
	}{
		{"6.1.0-32-amd64", OK}, {"6.18.1", OK}, {"7.0.0", OK},
		{"6.0.9", Missing}, {"5.15.0-1-generic", Missing}, {"strange", Unknown},
	} {
		if got := kernelCheck(c.release).State; got != c.want {
			t.Errorf("kernelCheck(%q) = %s, want %s", c.release, got, c.want)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		name, status, detail string
		want                 State
	}{
		{"root", "CapEff:\t000001ffffffffff\n", "", OK},
		{"nobody", "CapEff:\t0000000000000000\n", "this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON", Missing},
		{"old root: CAP_SYS_ADMIN and CAP_NET_ADMIN", "CapEff:\t0000000000201000\n", "", OK},
		{"no net admin", "CapEff:\t000000c000000000\n", "this process lacks CAP_NET_ADMIN", Missing},
		{"no line", "Name:\tx\n", "read capabilities: no CapEff line", Unknown},
	} {
		got := capabilities(write(t, c.status))
		if got.State != c.want || got.Detail != c.detail {
			t.Errorf("%s: %s %q, want %s %q", c.name, got.State, got.Detail, c.want, c.detail)
		}
	}
}

func TestBPFFS(t *testing.T) {
	if got := bpffs(write(t, "proc /proc proc rw 0 0\nnone /run/x bpf rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n")); got.State != OK || got.Detail != "at /run/x, /sys/fs/bpf" {
		t.Errorf("two mounts: %s %q", got.State, got.Detail)
	}
	if got := bpffs(write(t, "proc /bpf proc rw 0 0\n")); got.State != Missing || got.Needed {
		t.Errorf("no mount: %s, needed %v", got.State, got.Needed)
	}
}

func TestJIT(t *testing.T) {
	for text, want := range map[string]State{"1\n": OK, "2\n": OK, "0\n": Missing} {
		if got := jit(write(t, text)).State; got != want {
			t.Errorf("jit of %q = %s, want %s", text, got, want)
		}
	}
	if got := jit("/does/not/exist").State; got != Unknown {
		t.Errorf("jit of no file = %s", got)
	}
}

// TestRunOnThisKernel holds on every kernel that tests run on: all that is
// needed is there, and TCX exactly from 6.6 on.
func TestRunOnThisKernel(t *testing.T) {
	testutil.RequireRoot(t)
	r, err := Run()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Needed && c.State != OK {
			t.Errorf("%s is %s: %s", c.Name, c.State, c.Detail)
		}
		if c.Name == "TCX" {
			want := Missing
			if testutil.KernelAtLeast(t, 6, 6) {
				want = OK
			}
			if c.State != want {
				t.Errorf("TCX is %s, want %s: %s", c.State, want, c.Detail)
			}
		}
	}
	if r.MissingNeeds() {
		t.Error("MissingNeeds on a kernel that has all")
	}
}

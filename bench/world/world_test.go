package world

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"egate/internal/testutil"
)

func TestPassingCountsWhatReachesTheCable(t *testing.T) {
	testutil.RequireRoot(t)
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	for range 2 { // the second time with a sink, twice
		for _, to := range []string{"20.1.2.3:9", "[2600::1]:9"} {
			destinations := []netip.AddrPort{netip.MustParseAddrPort(to), netip.MustParseAddrPort(to)}
			if passed, err := w.Passing(destinations, 2); err != nil || passed != 2 {
				t.Errorf("Passing to %s = %d, %v; want 2", to, passed, err)
			}
		}
		for range 2 {
			if err := w.Sink(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if passed, err := w.Passing([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, 0); err != nil || passed != 0 {
		t.Errorf("Passing to itself = %d, %v; want 0", passed, err)
	}
}

func TestMeasureTellsTimeMemoryAndWhy(t *testing.T) {
	testutil.RequireRoot(t)
	n, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	// A child's own memory, not that of the test: 40 MB in one variable.
	u, err := n.Measure(exec.CommandContext(context.Background(), "sh", "-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' x); sleep 0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if u.Elapsed.Milliseconds() < 100 || u.PeakMB < 40 || u.PeakMB > 400 {
		t.Errorf("Measure = %+v, want more than 100 ms and 40 MB", u)
	}
	_, err = n.Measure(exec.CommandContext(context.Background(), "sh", "-c", "echo a reason >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "a reason") {
		t.Errorf("Measure of what fails: %v, want its reason", err)
	}
}

func TestHighWater(t *testing.T) {
	for status, want := range map[string]float64{
		"Name:\tx\nVmPeak:\t 9000 kB\nVmHWM:\t    1000 kB\n": 1.024,
		"Name:\ta zombie\n": 0,
		"VmHWM:\tx kB\n":    0,
	} {
		if got := highWaterMB(status); got != want {
			t.Errorf("highWaterMB(%q) = %v, want %v", status, got, want)
		}
	}
}

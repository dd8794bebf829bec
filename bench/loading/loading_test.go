package loading

import (
	"context"
	"os"
	"slices"
	"testing"

	"egate/bench/contender"
	"egate/bench/result"
	"egate/internal/cli"
	"egate/internal/testutil"
)

// envEgate makes a process of the test binary the command egate.
const envEgate = "EGATE_TEST_BENCH_EGATE"

func TestMain(m *testing.M) {
	if os.Getenv(envEgate) != "" {
		os.Exit(cli.Run(context.Background(), cli.Process{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv,
		}))
	}
	os.Exit(m.Run())
}

// TestSheets loads a small list into egate, which takes no command but itself,
// and must find a figure for each sheet.
func TestSheets(t *testing.T) {
	testutil.RequireRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := contender.All(contender.Command{Path: self, Env: []string{envEgate + "=1"}})
	l := &contender.Lineup{
		Contenders: slices.DeleteFunc(all, func(c contender.Contender) bool { return len(c.Needs) > 0 }),
		Strict:     true,
		Progress:   t.Logf,
	}
	var ids []string
	for _, g := range Groups(l, Form{Sizes: []int{20}, Names: []int{20}, Rounds: 1}) {
		sheets, err := g.Measure(context.Background(), func(id string) bool { return id != "load-v6" })
		if err != nil {
			t.Fatalf("measure %v: %v", g.IDs, err)
		}
		for _, s := range sheets {
			ids = append(ids, s.ID)
			if s.Size == "names" {
				checkNames(t, &s)
				continue
			}
			if len(s.Points) != 1 || s.Points[0].Contender != result.Egate || s.Points[0].Value.Median <= 0 {
				t.Errorf("%s: %+v, want one point of egate, above 0", s.ID, s.Points)
			}
		}
	}
	want := []string{
		"load-v4", "change-v4", "process-memory-v4", "kernel-memory-v4",
		"change-v6", "process-memory-v6", "kernel-memory-v6",
		"names-load", "names-memory",
	}
	if !slices.Equal(ids, want) {
		t.Errorf("sheets %v, want %v", ids, want)
	}
}

// checkNames wants a figure above 0 for a policy with names and one without,
// and that with names is not what takes less memory than its parts.
func checkNames(t *testing.T, s *result.Sheet) {
	t.Helper()
	found := map[string]float64{}
	parts := 0.0
	for _, p := range s.Points {
		found[p.Contender] = p.Value.Median
		if p.Contender != result.Egate && p.Contender != nameless {
			parts += p.Value.Median
		}
	}
	if found[result.Egate] <= 0 || found[nameless] <= 0 {
		t.Errorf("%s: %v, want figures of %s and %s", s.ID, found, result.Egate, nameless)
	}
	if s.ID == "names-memory" && (found[nameParts[0].name] <= 0 || parts >= found[result.Egate] || found[nameless] >= found[result.Egate]) {
		t.Errorf("%s: %v: the parts must be less than the whole, and so must be what uses no names", s.ID, found)
	}
}

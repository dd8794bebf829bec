package datapath

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// envWriter makes the test binary a writer that applies one policy after the
// other until it kills itself: "HOOK MICROSECONDS OFF".
const envWriter = "EGATE_TEST_WRITER"

func TestMain(m *testing.M) {
	if job := os.Getenv(envWriter); job != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(job))
		os.Exit(3)
	}
	if role := os.Getenv(envRole); role != "" {
		if err := playRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeUntilKilled runs in the child.
func writeUntilKilled(job string) error {
	var hook Hook
	var microseconds, off int
	if _, err := fmt.Sscan(job, (*int)(&hook), &microseconds, &off); err != nil {
		return err
	}
	go func() {
		time.Sleep(time.Duration(microseconds) * time.Microsecond)
		// The error can't be told to anybody: the parent sees that the child ends otherwise.
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}()
	t := &childT{}
	o := ApplyOptions{Gate: "g", Hook: hook}
	for {
		for _, job := range []struct {
			policy  string
			confirm time.Duration
		}{
			{trackingPolicy(1000) + "flows: {max: 1024}\n", 0},
			{trackingPolicy(2000) + "flows: {max: 2048}\n", 0},
			{trackingPolicy(1000), time.Hour},
			{trackingPolicy(2000) + "dns: {servers: [127.0.0.1]}\n", 0},
			{onlyPorts(2000), 0},
		} {
			o.Confirm = job.confirm
			if _, err := Apply(testSet(t, job.policy), o); err != nil {
				return err
			}
			if job.confirm > 0 {
				if err := Confirm("g"); err != nil {
					return err
				}
			}
		}
		if off > 0 {
			if err := Off("g"); err != nil {
				return err
			}
		}
	}
}

// childT is what the child has of a test.
type childT struct{ testing.TB }

func (*childT) Helper()           {}
func (*childT) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (*childT) Fatalf(f string, args ...any) {
	panic(fmt.Sprintf(f, args...))
}

// kills is how many writers are killed in all.
func kills() int {
	if _, vm := testutil.InVM(); vm || testing.Short() {
		return 40
	}
	return 200
}

// TestKilledWriters kills writers at random points of applying, confirming and
// (in a fourth of the runs) going off. After each one status answers, packets
// get the verdict of one of the two policies, and the next writer works.
func TestKilledWriters(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		seed := uint64(time.Now().UnixNano())
		if s := os.Getenv("EGATE_SEED"); s != "" {
			var err error
			if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("EGATE_SEED=%d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t, hook)
		before := w.tc()
		p := w.newProbe(1000, 2000)
		w.apply(trackingPolicy(1000))
		var steps []string
		for i := range kills() / 2 {
			goesOff := i%4 == 3
			w.killWriter(time.Duration(random.Int64N(int64(testutil.Patience(200*time.Millisecond)))), goesOff)
			steps = append(steps, w.leftovers())
			s, err := ReadStatus(w.gate)
			if err != nil && !goesOff {
				t.Fatalf("run %d: status: %v", i, err)
			}
			if err == nil && s.State != Enforcing && s.State != Pending && !goesOff {
				t.Fatalf("run %d: state %s, problems %q", i, s.State, s.Problems)
			}
			one, two := p.passes(1000), p.passes(2000)
			if one == two && !(one && goesOff) {
				t.Fatalf("run %d: port 1000 passes: %v, port 2000: %v", i, one, two)
			}
			if s != nil && s.State == Pending {
				w.inside.Run(func() { err = Confirm(w.gate) })
				if err != nil {
					t.Fatalf("run %d: confirm: %v", i, err)
				}
			}
			if i%4 == 0 || goesOff {
				w.apply(trackingPolicy(1000))
				p.expect("applied after a kill", map[int]bool{1000: true, 2000: false})
				if left := w.leftovers(); left != "" {
					t.Fatalf("run %d: the next apply leaves %s", i, left)
				}
			}
			if i%8 == 1 {
				w.off()
				if pins := w.pins(); len(pins) > 0 {
					t.Fatalf("run %d: off leaves %q", i, pins)
				}
				if after := w.tc(); after != before {
					t.Fatalf("run %d: off leaves\n%s", i, after)
				}
				w.apply(trackingPolicy(2000))
			}
		}
		slices.Sort(steps)
		steps = slices.Compact(steps)
		if len(steps) < 3 {
			t.Errorf("the writers were killed at these points only: %q", steps)
		}
		t.Logf("states that killed writers left: %q", steps)
		all := w.objectsOf()
		w.off()
		all.expectGone(t)
	})
}

// killWriter runs a writer inside that lives for some time.
func (w *world) killWriter(life time.Duration, goesOff bool) {
	w.t.Helper()
	off := 0
	if goesOff {
		off = 1
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", envWriter, w.hook, life.Microseconds(), off))
	var out strings.Builder
	cmd.Stderr = &out
	w.inside.Run(func() {
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
	})
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != -1 {
		w.t.Fatalf("the writer ended by itself: %v\n%s", err, out.String())
	}
}

// leftovers tells by the pins how far the last writer got, "" if to an end.
func (w *world) leftovers() string {
	w.t.Helper()
	var left []string
	generations := 0
	for _, pin := range w.pins() {
		name := pin[strings.LastIndexByte(pin, '/')+1:]
		switch {
		case strings.HasPrefix(name, genPrefix):
			generations++
		case strings.HasPrefix(name, newPrefix), strings.HasPrefix(name, oldPrefix):
			left = append(left, name[:4])
		case strings.HasSuffix(name, twinSuffix), name == guardPin:
			left = append(left, name)
		}
	}
	if generations > 1 {
		left = append(left, "two generations")
	}
	return strings.Join(left, ", ")
}

package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/compile"
	"egate/internal/datapath"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
)

// envDaemon makes the test binary a daemon. Its value is the gate, or "all".
const envDaemon = "EGATE_TEST_DAEMON"

func TestMain(m *testing.M) {
	gate := os.Getenv(envDaemon)
	if gate == "" {
		os.Exit(m.Run())
	}
	if gate == "all" {
		gate = ""
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := Run(ctx, Options{Gate: gate, Log: os.Stderr, Env: os.Getenv})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "egate:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// world is a namespace to guard and one outside of it, on a cable, with a bpffs
// of the test's own.
type world struct {
	t               *testing.T
	inside, outside *testutil.Netns
}

const (
	insideAddr  = "10.9.0.1"
	outsideAddr = "10.9.0.2"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	testutil.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	t.Setenv(datapath.EnvBPFFS, dir)
	w := &world{t: t, inside: testutil.NewNetns(t), outside: testutil.NewNetns(t)}
	a, b := testutil.VethPair(t,
		testutil.Port{Netns: w.inside, Name: "eth0", Addrs: testutil.Addrs(insideAddr+"/24", "fd09::1/64")},
		testutil.Port{Netns: w.outside, Name: "eth0", Addrs: testutil.Addrs(outsideAddr+"/24", "fd09::2/64")})
	testutil.KnowEachOther(t, a, b)
	return w
}

func (w *world) apply(gate, text string) {
	w.t.Helper()
	p, problems := policy.Parse("test.yaml", []byte("version: 1\nname: test\n"+text), policy.OpenFile)
	if p == nil {
		w.t.Fatalf("parse: %v\n%s", problems, text)
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		w.t.Fatal(err)
	}
	w.applySet(gate, set)
}

func (w *world) applySet(gate string, set *tables.Set) {
	w.t.Helper()
	var err error
	w.inside.Run(func() { _, err = datapath.Apply(set, datapath.ApplyOptions{Gate: gate}) })
	if err != nil {
		w.t.Fatalf("apply: %v", err)
	}
}

func (w *world) off(gate string) {
	w.t.Helper()
	var err error
	w.inside.Run(func() { err = datapath.Off(gate) })
	if err != nil {
		w.t.Fatalf("off: %v", err)
	}
}

func (w *world) status(gate string) *datapath.Status {
	w.t.Helper()
	s, err := datapath.ReadStatus(gate)
	if err != nil {
		w.t.Fatalf("status: %v", err)
	}
	return s
}

// eventually waits until f says that it is so.
func (w *world) eventually(what string, f func() (bool, string)) {
	w.t.Helper()
	limit := time.Now().Add(testutil.Patience(20 * time.Second))
	for {
		ok, why := f()
		if ok {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s: %s", what, why)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// enforces waits until a gate guards so many interfaces and has no problem.
func (w *world) enforces(gate string, interfaces int) {
	w.t.Helper()
	w.eventually("enforcing", func() (bool, string) {
		s, err := datapath.ReadStatus(gate)
		if err != nil {
			return false, err.Error()
		}
		return s.State == datapath.Enforcing && len(s.Interfaces) == interfaces,
			fmt.Sprintf("gate %s: %s with %d interfaces, want %d: %.3q", gate, s.State, len(s.Interfaces), interfaces, s.Problems)
	})
}

// child is a daemon that runs inside.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	kill sync.Once

	mu  sync.Mutex
	log bytes.Buffer
}

func (c *child) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(p)
}

func (c *child) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// start runs a daemon; gate is "all", or the only one.
func (w *world) start(gate string, env ...string) *child {
	w.t.Helper()
	return w.startCommand(gate, exec.Command("/proc/self/exe"), env...)
}

func (w *world) startCommand(gate string, cmd *exec.Cmd, env ...string) *child {
	w.t.Helper()
	c := &child{t: w.t, cmd: cmd, done: make(chan struct{})}
	c.cmd.Env = append(append(os.Environ(), envDaemon+"="+gate), env...)
	c.cmd.Stderr = c
	w.inside.Run(func() {
		if err := c.cmd.Start(); err != nil {
			w.t.Fatalf("start daemon: %v", err)
		}
	})
	go func() {
		// How it ended is in the process state.
		_ = c.cmd.Wait()
		close(c.done)
	}()
	w.t.Cleanup(c.killed)
	return c
}

// killed kills it, and waits for its end.
func (c *child) killed() {
	c.kill.Do(func() {
		// It may have ended by itself.
		_ = c.cmd.Process.Kill()
		<-c.done
	})
}

// logs waits for a text in the log.
func (c *child) logs(text string) {
	c.t.Helper()
	limit := time.Now().Add(testutil.Patience(20 * time.Second))
	for !strings.Contains(c.text(), text) {
		select {
		case <-c.done:
			if !strings.Contains(c.text(), text) {
				c.t.Fatalf("the daemon ended without logging %q:\n%s", text, c.text())
			}
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(limit) {
			c.t.Fatalf("the daemon has not logged %q:\n%s", text, c.text())
		}
	}
}

// ends waits for the daemon's end by itself and gives its exit code.
func (c *child) ends() int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(testutil.Patience(20 * time.Second)):
		c.t.Fatalf("the daemon does not end:\n%s", c.text())
	}
	return c.cmd.ProcessState.ExitCode()
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

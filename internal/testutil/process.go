package testutil

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// commandLimit ends a command that hangs; a test should never wait for it.
const commandLimit = 30 * time.Second

// Result is what a command did.
type Result struct {
	Code    int // exit code; -1 if a signal ended it
	Stdout  string
	Stderr  string
	Elapsed time.Duration
}

// Exec runs a command in the namespace and fails the test unless it exits
// with 0. It returns the command's standard output.
//
// Only the network namespace changes: unlike under `ip netns exec`, /sys is
// still the caller's, so a bpffs mounted at /sys/fs/bpf is the same one, and
// /sys/class/net lists the interfaces of the caller.
func (n *Netns) Exec(name string, args ...string) string {
	n.t.Helper()
	r := n.Try(name, args...)
	if r.Code != 0 {
		n.t.Fatalf("run in %s: %s %s: exit code %d\n%s%s", n.Name, name,
			strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Try runs a command in the namespace like Exec, but leaves it to the caller
// to judge the exit code. The test fails only if the command cannot be
// started or runs into a limit of 30 s (see Patience).
func (n *Netns) Try(name string, args ...string) Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience(commandLimit))
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second

	begin := time.Now()
	n.start(cmd)
	err := cmd.Wait()
	r := Result{
		Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String(),
		Elapsed: time.Since(begin),
	}
	if ctx.Err() != nil {
		n.t.Fatalf("run in %s: %s: still running after %v\n%s%s",
			n.Name, cmd, Patience(commandLimit), r.Stdout, r.Stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("run in %s: %s: %v", n.Name, cmd, err)
	}
	return r
}

// start starts a command with the thread in the namespace; a child inherits
// the namespace of the thread that forks it.
func (n *Netns) start(cmd *exec.Cmd) {
	n.t.Helper()
	n.Run(func() {
		if err := cmd.Start(); err != nil {
			n.t.Fatalf("start in %s: %s: %v", n.Name, cmd, err)
		}
	})
}

// Process is a command that runs in the background of a test.
type Process struct {
	netns  *Netns
	cmd    *exec.Cmd
	output lockedBuffer
	done   chan struct{}
	kill   sync.Once // a process id means nothing once it has been reused
}

// Start starts a command in the namespace, in a process group of its own, and
// does not wait for it. The group is killed when the test ends.
func (n *Netns) Start(name string, args ...string) *Process {
	n.t.Helper()
	p := &Process{netns: n, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = time.Second
	// A group of its own, so that Stop reaches the children of a shell too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	n.start(p.cmd)
	go func() {
		// How it ended is the business of Stop's caller, not an error here.
		_ = p.cmd.Wait()
		close(p.done)
	}()
	n.t.Cleanup(func() { p.Stop() })
	return p
}

// Stop kills the process and its children, waits for its end and returns all
// it wrote to standard output and standard error.
func (p *Process) Stop() string {
	p.kill.Do(func() {
		// The only error is that the whole group has ended by itself.
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	})
	<-p.done
	return p.output.String()
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is what the process has written so far.
func (p *Process) Output() string { return p.output.String() }

// WaitFor waits until the process has written a text, for example the line by
// which a server says that it listens, and fails the test if that takes
// longer than 10 s (see Patience) or the process ends without it.
func (p *Process) WaitFor(text string) {
	p.netns.t.Helper()
	limit := time.Now().Add(Patience(10 * time.Second))
	for !strings.Contains(p.Output(), text) {
		select {
		case <-p.done:
			if !strings.Contains(p.Output(), text) {
				p.netns.t.Fatalf("%s ended without writing %q:\n%s", p.cmd, text, p.Output())
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(limit) {
			p.netns.t.Fatalf("%s has not written %q:\n%s", p.cmd, text, p.Output())
		}
	}
}

// lockedBuffer collects output that one goroutine writes and another reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

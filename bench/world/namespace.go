// Package world stands beside the stages: it makes the networks that the
// benchmarks send through, each a namespace for the sender and one for its
// peer, joined by a cable. They hang on file descriptors and have no names,
// so nothing is left of them however the process ends.
package world

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name. It lasts as long as its
// file descriptor, and the sockets and processes in it.
type Namespace struct{ file *os.File }

// NewNamespace makes a network namespace. It needs root.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := OnOwnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return n, nil
}

// Run calls f on a thread inside the namespace and waits for it. Sockets and
// processes that f makes belong to the namespace for good.
func (n *Namespace) Run(f func() error) error {
	return OnOwnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Start starts a command inside the namespace; the caller waits for it. It is
// killed when the context ends or this process does.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Run(cmd.Start) }

// Command runs a command inside the namespace to its end and returns what it
// wrote to standard output. Its error holds what it wrote to standard error.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr Tail
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.Start(cmd); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w: %s", cmd, err, stderr.String())
	}
	return stdout.String(), nil
}

// Close gives the namespace up.
func (n *Namespace) Close() error { return n.file.Close() }

// OnOwnThread calls f on a thread that ends with it, so that what f changes of
// the thread stays with nobody.
func OnOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// Tail keeps the first bytes of what a program writes; the rest is counted
// off, because a refused list of a million lines may be named line by line.
type Tail struct{ kept []byte }

const mostKept = 1 << 20

func (t *Tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[:min(len(p), mostKept-len(t.kept))]...)
	return len(p), nil
}

func (t *Tail) String() string { return string(t.kept) }

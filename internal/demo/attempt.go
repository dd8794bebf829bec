package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outcome is what became of an attempt.
type outcome int

const (
	untried  outcome = iota
	passed           // it was answered
	blocked          // silence
	rejected         // it was refused
)

func (o outcome) String() string {
	return [...]string{"-", "passed", "blocked", "rejected"}[o]
}

// patience is how long an attempt waits before silence is silence.
const patience = time.Second

// attempt is one kind of traffic, from the inside to an address outside.
type attempt struct {
	what, to string
	expected outcome // under the demo's policy
	try      func(context.Context) (outcome, error)

	before outcome       // without the policy
	seen   outcome       // in the last round
	best   time.Duration // until the outcome was known, in the fastest round
	tries  int
	wrong  int // rounds in which it was not what was expected
}

// attempts is all that the demo tries.
func attempts(n *network) []*attempt {
	var all []*attempt
	for _, a := range n.targets() {
		all = append(all, &attempt{
			what: "ping", to: a.String(), expected: blocked,
			try: func(ctx context.Context) (outcome, error) { return ping(ctx, a) },
		})
		for _, port := range webPorts {
			to := netip.AddrPortFrom(a, port)
			expected := rejected
			if port == 8080 {
				expected = passed
			}
			all = append(all, &attempt{
				what: fmt.Sprintf("web tcp/%d", port), to: a.String(), expected: expected,
				try: func(ctx context.Context) (outcome, error) { return get(ctx, to) },
			})
		}
		all = append(all, &attempt{
			what: fmt.Sprintf("udp/%d", echoPort), to: a.String(), expected: passed,
			try: func(ctx context.Context) (outcome, error) { return echo(ctx, netip.AddrPortFrom(a, echoPort)) },
		})
	}
	return all
}

// round tries everything at once, from inside. changed is called after each
// outcome, by one goroutine at a time.
func round(ctx context.Context, n *network, all []*attempt, guarded bool, changed func()) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	errs := make([]error, len(all))
	for i, a := range all {
		wait.Go(func() {
			errs[i] = n.inside.run(func() error {
				begin := time.Now()
				seen, err := a.try(ctx)
				took := time.Since(begin)
				if err != nil {
					return fmt.Errorf("%s to %s: %w", a.what, a.to, err)
				}
				mu.Lock()
				defer mu.Unlock()
				a.note(seen, took, guarded)
				changed()
				return nil
			})
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs...)
}

// note keeps what was seen, with or without the policy.
func (a *attempt) note(seen outcome, took time.Duration, guarded bool) {
	if !guarded {
		a.before = seen
		return
	}
	if a.tries == 0 || took < a.best {
		a.best = took
	}
	a.seen = seen
	a.tries++
	if seen != a.expected {
		a.wrong++
	}
}

// ping uses the real one if it is installed.
func ping(ctx context.Context, to netip.Addr) (outcome, error) {
	program, err := exec.LookPath("ping")
	if err != nil {
		return rawPing(ctx, to)
	}
	family := "-4"
	if to.Is6() {
		family = "-6"
	}
	c := exec.CommandContext(ctx, program, family, "-n", "-c", "1", "-W", "1", to.String())
	text, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return passed, nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		if strings.Contains(string(text), "filtered") || strings.Contains(string(text), "prohibited") {
			return rejected, nil
		}
		return blocked, nil
	}
	// Not every ping knows these flags.
	return rawPing(ctx, to)
}

// get asks a web server for a page.
func get(ctx context.Context, to netip.AddrPort) (outcome, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return refusal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return untried, err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: demo\r\n\r\n"); err != nil {
		return refusal(err)
	}
	status, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return refusal(err)
	}
	if !strings.Contains(status, " 200 ") {
		return untried, fmt.Errorf("the server answered %q", strings.TrimSpace(status))
	}
	return passed, nil
}

// echo sends a datagram and waits for it to come back.
func echo(ctx context.Context, to netip.AddrPort) (outcome, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", to.String())
	if err != nil {
		return refusal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return untried, err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return refusal(err)
	}
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		return refusal(err)
	}
	return passed, nil
}

// refusal tells a refusal from silence and from what went wrong otherwise.
func refusal(err error) (outcome, error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), isTimeout(err):
		return blocked, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET),
		errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return rejected, nil
	}
	return untried, err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

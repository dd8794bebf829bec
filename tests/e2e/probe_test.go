package e2e

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"egate/internal/testutil"
)

// outcome is what a program that tries to send sees.
type outcome string

const (
	passes  outcome = "passes"
	refused outcome = "is refused" // an error at once
	silent  outcome = "is silent"  // nothing until it gives up
)

const (
	// wait is how long a probe waits for an answer that must not come. It is
	// shorter than the second after which TCP sends its SYN again, so a probe
	// that is dropped is one packet, unless the machine is very busy: see
	// repeatedSYNs.
	wait = 450 * time.Millisecond
	// longWait is how long it waits for an answer that must come.
	longWait = 5 * time.Second
	// atOnce is the time in which it knows it if the machine is free for it.
	atOnce = 50 * time.Millisecond
)

// probe is one way to try: it sends to an address and tells what came of it,
// and after which time.
type probe struct {
	name string
	// try waits no longer than limit.
	try func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration)
}

// check tries to reach an address. That a refusal comes at once and not only
// some time is the business of TestRejectedAtOnce.
func (p probe) check(t *testing.T, from *testutil.Netns, to netip.Addr, want outcome) {
	t.Helper()
	limit := testutil.Patience(longWait)
	if want == silent {
		limit = wait
	}
	var got outcome
	var took time.Duration
	noteRepeatedSYNs(t, from, func() { got, took = p.try(t, from, to, limit) })
	if got != want {
		t.Errorf("%s to %v %s after %v, want that it %s", p.name, to, got, took, want)
	}
}

// ping sends count echo requests with ping. The time is that of the whole
// program, less the pauses between requests. A request that TC drops fails
// with ENOBUFS, and ping tries it again each half interval for as long as -W
// says: with half the interval, not once, so that a request is one packet.
func ping(count int, args ...string) probe {
	const pause = 500 * time.Millisecond
	return probe{"ping", func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		linger := "0.25"
		if limit > wait {
			linger = fmt.Sprint(limit.Seconds())
		}
		command := append([]string{"-n", "-c", strconv.Itoa(count), "-i", "0.5", "-W", linger}, args...)
		r := from.Try("ping", append(command, to.String())...)
		took := r.Elapsed - time.Duration(count-1)*pause
		switch {
		case r.Code == 0 && strings.Contains(r.Stdout, fmt.Sprintf("%d received", count)):
			return passes, took
		case r.Code == 1 && strings.Contains(r.Stdout, fmt.Sprintf("+%d errors", count)):
			return refused, took
		case r.Code == 1 && strings.Contains(r.Stdout, "100% packet loss") && !strings.Contains(r.Stdout, "errors"):
			return silent, took
		}
		return outcome(fmt.Sprintf("exits with %d: %s%s", r.Code, r.Stdout, r.Stderr)), took
	}}
}

// curl fetches a page; the time is curl's own.
func curl(port uint16) probe {
	return probe{fmt.Sprintf("curl port %d", port), func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		r := from.Try("curl", "--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{http_code} %{time_total}",
			"--connect-timeout", fmt.Sprint(limit.Seconds()), "http://"+netip.AddrPortFrom(to, port).String()+"/")
		code, seconds, _ := strings.Cut(r.Stdout, " ")
		s, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			t.Fatalf("curl printed %q and %q", r.Stdout, r.Stderr)
		}
		took := time.Duration(s * float64(time.Second))
		switch {
		case r.Code == 0 && code == "200":
			return passes, took
		case r.Code == 7: // could not connect
			return refused, took
		case r.Code == 28: // ran into its time limit
			return silent, took
		}
		return outcome(fmt.Sprintf("exits with %d: %s", r.Code, r.Stderr)), took
	}}
}

// netcat connects with nc, which knows whole seconds only; they begin with its
// connect and not with the start of the program, which takes its time in a
// guest. The time is that of the program.
func netcat(port uint16) probe {
	return probe{fmt.Sprintf("nc port %d", port), func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		r := from.Try("nc", "-n", "-v", "-z", "-w", fmt.Sprint(math.Ceil(limit.Seconds())), to.String(), strconv.Itoa(int(port)))
		switch {
		case r.Code == 0:
			return passes, r.Elapsed
		case r.Code == 1 && strings.Contains(r.Stderr, "refused"):
			return refused, r.Elapsed
		case r.Code == 1 && strings.Contains(r.Stderr, "timed out"):
			return silent, r.Elapsed
		}
		return outcome(fmt.Sprintf("exits with %d: %s", r.Code, r.Stderr)), r.Elapsed
	}}
}

// dig asks for an address, once, with the given flags. The time is that of
// the program.
func dig(flags ...string) probe {
	name := strings.Join(append([]string{"dig"}, flags...), " ")
	return probe{name, func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		r := from.Try("dig", append(flags, "+tries=1", "+retry=0", fmt.Sprintf("+time=%.0f", max(1, limit.Seconds())), "+short", "@"+to.String(), "www.example.com", "AAAA")...)
		switch {
		case r.Code == 0 && r.Stdout == answer6.String()+"\n":
			return passes, r.Elapsed
		case r.Code == 9 && strings.Contains(r.Stdout+r.Stderr, "timed out"):
			return silent, r.Elapsed
		case r.Code == 9 && (hasAny(r.Stdout+r.Stderr, "refused", "unreachable", "permission denied")):
			return refused, r.Elapsed
		}
		return outcome(fmt.Sprintf("exits with %d: %s%s", r.Code, r.Stdout, r.Stderr)), r.Elapsed
	}}
}

func hasAny(text string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// connect opens a TCP connection and closes it.
func connect(port uint16) probe {
	return probe{fmt.Sprintf("connect to port %d", port), func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		begin := time.Now()
		c, err := dial(from, "tcp", netip.AddrPortFrom(to, port), limit)
		if err == nil {
			c.Close()
		}
		return outcomeOf(err), time.Since(begin)
	}}
}

// echo sends a datagram of some bytes to a server that sends it back.
func echo(port uint16, size int) probe {
	return probe{fmt.Sprintf("datagram of %d bytes to port %d", size, port), func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		begin := time.Now()
		c, err := dial(from, "udp", netip.AddrPortFrom(to, port), limit)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = exchange(c, size, limit)
		return outcomeOf(err), time.Since(begin)
	}}
}

// exchange sends size bytes and waits for as many.
func exchange(c net.Conn, size int, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		return err
	}
	buf := make([]byte, size+1)
	for n := 0; n < size; {
		got, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += got
	}
	return nil
}

// dial opens a socket in a namespace.
func dial(from *testutil.Netns, network string, to netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	from.Run(func() { c, err = net.DialTimeout(network, to.String(), limit) })
	return c, err
}

func outcomeOf(err error) outcome {
	var timeout net.Error
	switch {
	case err == nil:
		return passes
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES):
		// What the kernel makes of RST, ICMP 3/13 and ICMPv6 1/1.
		return refused
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return silent
	}
	return outcome("fails: " + err.Error())
}

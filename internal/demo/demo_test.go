package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/packet"
	"egate/internal/testutil"
	"egate/internal/verdict"
)

func show(w io.Writer, s *datapath.Status) error {
	_, err := fmt.Fprintf(w, "status of %s: %d rules\n", s.Gate, len(s.Chains[verdict.Egress].Rules))
	return err
}

func TestDemoHoldsWhatItClaims(t *testing.T) {
	testutil.RequireRoot(t)
	before := os.Getenv(datapath.EnvBPFFS)
	var out bytes.Buffer
	if err := Run(context.Background(), Options{Out: &out, ShowStatus: show}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"in force on demo0", "rejected", "blocked", "status of demo-", "2 rules", "All of it is removed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences although the output is no terminal")
	}
	if got := os.Getenv(datapath.EnvBPFFS); got != before {
		t.Errorf("%s is %q afterwards, was %q", datapath.EnvBPFFS, got, before)
	}
}

func TestDemoRedrawsOnATerminal(t *testing.T) {
	testutil.RequireRoot(t)
	var out bytes.Buffer
	if err := Run(context.Background(), Options{Out: &out, Terminal: true, Width: 80, For: time.Millisecond, ShowStatus: show}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	out.Reset()
	d := &demo{Options: Options{Out: &out, Width: 80}, attempts: attempts(&network{hasIPv6: true})}
	for range 2 {
		if err := d.draw(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(out.String(), "\x1b[11A\x1b[J"); got != 1 {
		t.Errorf("a table of 11 lines was drawn over %d times, want once:\n%q", got, out.String())
	}
}

func TestDemoCleansUpWhenItIsInterrupted(t *testing.T) {
	testutil.RequireRoot(t)
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 400 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		var out bytes.Buffer
		begin := time.Now()
		err := Run(ctx, Options{Out: &out, For: time.Hour, ShowStatus: show})
		cancel()
		if !errors.Is(err, ErrInterrupted) {
			t.Errorf("interrupted after %v: %v", after, err)
		}
		if !strings.Contains(out.String(), "All of it is removed") {
			t.Errorf("interrupted after %v: %s", after, out.String())
		}
		if took := time.Since(begin); took > testutil.Patience(5*time.Second) {
			t.Errorf("interrupted after %v, it ended after %v", after, took)
		}
	}
}

func TestDemoNeedsRoot(t *testing.T) {
	failed := make(chan error)
	go func() {
		// The thread gives its rights up and ends with the goroutine; for a test
		// that runs without root this changes nothing.
		runtime.LockOSThread()
		const nobody = 65534
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		if errno != 0 && os.Geteuid() == 0 {
			failed <- errno
			return
		}
		failed <- Run(context.Background(), Options{Out: io.Discard})
	}()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "it needs root: sudo egate demo") {
		t.Errorf("as a user: %v", err)
	}
}

func TestJudge(t *testing.T) {
	d := &demo{attempts: []*attempt{{what: "ping", expected: blocked, tries: 3}}}
	if err := d.judge(); err != nil {
		t.Errorf("all as written: %v", err)
	}
	d.attempts[0].wrong = 1
	if err := d.judge(); !errors.Is(err, ErrNotAsWritten) {
		t.Errorf("one of three wrong: %v", err)
	}
}

func TestJudgeCounters(t *testing.T) {
	status := func() *datapath.Status {
		s := &datapath.Status{}
		s.Chains[verdict.Egress].Rules = []datapath.RuleStatus{
			{Label: "no-ping", RuleCounters: datapath.RuleCounters{Dropped: datapath.Counter{Packets: 2}}},
			{Label: "no-web", RuleCounters: datapath.RuleCounters{Rejected: datapath.Counter{Packets: 3}, Dropped: datapath.Counter{Packets: 1}}},
		}
		for _, p := range []uint8{packet.ProtoICMP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMPv6} {
			s.Totals[verdict.Egress].Protocols = append(s.Totals[verdict.Egress].Protocols,
				datapath.ProtocolTotals{Number: p, Passed: datapath.Counter{Packets: 1}})
		}
		return s
	}
	d := &demo{network: &network{hasIPv6: true}, attempts: []*attempt{
		{what: "ping", expected: blocked, tries: 2},
		{what: "web", expected: rejected, tries: 4},
		{what: "udp", expected: passed, tries: 4},
	}}
	if err := d.judgeCounters(status()); err != nil {
		t.Errorf("all counted: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(*datapath.Status)
	}{
		{"a ping was not counted", func(s *datapath.Status) { s.Chains[0].Rules[0].Dropped.Packets-- }},
		{"a ping passed", func(s *datapath.Status) { s.Chains[0].Rules[0].Allowed.Packets++ }},
		{"a refusal was not counted", func(s *datapath.Status) { s.Chains[0].Rules[1].Rejected.Packets-- }},
		{"the web passed", func(s *datapath.Status) { s.Chains[0].Rules[1].Allowed.Packets++ }},
		{"a protocol was not counted", func(s *datapath.Status) { s.Totals[0].Protocols = s.Totals[0].Protocols[:3] }},
	} {
		s := status()
		c.change(s)
		if err := d.judgeCounters(s); !errors.Is(err, ErrNotAsWritten) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

package e2e

import (
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// TestConfirm: a policy on trial goes by itself. No process of egate runs when
// it does: each command has ended, and the kernel compares the clock.
func TestConfirm(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	serveEcho(t, p.server.Netns, 7)
	e := newEgate(t, p.client.Netns)
	trial := shortTrial()
	state := func(want datapath.State, policy string) *datapath.Status {
		t.Helper()
		s := e.status("host")
		if s.State != want || s.Policy != policy {
			t.Errorf("%s policy %s, want %s policy %s", s.State, s.Policy, want, policy)
		}
		return s
	}
	try := func(want outcome) {
		t.Helper()
		for _, to := range p.serverAddr() {
			ping(1).check(t, p.client.Netns, to, want)
		}
	}
	open := e.file("version: 1\nname: open\ninterfaces: [veth0]\n" + egress("allow", `name: ping, action: allow, to: {icmp: [echo-request]}`) + ingress("allow"))
	closed := e.file("version: 1\nname: closed\ninterfaces: [veth0]\n" + egress("drop", `name: ping, action: drop, to: {icmp: [echo-request]}`) + ingress("allow"))
	e.run("apply", open)
	try(passes)

	e.run("apply", closed, "--confirm", trial.String())
	deadline := deadlineOf(t, state(datapath.Pending, "closed"))
	try(silent)
	sleepPast(t, deadline)
	try(passes)
	state(datapath.Reverted, "open")
	e.wantCounters(counts{
		// 1 ping of each family before, in and after the trial.
		"egress ping allowed": 4, "egress ping dropped": 2, "egress: rule": 6,
		"ingress default allowed": 4, "ingress: default": 4,
	})
	if r := e.try("confirm"); r.Code != 1 {
		t.Errorf("confirm after the deadline: exit code %d, want 1\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	e.run("apply", closed, "--confirm", trial.String())
	deadline = deadlineOf(t, state(datapath.Pending, "closed"))
	e.run("confirm")
	state(datapath.Enforcing, "closed")
	sleepPast(t, deadline)
	try(silent)
	state(datapath.Enforcing, "closed")
	e.run("off")
	try(passes)
}

// shortTrial is the shortest confirmation that apply takes, or in a guest of
// tests/vm one that it is quick enough for.
func shortTrial() time.Duration {
	if _, vm := testutil.InVM(); vm {
		return 20 * time.Second
	}
	return 5 * time.Second
}

// TestConfirmFirst: without a policy before, the one on trial leaves nothing
// in force.
func TestConfirmFirst(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("reject")), "--confirm", shortTrial().String())
	deadline := deadlineOf(t, e.status("host"))
	for _, to := range p.serverAddr() {
		ping(1).check(t, p.client.Netns, to, refused)
	}
	sleepPast(t, deadline)
	for _, to := range p.serverAddr() {
		ping(1).check(t, p.client.Netns, to, passes)
	}
	if s := e.status("host"); s.State != datapath.Reverted {
		t.Errorf("the gate is %s, want %s", s.State, datapath.Reverted)
	}
	e.run("off")
}

func deadlineOf(t *testing.T, s *datapath.Status) time.Time {
	t.Helper()
	if s.Deadline == nil {
		t.Fatalf("a gate that is %s has no deadline", s.State)
	}
	return *s.Deadline
}

// sleepPast fails the test if the time is over already: then what it has tried
// until now was not tried in the trial.
func sleepPast(t *testing.T, deadline time.Time) {
	t.Helper()
	left := time.Until(deadline)
	if left <= 0 {
		t.Fatalf("this machine is too slow: it is %v after the deadline", -left)
	}
	time.Sleep(left + 200*time.Millisecond)
}

package e2e

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// event is what these tests read of a line of `egate events -o json`.
type event struct {
	Time        time.Time  `json:"time"`
	Gate        string     `json:"gate"`
	Direction   string     `json:"direction"`
	Interface   string     `json:"interface"`
	Action      string     `json:"action"`
	Reason      string     `json:"reason"`
	Rule        string     `json:"rule"`
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Protocol    string     `json:"protocol_name"`
	Port        uint16     `json:"destination_port"`
}

// readyRule drops what watch sends to learn that the reader is there.
const readyRule = `name: ready, action: drop, events: all, to: {ports: [udp/9]}`

// watch starts `egate events -o json`, which shows what happens from then on,
// and waits until it does. What it has printed is had by the function, but for
// the events of readyRule; how many packets that rule has dropped is returned.
func (e *egate) watch(to netip.Addr) (read func() []event, ready uint64) {
	e.t.Helper()
	p := e.netns.Start("env", e.command("events", "-o", "json")...)
	all := func() (all []event) {
		e.t.Helper()
		for line := range strings.Lines(p.Output()) {
			if !strings.HasSuffix(line, "\n") {
				break // not written to its end yet
			}
			var ev event
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				e.t.Fatalf("parse event %q: %v", line, err)
			}
			all = append(all, ev)
		}
		return all
	}
	eventually(e.t, 10*time.Second, "a first event", func() bool {
		burst(e.t, e.netns, netip.AddrPortFrom(to, 9), 1)
		ready++
		return len(all()) > 0
	})
	return func() []event {
		return slices.DeleteFunc(all(), func(ev event) bool { return ev.Rule == "ready" })
	}, ready
}

// TestEvents: a drop is seen within a second, with the rule's name.
func TestEvents(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	serveHTTP(t, p.server.Netns, 80)
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("allow", readyRule, `name: no-web, action: drop, to: {ports: [tcp/80]}`)))
	read, ready := e.watch(p.serverAddr()[0])
	for i, to := range p.serverAddr() {
		already, begin := len(read()), time.Now()
		curl(80).check(t, p.client.Netns, to, silent)
		eventually(t, time.Second, "the event of a dropped curl", func() bool { return len(read()) > already })
		got := read()[already]
		// Two clocks are compared, each read to the microsecond.
		if got.Time.Before(begin.Add(-time.Millisecond)) || got.Time.After(time.Now().Add(time.Millisecond)) {
			t.Errorf("the event's time is %v, want between %v and now", got.Time, begin)
		}
		want := event{
			Time: got.Time, Gate: "host", Direction: "egress", Interface: "veth0", Action: "drop", Reason: "rule",
			Rule: "no-web", Source: p.clientAddr()[i], Destination: to, Protocol: "tcp", Port: 80,
		}
		if got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
	}
	s := e.wantCounters(counts{"egress ready dropped": ready, "egress no-web dropped": 2, "egress: rule": ready + 2}) // 1 SYN of each family
	judged := ready + s.Chains[0].Rules[1].Dropped.Packets
	if got, want := s.Totals[0].Events, (datapath.EventTotals{Sent: judged}); got != want {
		t.Errorf("events %+v, want %+v", got, want)
	}
}

// TestEventRate: events over a rule's rate are left out and counted, packets
// never.
func TestEventRate(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("allow", readyRule,
		`name: some, action: drop, events: 5/h, to: {ports: [1000]}`,
		`name: all, action: drop, events: all, to: {ports: [2000]}`,
		`name: none, action: drop, events: none, to: {ports: [3000]}`)))
	read, ready := e.watch(p.serverAddr()[0])
	const each = 100
	for _, port := range []uint16{1000, 2000, 3000} {
		burst(t, p.client.Netns, netip.AddrPortFrom(p.serverAddr()[0], port), each)
	}
	eventually(t, 10*time.Second, "105 events", func() bool { return len(read()) >= each+5 })
	byRule := map[string]int{}
	for _, ev := range read() {
		byRule[ev.Rule]++
	}
	if byRule["some"] != 5 || byRule["all"] != each || len(byRule) != 2 {
		t.Errorf("events by rule %v, want some 5, all %d", byRule, each)
	}
	s := e.wantCounters(counts{
		"egress ready dropped": ready,
		"egress some dropped":  each, "egress all dropped": each, "egress none dropped": each, "egress: rule": ready + 3*each,
	})
	// Of 100 at 5 an hour 95 are over the rate; of a rule without events nothing is.
	if got, want := s.Totals[0].Events, (datapath.EventTotals{Sent: ready + each + 5, Suppressed: each - 5}); got != want {
		t.Errorf("events %+v, want %+v", got, want)
	}
}

// TestEventLoss: when nobody reads, events are lost and counted, and packets
// are judged all the same.
func TestEventLoss(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("allow", `name: all, action: drop, events: all, to: {ports: [2000]}`)))
	const sent = 20000 // of 144 bytes: more than the ring's 1 MiB holds
	burst(t, p.client.Netns, netip.AddrPortFrom(p.serverAddr()[1], 2000), sent)
	s := e.wantCounters(counts{"egress all dropped": sent, "egress: rule": sent})
	n := s.Totals[0].Events
	if n.Lost == 0 || n.Sent+n.Lost != sent || n.Suppressed != 0 {
		t.Errorf("events %+v, want sent and lost to be %d together, and some lost", n, sent)
	}
}

// burst sends datagrams that the gate drops.
func burst(t *testing.T, from *testutil.Netns, to netip.AddrPort, count int) {
	t.Helper()
	c, err := dial(from, "udp", to, wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range count {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/testutil"
	"egate/internal/verdict"
)

// counts are packets by "DIRECTION RULE ACTION", and by "DIRECTION: REASON".
// What is zero is not in it.
type counts map[string]uint64

// some stands for a number that the test cannot know, such as the packets of
// a TCP connection that is allowed; it is not zero. equalsWire checks the sum.
const some = ^uint64(0)

// countersOf takes the packets of every rule, default and reason from a status.
func countersOf(s *datapath.Status) counts {
	all := counts{}
	for i, chain := range s.Chains {
		direction := verdict.Direction(i).String()
		add := func(label string, n datapath.RuleCounters) {
			for action, c := range map[string]datapath.Counter{
				"allowed": n.Allowed, "dropped": n.Dropped, "rejected": n.Rejected, "continued": n.Continued,
			} {
				if c.Packets > 0 {
					all[direction+" "+label+" "+action] = c.Packets
				}
			}
		}
		for _, r := range chain.Rules {
			add(r.Label, r.RuleCounters)
		}
		add("default", chain.Fallback)
		for _, r := range s.Totals[i].Reasons {
			if r.Packets > 0 {
				all[direction+": "+r.Reason] = r.Packets
			}
		}
	}
	return all
}

// wantCounters compares all counters of the gate "host" with those given: one
// that is not given must be zero. It also holds the sums of the status to each
// other, which are counted apart in the kernel.
func (e *egate) wantCounters(want counts) *datapath.Status {
	e.t.Helper()
	s := e.status("host")
	checkCounters(e.t, s, want)
	return s
}

func checkCounters(t *testing.T, s *datapath.Status, want counts) {
	t.Helper()
	got := countersOf(s)
	want = want.withRepeatedSYNs(t, got)
	var wrong []string
	for key, n := range want {
		if n == some && got[key] == 0 {
			wrong = append(wrong, fmt.Sprintf("%s: 0, want some", key))
		} else if n != some && got[key] != n {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want %d", key, got[key], n))
		}
	}
	for key, n := range got {
		if _, ok := want[key]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want 0", key, n))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		t.Errorf("counters differ:\n  %s\nall counters:\n  %s", strings.Join(wrong, "\n  "), got)
	}
	checkSums(t, s)
}

func (c counts) String() string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(c)) {
		lines = append(lines, fmt.Sprintf("%s: %d", key, c[key]))
	}
	return strings.Join(lines, "\n  ")
}

// steadyStatus reads a status while segments that the gate drops are sent again
// and again: counters are read one after the other, so only two readings that
// are the same are known to be of one moment.
func (e *egate) steadyStatus() (s *datapath.Status) {
	e.t.Helper()
	s = e.status("host")
	eventually(e.t, 10*time.Second, "two statuses with the same counters", func() bool {
		before := s
		s = e.status("host")
		return maps.Equal(countersOf(before), countersOf(s))
	})
	return s
}

// checkSums: every judged packet is counted once for a rule or the default,
// once for an interface and once for a reason. Answers of egate's own are not
// judged, and have a reason only.
func checkSums(t *testing.T, s *datapath.Status) {
	t.Helper()
	for i, chain := range s.Chains {
		byRule := decided(chain.Fallback)
		for _, r := range chain.Rules {
			byRule += decided(r.RuleCounters)
		}
		var byInterface, byReason uint64
		for _, l := range s.Interfaces {
			h := l.Hooks[i]
			byInterface += h.Allowed.Packets + h.Dropped.Packets + h.Rejected.Packets
		}
		for _, r := range s.Totals[i].Reasons {
			if r.Reason != verdict.ReasonOwnAnswer.String() {
				byReason += r.Packets
			}
		}
		if byRule != byInterface || byRule != byReason {
			t.Errorf("%v packets: %d by rule, %d by interface, %d by reason: want them equal",
				verdict.Direction(i), byRule, byInterface, byReason)
		}
	}
}

func decided(n datapath.RuleCounters) uint64 {
	return n.Allowed.Packets + n.Dropped.Packets + n.Rejected.Packets
}

// wire is what an interface's own statistics said at one moment.
type wire struct {
	link   testutil.Link
	tx, rx uint64
}

func readWire(t *testing.T, link testutil.Link) wire {
	t.Helper()
	l, err := link.Netns.Handle().LinkByName(link.Name)
	if err != nil {
		t.Fatalf("read statistics of %s: %v", link.Name, err)
	}
	n := l.Attrs().Statistics
	return wire{link, n.TxPackets + n.TxDropped, n.RxPackets}
}

// checkWire: what the only interface of a gate in force since then has sent is
// what the gate let out, and its answers to packets that came in; what has
// arrived is what the gate has judged. Small packets only: the statistics of a
// veth count a GSO packet once.
func (w wire) checkWire(t *testing.T, s *datapath.Status) {
	t.Helper()
	now := readWire(t, w.link)
	hooks := s.Interfaces[0].Hooks
	out := hooks[verdict.Egress].Allowed.Packets + countersOf(s)["egress: own-answer"]
	if now.tx-w.tx != out {
		t.Errorf("%s has sent %d packets, and the gate let %d out", w.link.Name, now.tx-w.tx, out)
	}
	in := hooks[verdict.Ingress]
	if judged := in.Allowed.Packets + in.Dropped.Packets + in.Rejected.Packets; now.rx-w.rx != judged {
		t.Errorf("%s has received %d packets, and the gate judged %d", w.link.Name, now.rx-w.rx, judged)
	}
}

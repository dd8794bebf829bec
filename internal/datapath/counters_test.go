package datapath

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"egate/internal/policy"
	"egate/internal/testutil"
)

// TestCountersAreExactOverManyPolicies: a sender sends while policies are
// switched, every packet is counted by one of three names, and none is lost or
// counted twice.
func TestCountersAreExactOverManyPolicies(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		// The same names at other places, once with the other action, and unnamed rules between them.
		policies := []string{
			"interfaces: [eth0]\negress:\n  default: allow\n  rules:\n    - {name: a, action: allow, to: {ports: [udp/1000]}}\n    - {name: b, action: drop, to: {ports: [udp/2000]}}\n",
			"interfaces: [eth0]\negress:\n  default: allow\n  rules:\n    - {action: drop, to: {ports: [tcp/1]}}\n    - {name: b, action: drop, to: {ports: [udp/2000]}}\n    - {name: c, action: continue}\n    - {name: a, action: allow, to: {ports: [udp/1000]}}\n",
			"interfaces: [eth0]\negress:\n  default: allow\n  rules:\n    - {name: b, action: allow, to: {ports: [udp/2000]}}\n    - {name: a, action: allow, to: {ports: [udp/1000]}}\n",
		}
		w.apply(policies[0])
		p := w.newProbe()
		stop, done := make(chan struct{}), sync.WaitGroup{}
		sent := [3]uint64{}
		done.Go(func() {
			payload := make([]byte, 100)
			for {
				for i, port := range []uint16{1000, 2000, 3000} {
					select {
					case <-stop:
						return
					default:
					}
					to := netip.AddrPortFrom(netip.MustParseAddr(outsideAddr), port)
					if _, err := p.from.WriteToUDPAddrPort(payload, to); err != nil {
						t.Errorf("send: %v", err)
						return
					}
					sent[i]++
				}
			}
		})
		switches := 60
		if _, vm := testutil.InVM(); vm {
			switches = 15
		}
		for i := range switches {
			w.apply(policies[i%len(policies)])
		}
		for range 5 { // readers meet whole numbers at any time
			s := w.status()
			if n := ruleNamed(t, s, "a"); n.Allowed.Bytes != n.Allowed.Packets*sentBytes {
				t.Errorf("while packets run: %+v", n)
			}
		}
		close(stop)
		done.Wait()
		w.apply(policies[0]) // all but this one's are in the sums
		s := w.status()
		a, b, c := ruleNamed(t, s, "a"), ruleNamed(t, s, "b"), s.Chains[0].Fallback
		if a.Allowed.Packets != sent[0] || a.Allowed.Bytes != sent[0]*sentBytes {
			t.Errorf("rule a: %+v, sent %d packets of %d bytes", a.Allowed, sent[0], sentBytes)
		}
		if n := b.Allowed.Packets + b.Dropped.Packets; n != sent[1] {
			t.Errorf("rule b: %d packets, sent %d", n, sent[1])
		}
		if c.Allowed.Packets < sent[2] { // IPv6 sends a few packets of its own
			t.Errorf("default: %d packets, sent %d", c.Allowed.Packets, sent[2])
		}
		h := s.Interfaces[0].Hooks[0]
		if got, want := h.Allowed.Packets+h.Dropped.Packets, a.Allowed.Packets+b.Allowed.Packets+b.Dropped.Packets+c.Allowed.Packets; got != want {
			t.Errorf("interface: %d packets, rules and default: %d", got, want)
		}
		udp := s.Totals[0].Protocols
		var total uint64
		for _, p := range udp {
			if p.Name == "udp" {
				total = p.Passed.Packets + p.Blocked.Packets
			}
		}
		if total != sent[0]+sent[1]+sent[2] {
			t.Errorf("protocol udp: %d packets, sent %d", total, sent)
		}
		t.Logf("sent %d over %d switches", sent, switches+1)
	})
}

func ruleNamed(t *testing.T, s *Status, name string) RuleCounters {
	t.Helper()
	for _, r := range s.Chains[0].Rules {
		if r.Name == name {
			return r.RuleCounters
		}
	}
	t.Fatalf("no rule %q in %+v", name, s.Chains[0].Rules)
	return RuleCounters{}
}

// TestFoldIsDoneOnce folds the same generation twice, as after a kill between
// two of its counters.
func TestFoldIsDoneOnce(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000)
	w.apply(onlyPorts(1000))
	p.expect("", map[int]bool{1000: true})
	g := &gate{name: w.gate, dir: w.bpffs + "/egate/g"}
	s, err := g.openState()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	v, err := g.view()
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	for range 2 {
		if err := v.current.fold(s[sumsMap], nil); err != nil {
			t.Fatal(err)
		}
	}
	var got sum
	key := ruleKey(0, "port-1000")
	if err := s[sumsMap].Lookup(&key, &got); err != nil {
		t.Fatal(err)
	}
	if got.Packets[0] != 1 || got.Folded != 1 {
		t.Errorf("sum after two folds: %+v, want one packet of generation 1", got)
	}
	// It is folded and still there, as when the writer is killed now.
	if st := w.status(); ruleNamed(t, st, "port-1000").Allowed.Packets != 1 {
		t.Errorf("status between fold and removal: %+v, want one packet", st.Chains[0].Rules)
	}
}

// TestFullSumsForgetNamesThatAreGone: a hash map with little room.
func TestFullSumsForgetNamesThatAreGone(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000)
	w.apply(onlyPorts(1000))
	p.expect("", map[int]bool{1000: true})
	g := &gate{name: w.gate, dir: w.bpffs + "/egate/g"}
	s, err := g.openState()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i := range maxSums {
		key := ruleKey(0, fmt.Sprintf("gone-%d", i))
		if err := s[sumsMap].Put(&key, &sum{Folded: 99}); err != nil {
			t.Fatal(err)
		}
	}
	w.apply(onlyPorts(1000, 2000))
	if st := w.status(); ruleNamed(t, st, "port-1000").Allowed.Packets != 1 {
		t.Errorf("%+v, want one packet for port-1000", st.Chains[0].Rules)
	}
}

func TestSumKeyHoldsTheLongestName(t *testing.T) {
	name := make([]byte, policy.MaxNameLength)
	for i := range name {
		name[i] = 'x'
	}
	a, b := ruleKey(0, string(name)), ruleKey(0, string(name[1:]))
	if a == b {
		t.Error("names of different length have the same key")
	}
}

package datapath

import (
	"testing"
	"time"

	"egate/internal/testutil"
)

// applyOnTrial applies a policy that reverts unless it is confirmed.
func (w *world) applyOnTrial(text string, trial time.Duration) *Applied {
	w.t.Helper()
	o := w.options()
	o.Confirm = trial
	applied, err := w.tryApply(testSet(w.t, text), o)
	if err != nil {
		w.t.Fatalf("apply on trial: %v", err)
	}
	return applied
}

func (w *world) confirm() (err error) {
	w.inside.Run(func() { err = Confirm(w.gate) })
	return err
}

func TestConfirmKeepsThePolicy(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.apply(onlyPorts(1000))
		p.expect("before", map[int]bool{1000: true, 2000: false})
		begin := time.Now()
		applied := w.applyOnTrial(onlyPorts(2000), time.Minute)
		if d := applied.Deadline.Sub(begin); d < 59*time.Second || d > 70*time.Second {
			t.Errorf("deadline in %v, want a minute", d)
		}
		p.expect("on trial", map[int]bool{1000: false, 2000: true})
		s := w.status()
		if s.State != Pending || s.Deadline == nil || s.Deadline.Sub(applied.Deadline).Abs() > 100*time.Millisecond || s.Previous != "test" {
			t.Errorf("on trial: state %s, deadline %v, previous %q; want pending, %v, test", s.State, s.Deadline, s.Previous, applied.Deadline)
		}
		_, err := w.tryApply(testSet(t, onlyPorts(1000)), w.options())
		wantError(t, "apply on trial", err, ErrPending)
		if err := w.confirm(); err != nil {
			t.Fatalf("confirm: %v", err)
		}
		p.expect("confirmed", map[int]bool{1000: false, 2000: true})
		s = w.status()
		if s.State != Enforcing || s.Generation != 2 || s.Deadline != nil || s.Chains[0].Fallback.Dropped.Packets != 3 {
			t.Errorf("confirmed: %+v; want enforcing, generation 2, 3 packets dropped by default", s)
		}
		if left := w.leftovers(); left != "" {
			t.Errorf("confirm leaves %s", left)
		}
		wantError(t, "confirm again", w.confirm(), ErrNotPending)
	})
}

// TestKernelRevertsByItself: nothing of egate runs between the two probes.
func TestKernelRevertsByItself(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.apply(onlyPorts(1000) + "ingress: {default: drop}\nflows: {max: 4096}\n")
		// The trial has another size of the connection table and another interface.
		w.inside.Exec("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1-far")
		trial := testutil.Patience(1500 * time.Millisecond)
		applied := w.applyOnTrial("interfaces: [eth1, eth0]\negress:\n  default: drop\n  rules:\n    - {name: port-2000, action: allow, to: {ports: [udp/2000]}}\ningress: {default: drop}\nflows: {max: 1024}\n", trial)
		p.expect("on trial", map[int]bool{1000: false, 2000: true})
		if s := w.status(); s.Flows.Max != 1024 || len(s.Interfaces) != 2 {
			t.Errorf("on trial: %d flows, %d interfaces; want 1024, 2", s.Flows.Max, len(s.Interfaces))
		}
		time.Sleep(time.Until(applied.Deadline) + 20*time.Millisecond)
		p.expect("after the deadline", map[int]bool{1000: true, 2000: false})
		s := w.status()
		if s.State != Reverted || s.Generation != 1 || s.Flows.Max != 4096 || s.Chains[0].Fallback.Dropped.Packets != 2 {
			t.Errorf("reverted: state %s, generation %d, %d flows, default %+v; want reverted, 1, 4096, 2 packets dropped",
				s.State, s.Generation, s.Flows.Max, s.Chains[0].Fallback)
		}
		wantError(t, "confirm too late", w.confirm(), ErrNotPending)
		p.expect("made formal", map[int]bool{1000: true, 2000: false})
		s = w.status()
		if s.State != Enforcing || s.Generation != 1 || len(s.Problems) > 0 || s.Chains[0].Fallback.Dropped.Packets != 3 {
			t.Errorf("made formal: state %s, generation %d, problems %q, default %+v; want enforcing, 1, none, 3 packets dropped",
				s.State, s.Generation, s.Problems, s.Chains[0].Fallback)
		}
		if left := w.leftovers(); left != "" {
			t.Errorf("the return leaves %s", left)
		}
		if applied := w.apply(onlyPorts(2000)); applied.Generation != 3 {
			t.Errorf("the next generation is %d, want 3: no number is given twice", applied.Generation)
		}
		p.expect("applied again", map[int]bool{1000: false, 2000: true})
	})
}

func TestFirstPolicyOnTrial(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		for _, next := range []string{"confirm", "apply", "off"} {
			w := newWorld(t, hook)
			before := w.tc()
			p := w.newProbe(1000, 2000)
			applied := w.applyOnTrial(onlyPorts(1000), testutil.Patience(500*time.Millisecond))
			p.expect("on trial", map[int]bool{1000: true, 2000: false})
			time.Sleep(time.Until(applied.Deadline) + 20*time.Millisecond)
			p.expect("after the deadline", map[int]bool{1000: true, 2000: true})
			if s := w.status(); s.State != Reverted || len(s.Problems) != 1 {
				t.Errorf("state %s, problems %q; want reverted and one", s.State, s.Problems)
			}
			switch next {
			case "confirm":
				wantError(t, "confirm too late", w.confirm(), ErrNotPending)
			case "apply":
				w.apply(onlyPorts(2000))
				p.expect("applied again", map[int]bool{1000: false, 2000: true})
				w.off()
			case "off":
				w.off()
			}
			if pins := w.pins(); len(pins) > 0 {
				t.Errorf("%s: pins left: %q", next, pins)
			}
			if after := w.tc(); after != before {
				t.Errorf("%s: tc shows\n%s\nbefore\n%s", next, after, before)
			}
		}
	})
}

func TestOffWhileOnTrial(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000, 2000)
	w.apply(onlyPorts(1000))
	w.applyOnTrial(onlyPorts(2000), time.Hour)
	all := w.objectsOf()
	w.off()
	p.expect("off", map[int]bool{1000: true, 2000: true})
	all.expectGone(t)
	if pins := w.pins(); len(pins) > 0 {
		t.Errorf("pins left: %q", pins)
	}
}

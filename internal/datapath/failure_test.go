package datapath

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"egate/internal/testutil"
)

// setStep calls f before each step until the test ends.
func setStep(t testing.TB, f func(name string) error) {
	before := step
	step = f
	t.Cleanup(func() { step = before })
}

var errBoom = errors.New("boom")

// beforeSwitch are the steps of an apply up to the one write, in their order;
// those of a first one and a later one together.
var beforeSwitch = []string{"prepare", "state", "names", "load", "fill", "pin", "rename", "attach", "qdisc", "seed", "switch"}

// trackingPolicy is like onlyPorts, and needs to know who opened a connection.
func trackingPolicy(ports ...int) string {
	return onlyPorts(ports...) + "ingress: {default: drop}\n"
}

// TestFailedApplyChangesNothing makes every step of an apply fail, the first
// and every further time that it is reached.
func TestFailedApplyChangesNothing(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		// A second cable: its attachments are new in the policy that fails.
		w.inside.Exec("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1-far")
		p := w.newProbe(1000, 2000)
		next := "interfaces: [eth0, \"eth1*\"]\negress:\n  default: drop\n  rules:\n    - {action: allow, to: {ports: [udp/2000]}}\ningress: {default: drop}\nflows: {max: 2048}\ndns: {servers: [127.0.0.1]}\n" // so that lo is new too
		times := map[string]int{"attach": 8, "names": len(nameStateMaps)}
		if _, vm := testutil.InVM(); vm { // where loading takes seconds
			clear(times)
		}

		check := func(what string, ports map[int]bool, steps []string) {
			t.Helper()
			pins, tc := w.pins(), w.tc()
			reached := map[string]bool{}
			for _, name := range steps {
				for count := 1; ; count++ {
					seen := 0
					boom := errBoom
					setStep(t, func(at string) error {
						if at == name {
							if seen++; seen == count {
								return boom
							}
						}
						return nil
					})
					_, err := w.tryApply(testSet(t, next), w.options())
					setStep(t, func(string) error { return nil })
					if err == nil {
						t.Fatalf("%s: step %q for the %d. time: no error", what, name, count)
					}
					if !errors.Is(err, boom) {
						t.Fatalf("%s: step %q: %v", what, name, err)
					}
					reached[name] = true
					at := fmt.Sprintf("%s, step %q for the %d. time", what, name, count)
					if got := w.pins(); !slices.Equal(got, pins) {
						t.Fatalf("%s: pins\n%q\nwere\n%q", at, got, pins)
					}
					if got := w.tc(); got != tc {
						t.Fatalf("%s: tc shows\n%s\nbefore\n%s", at, got, tc)
					}
					p.expect(at, ports)
					if count >= times[name] {
						break
					}
				}
			}
		}
		steps := beforeSwitch
		if hook == HookTCX {
			steps = slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return s == "qdisc" })
		}
		check("nothing in force", map[int]bool{1000: true, 2000: true}, steps)
		w.apply(onlyPorts(1000))
		check("a policy in force", map[int]bool{1000: true, 2000: false}, steps)
		w.apply(next)
		p.expect("no failure", map[int]bool{1000: false, 2000: true})
	})
}

// TestFailureAfterTheSwitch: the new policy is in force, a warning says what
// is left to do, and the next apply does it.
func TestFailureAfterTheSwitch(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		for _, name := range []string{"finish", "detach", "wait", "fold", "discard", "twins"} {
			w := newWorld(t, hook)
			p := w.newProbe(1000, 2000)
			w.apply(trackingPolicy(1000) + "flows: {max: 4096}\n")
			p.expect("before", map[int]bool{1000: true, 2000: false})

			// The steps of tidying up come also before the switch, with nothing to
			// do: those of this apply fail when they are reached with something.
			switched := false
			setStep(t, func(at string) error {
				switched = switched || at == "switch"
				if at == name && switched {
					return errBoom
				}
				return nil
			})
			applied, err := w.tryApply(testSet(t, trackingPolicy(2000)+"flows: {max: 2048}\n"), w.options())
			setStep(t, func(string) error { return nil })
			if err != nil {
				t.Fatalf("step %q: %v", name, err)
			}
			if len(applied.Warnings) != 1 {
				t.Errorf("step %q: warnings %q, want one", name, applied.Warnings)
			}
			p.expect(name, map[int]bool{1000: false, 2000: true})
			s := w.status()
			if s.Generation != 2 || s.Chains[0].Rules[0].Allowed.Packets != 1 || s.Chains[0].Fallback.Dropped.Packets != 2 {
				t.Errorf("step %q: generation %d, counters %+v, %+v; want 2, one packet and two", name, s.Generation, s.Chains[0].Rules, s.Chains[0].Fallback)
			}
			if err := change(w.gate, func(g *gate) error {
				var v *view
				w.inside.Run(func() { v, err = g.settle() })
				if err == nil {
					v.close()
				}
				return err
			}); err != nil {
				t.Fatalf("settle after a failure at %q: %v", name, err)
			}
			for _, pin := range w.pins() {
				if slices.Contains([]string{"egate/g/gen-1", "egate/g/old-1", "egate/g/state/flows-new"}, pin) {
					t.Errorf("step %q: %s is left", name, pin)
				}
			}
			if s := w.status(); s.Chains[0].Rules[0].Allowed.Packets != 1 || s.Chains[0].Fallback.Dropped.Packets != 2 || s.Flows.Max != 2048 {
				t.Errorf("step %q, tidied up: counters %+v, %+v, %d flows; want one packet and two, 2048 flows", name, s.Chains[0].Rules, s.Chains[0].Fallback, s.Flows.Max)
			}
		}
	})
}

package datapath

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/policy"
	"egate/internal/testutil"
)

// pretendABI makes the gate's state that of another version.
func (w *world) pretendABI(version uint32) {
	w.t.Helper()
	m, err := ebpf.LoadPinnedMap(w.bpffs+"/egate/g/state/abi", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), version); err != nil {
		w.t.Fatal(err)
	}
}

func TestStateOfAnotherVersion(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.apply(onlyPorts(1000))
		w.apply(onlyPorts(1000))
		p.expect("", map[int]bool{1000: true, 2000: false})
		w.pretendABI(99)

		_, err := w.tryApply(testSet(t, onlyPorts(2000)), w.options())
		wantError(t, "apply", err, ErrABI)
		for _, text := range []string{"99", fmt.Sprint(ABIVersion), "apply --replace-state"} {
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("apply: %v; want it to say %q", err, text)
			}
		}
		_, err = ReadStatus(w.gate)
		wantError(t, "status", err, ErrABI)
		wantError(t, "confirm", w.confirm(), ErrABI)
		p.expect("refused", map[int]bool{1000: true, 2000: false})

		o := w.options()
		o.ReplaceState = true
		applied, err := w.tryApply(testSet(t, onlyPorts(2000)), o)
		if err != nil || len(applied.Warnings) > 0 {
			t.Fatalf("apply --replace-state: %+v, %v", applied, err)
		}
		p.expect("replaced", map[int]bool{1000: false, 2000: true})
		s := w.status()
		if s.State != Enforcing || s.Chains[0].Fallback.Dropped.Packets != 1 {
			t.Errorf("replaced: state %s %q, default %+v; want one packet", s.State, s.Problems, s.Chains[0].Fallback)
		}
		for _, pin := range w.pins() {
			if strings.Contains(pin, twinSuffix) || strings.Contains(pin, "gen-") && !strings.Contains(pin, fmt.Sprintf("gen-%d", applied.Generation)) {
				t.Errorf("%s is left", pin)
			}
		}
		w.pretendABI(99)
		w.off() // works on any version
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("pins left: %q", pins)
		}
	})
}

// TestFailedReplacementKeepsTheOldState makes each step of --replace-state fail.
func TestFailedReplacementKeepsTheOldState(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000, 2000)
	w.apply(onlyPorts(1000))
	w.pretendABI(99)
	pins := strings.Join(w.pins(), "\n")
	o := w.options()
	o.ReplaceState = true
	for _, name := range []string{"prepare", "state", "load", "pin", "rename", "attach", "switch"} {
		setStep(t, func(at string) error {
			if at == name {
				return errBoom
			}
			return nil
		})
		_, err := w.tryApply(testSet(t, onlyPorts(2000)), o)
		setStep(t, func(string) error { return nil })
		wantError(t, name, err, errBoom)
		if got := strings.Join(w.pins(), "\n"); got != pins {
			t.Errorf("step %q: pins\n%s\nwere\n%s", name, got, pins)
		}
		p.expect(name, map[int]bool{1000: true, 2000: false})
	}
	// After the switch a later writer goes on where this one stopped.
	setStep(t, func(at string) error {
		if at == "finish" || at == "twins" {
			return errBoom
		}
		return nil
	})
	applied, err := w.tryApply(testSet(t, onlyPorts(2000)), o)
	setStep(t, func(string) error { return nil })
	if err != nil || len(applied.Warnings) != 1 {
		t.Fatalf("failure after the switch: %+v, %v; want a warning", applied, err)
	}
	p.expect("after the switch", map[int]bool{1000: false, 2000: true})
	w.apply(onlyPorts(1000, 2000))
	p.expect("next writer", map[int]bool{1000: true, 2000: true})
	if s := w.status(); s.Chains[0].Fallback.Dropped.Packets != 1 {
		t.Errorf("default: %+v, want one packet: the state was replaced before", s.Chains[0].Fallback)
	}
}

func TestReplaceOfTheSameVersionKeepsCounters(t *testing.T) {
	w := newWorld(t, HookAuto)
	p := w.newProbe(1000)
	w.apply(onlyPorts(1000))
	p.expect("", map[int]bool{1000: true})
	o := w.options()
	o.ReplaceState = true
	if _, err := w.tryApply(testSet(t, onlyPorts(1000)), o); err != nil {
		t.Fatal(err)
	}
	if s := w.status(); s.Chains[0].Rules[0].Allowed.Packets != 1 {
		t.Errorf("%+v, want one packet", s.Chains[0].Rules)
	}
}

func TestGateBelongsToItsNetns(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.apply(onlyPorts(1000))
		before := strings.Join(w.pins(), "\n")
		var err error
		w.outside.Run(func() { _, err = Apply(testSet(t, onlyPorts(2000)), w.options()) })
		wantError(t, "apply from another namespace", err, ErrNetns)
		if after := strings.Join(w.pins(), "\n"); after != before {
			t.Errorf("pins\n%s\nwere\n%s", after, before)
		}
		p.expect("refused", map[int]bool{1000: true, 2000: false})

		// status finds its way into the gate's namespace.
		w.outside.Run(func() {
			s := w.status()
			if s.State != Enforcing || len(s.Interfaces) != 1 || !s.Interfaces[0].Hooks[0].Attached {
				t.Errorf("status from another namespace: %s %q %+v", s.State, s.Problems, s.Interfaces)
			}
		})
		w.outside.Run(func() { err = Off(w.gate) })
		if hook == HookTCX {
			if err != nil {
				t.Errorf("off from another namespace: %v; links go from anywhere", err)
			}
			p.expect("off", map[int]bool{1000: true, 2000: true})
			return
		}
		wantError(t, "off from another namespace", err, ErrNetns)
		p.expect("off refused", map[int]bool{1000: true, 2000: false})
	})
}

// TestNetnsGone: the namespace went with all that was attached in it.
func TestNetnsGone(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		testBPFFS(t)
		t.Run("namespace", func(t *testing.T) {
			n := testutil.NewNetns(t)
			n.Run(func() {
				if _, err := Apply(testSet(t, "interfaces: [lo]\negress: {default: drop}\n"), ApplyOptions{Gate: "g", Hook: hook}); err != nil {
					t.Fatal(err)
				}
			})
		})
		s, err := ReadStatus("g")
		if err != nil || s.State != Broken || len(s.Problems) == 0 {
			t.Errorf("status: %+v, %v; want broken with a problem", s, err)
		}
		if err := Off("g"); err != nil {
			t.Errorf("off: %v; there is nothing that could be left behind", err)
		}
	})
}

func TestFlowsKeepTheirEntriesWhenTheyGetAnotherSize(t *testing.T) {
	w := newWorld(t, HookAuto)
	policyOf := func(max int) string {
		return fmt.Sprintf("interfaces: [eth0]\negress: {default: drop}\nflows: {max: %d}\n", max)
	}
	w.apply(policyOf(4096))
	udp := w.newProbe(1000)
	// A peer opens: its packet comes in, and the answer may leave.
	server := w.serveUDP(7000)
	client := w.dialUDP(7000)
	if !client.echoes() {
		t.Fatal("no reply under default drop")
	}
	if !client.echoes() {
		t.Fatal("no second reply")
	}
	udp.expect("not a reply", map[int]bool{1000: false})
	for _, max := range []int{2048, 8192, policy.MinFlows} {
		w.apply(policyOf(max))
		s := w.status()
		if s.Flows.Max != uint64(max) || s.Flows.Known < 1 {
			t.Errorf("flows: %+v, want max %d and at least one", s.Flows, max)
		}
		// The server speaks first now: only what was remembered lets it.
		if !client.hears(server) {
			t.Errorf("with %d flows the connection is forgotten", max)
		}
	}
}

// TestDamagedPins: somebody removed a pin by hand. What is in force stays so,
// the errors say what to do, and off works.
func TestDamagedPins(t *testing.T) {
	for _, pin := range []string{"gen-1/meta", "gen-1/program", "gen-1", "state/totals", "state/abi", "dispatch_egress", "links/2-egress"} {
		w := newWorld(t, HookAuto)
		p := w.newProbe(1000, 2000)
		applied := w.apply(onlyPorts(1000))
		if pin == "links/2-egress" && applied.Hook != HookTCX.String() {
			continue // filters need no pins
		}
		w.inside.Exec("rm", "-r", w.bpffs+"/egate/g/"+pin)
		s, err := ReadStatus(w.gate)
		switch pin {
		case "gen-1", "links/2-egress":
			// The kernel detaches some time after the pin is gone.
			for limit := time.Now().Add(testutil.Patience(time.Second)); err == nil && s.State != Broken && time.Now().Before(limit); {
				s, err = ReadStatus(w.gate)
			}
			if err != nil || s.State != Broken || len(s.Problems) == 0 {
				t.Errorf("without %s: status %+v, %v; want broken", pin, s, err)
			}
			w.apply(onlyPorts(2000))
			p.expect("applied without "+pin, map[int]bool{1000: false, 2000: true})
		case "dispatch_egress":
			if err != nil {
				t.Errorf("without %s: status: %v", pin, err)
			}
		case "state/abi":
			wantError(t, "status without "+pin, err, ErrABI)
		default:
			wantError(t, "status without "+pin, err, ErrDamaged)
			_, err = w.tryApply(testSet(t, onlyPorts(2000)), w.options())
			wantError(t, "apply without "+pin, err, ErrDamaged)
			p.expect("refused without "+pin, map[int]bool{1000: true, 2000: false})
		}
		w.off()
		p.expect("off", map[int]bool{1000: true, 2000: true})
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("without %s off leaves %q", pin, pins)
		}
	}
}

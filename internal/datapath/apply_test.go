package datapath

import (
	"slices"
	"testing"

	"egate/internal/testutil"
)

func TestApplyAndOffLeaveNothing(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		before := w.tc()

		first := w.apply(onlyPorts(1000))
		if first.Hook != hook.String() || !slices.Equal(first.Interfaces, []string{"eth0"}) {
			t.Errorf("applied %+v, want hook %v on eth0", first, hook)
		}
		p.expect("first policy", map[int]bool{1000: true, 2000: false})
		old := w.objectsOf()
		w.apply(onlyPorts(2000))
		p.expect("second policy", map[int]bool{1000: false, 2000: true})
		if s := w.status(); s.State != Enforcing || len(s.Problems) > 0 {
			t.Errorf("status is %v, problems %q", s.State, s.Problems)
		}

		all := w.objectsOf()
		w.off()
		p.expect("after off", map[int]bool{1000: true, 2000: true})
		old.expectGone(t)
		all.expectGone(t)
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("pins left: %q", pins)
		}
		if after := w.tc(); after != before {
			t.Errorf("qdiscs and filters before:\n%s\nafter:\n%s", before, after)
		}
		gates, err := Gates()
		if err != nil || len(gates) > 0 {
			t.Errorf("gates after off: %q, %v", gates, err)
		}
	})
}

func TestPinsAreWhatTheDocumentationSays(t *testing.T) {
	requireTCX(t)
	w := newWorld(t, HookTCX)
	w.apply(onlyPorts(1000))
	want := []string{"egate", "egate/g", "egate/g/active", "egate/g/dispatch_egress", "egate/g/dispatch_ingress",
		"egate/g/gen-1", "egate/g/gen-1/adopted", "egate/g/gen-1/event_times", "egate/g/gen-1/iface_counters", "egate/g/gen-1/ifaces",
		"egate/g/gen-1/meta", "egate/g/gen-1/program", "egate/g/gen-1/rule_counters",
		"egate/g/links", "egate/g/links/2-egress", "egate/g/links/2-ingress",
		"egate/g/state", "egate/g/state/abi", "egate/g/state/answer_time", "egate/g/state/events", "egate/g/state/flows",
		"egate/g/state/fragments", "egate/g/state/generation", "egate/g/state/sums", "egate/g/state/totals",
		"egate/secret"}
	if got := w.pins(); !slices.Equal(got, want) {
		t.Errorf("pins:\n%q\nwant:\n%q", got, want)
	}
}

func TestGatesComposeAndShareWhatIsShared(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000, 3000)
		before := w.tc()
		w.apply(onlyPorts(1000, 2000))
		w.gate = "h"
		w.apply(onlyPorts(2000, 3000))
		p.expect("both gates", map[int]bool{1000: false, 2000: true, 3000: false})
		s := w.status()
		if programs := s.Interfaces[0].Hooks[0].Programs; len(programs) != 2 || programs[0].Gate != "h" || programs[1].Gate != "g" {
			t.Errorf("programs on egress: %+v, want those of h and g", programs)
		}
		w.gate = "g"
		w.off()
		p.expect("one gate left", map[int]bool{1000: false, 2000: true, 3000: true})
		w.gate = "h"
		w.off()
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("pins left: %q", pins)
		}
		if after := w.tc(); after != before {
			t.Errorf("qdiscs and filters before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func TestBothDirectionsAndFamiliesSwitchTogether(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.apply("interfaces: [eth0]\negress: {default: allow}\ningress:\n  default: drop\n  replies: false\n  rules:\n    - {action: allow, to: {icmp: [echo-reply]}}\n")
	for _, target := range []string{outsideAddr, "fd09::2"} {
		if r := w.inside.Try("ping", "-c1", "-W1", target); r.Code != 0 {
			t.Errorf("ping %s from inside: %s%s", target, r.Stdout, r.Stderr)
		}
	}
	if r := w.outside.Try("ping", "-c1", "-W1", insideAddr); r.Code == 0 {
		t.Errorf("ping from outside got an answer")
	}
	if s := w.status(); s.Chains[1].Rules[0].Allowed.Packets != 2 || s.Chains[1].Rules[0].Label != "#1" {
		t.Errorf("ingress rules: %+v, want #1 with 2 packets", s.Chains[1].Rules)
	}
}

func TestGateNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"host": true, "a-b_C9": true, "": false, "a.b": false, "secret": false, "qdiscs": false, "-x": false,
		"a/b": false, "..": false, "abcdefghijklmnopqrstuvwxyz0123456": false, "ä": false,
	} {
		if err := CheckGateName(name); (err == nil) != ok {
			t.Errorf("CheckGateName(%q) = %v, want ok %v", name, err, ok)
		}
	}
}

func TestNothingPinnedIsNoGate(t *testing.T) {
	testBPFFS(t)
	testutil.RequireRoot(t)
	if gates, err := Gates(); err != nil || len(gates) != 0 {
		t.Errorf("Gates() = %q, %v; want none", gates, err)
	}
	_, err := ReadStatus("g")
	wantError(t, "ReadStatus", err, ErrNoGate)
	wantError(t, "Off", Off("g"), ErrNoGate)
	wantError(t, "Confirm", Confirm("g"), ErrNoGate)
	_, err = OpenRing("g")
	wantError(t, "OpenRing", err, ErrNoGate)
}

package datapath

import "testing"

func TestServed(t *testing.T) {
	w := newWorld(t, HookAuto)
	_, err := Served(w.gate)
	wantError(t, "a gate that does not exist", err, ErrNoGate)
	_, err = Served("no/name")
	wantError(t, "no name of a gate", err, ErrGateName)

	expect := func(when string, want bool) {
		t.Helper()
		got, err := Served(w.gate)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: served is %v", when, got)
		}
	}
	w.apply(onlyPorts(1))
	expect("nobody serves it", false)
	var s *Service
	w.inside.Run(func() { s, err = Serve(w.gate) })
	if err != nil {
		t.Fatal(err)
	}
	expect("somebody serves it", true)
	w.apply(onlyPorts(2))
	expect("another policy is in force", true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expect("nobody serves it any more", false)
	w.off()
	_, err = Served(w.gate)
	wantError(t, "a gate that is off", err, ErrNoGate)
}

package datapath

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/domain"
	"egate/internal/testutil"
	"egate/internal/verdict"
)

// namesPolicy lists names, and its server is the outer end of the cable.
const namesPolicy = listsNames + "dns: {servers: [10.9.0.2]}\n"

// statePins are what is pinned in the state, of maps of names and twins.
func (w *world) statePins() (names, twins []string) {
	w.t.Helper()
	for _, pin := range w.pins() {
		name, ok := strings.CutPrefix(pin, "egate/g/state/")
		switch {
		case !ok:
		case strings.HasSuffix(name, twinSuffix):
			twins = append(twins, name)
		case slices.Contains(nameStateMaps, name):
			names = append(names, name)
		}
	}
	return names, twins
}

func (w *world) expectNames(when string, names, twins int) {
	w.t.Helper()
	n, t := w.statePins()
	if len(n) != names || len(t) != twins {
		w.t.Errorf("%s: maps of names %q, twins %q; want %d and %d", when, n, t, names, twins)
	}
}

// names opens the maps of names. The caller closes.
func (w *world) names() state {
	w.t.Helper()
	s := state{}
	for _, name := range nameStateMaps {
		m, err := ebpf.LoadPinnedMap(w.bpffs+"/egate/g/state/"+name, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		s[name] = m
	}
	return s
}

func (w *world) nameKey() domain.Key {
	w.t.Helper()
	s := w.names()
	defer s.close()
	key, err := s.nameKey()
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

// learnByHand opens an address to a name, as an answer would.
func (w *world) learnByHand(name string, addr netip.Addr, life time.Duration) {
	w.t.Helper()
	s := w.names()
	defer s.close()
	writeLearned(w.t, s, addr, life, name)
}

func TestMapsOfNamesComeWithTheFirstPolicyThatNeedsThem(t *testing.T) {
	w := newWorld(t, HookAuto)
	all := len(nameStateMaps)
	w.apply(onlyPorts(1000))
	w.expectNames("without names", 0, 0)
	w.apply(namesPolicy)
	w.expectNames("with names", all, 0)
	key := w.nameKey()
	if key == (domain.Key{}) {
		t.Fatal("the key was not made")
	}
	w.learnByHand("a.example", netip.MustParseAddr("192.0.2.1"), time.Hour)

	w.apply(onlyPorts(1000))
	w.expectNames("in between", all, 0)
	if s := w.status(); s.Names.InUse || len(s.Names.Tables) == 0 || s.Names.Tables[0].Known != 1 {
		t.Errorf("in between: %+v; want not in use, one address", s.Names)
	}
	w.apply(namesPolicy)
	if again := w.nameKey(); again != key {
		t.Errorf("key %x, was %x", again, key)
	}
	names, err := ReadNames(w.gate)
	if err != nil || len(names) != 1 || names[0].Name != "a.example" || len(names[0].Addresses) != 1 {
		t.Errorf("names %+v, %v; want a.example with its address", names, err)
	}
	objects := w.objectsOf()
	w.off()
	objects.expectGone(t)
}

func TestMapsOfNamesOfATrial(t *testing.T) {
	all := len(nameStateMaps)
	for _, confirmed := range []bool{true, false} {
		w := newWorld(t, HookAuto)
		w.apply(onlyPorts(1000))
		trial := time.Hour
		if !confirmed {
			trial = testutil.Patience(time.Second)
		}
		w.applyOnTrial(namesPolicy, trial)
		w.expectNames("on trial", 0, all)
		if s := w.status(); !s.Names.InUse || len(s.Names.Tables) == 0 {
			t.Errorf("on trial: status knows no names: %+v", s.Names)
		}
		if confirmed {
			if err := w.confirm(); err != nil {
				t.Fatal(err)
			}
			w.expectNames("confirmed", all, 0)
			continue
		}
		time.Sleep(trial)
		if s := w.status(); s.State != Reverted || s.Names.InUse {
			t.Errorf("after the trial: %s, names in use %v", s.State, s.Names.InUse)
		}
		w.apply(onlyPorts(1000))
		w.expectNames("reverted", 0, 0)
	}
}

// TestNamesSurviveATrial: what was learned before is there on trial and after
// the kernel reverted.
func TestNamesSurviveATrial(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.apply(namesPolicy)
	w.learnByHand("a.example", netip.MustParseAddr("192.0.2.1"), time.Hour)
	trial := testutil.Patience(time.Second)
	expect := func(when, rule string) {
		t.Helper()
		names, err := ReadNames(w.gate)
		if err != nil || len(names) != 1 || len(names[0].Addresses) != 1 || !slices.Equal(names[0].Rules, []string{rule}) {
			t.Errorf("%s: %+v, %v; want one name and rule %s", when, names, err, rule)
		}
	}
	expect("before", "named")
	w.applyOnTrial(strings.ReplaceAll(namesPolicy, "name: named", "name: other"), trial)
	expect("on trial", "other")
	time.Sleep(trial)
	expect("reverted", "named")
}

func TestReplacedStateForgetsNames(t *testing.T) {
	all := len(nameStateMaps)
	for _, next := range []struct {
		policy string
		maps   int
	}{{namesPolicy, all}, {onlyPorts(1000), 0}} {
		w := newWorld(t, HookAuto)
		w.apply(namesPolicy)
		w.learnByHand("a.example", netip.MustParseAddr("192.0.2.1"), time.Hour)
		w.pretendABI(99)
		_, err := ReadNames(w.gate)
		wantError(t, "names of another version", err, ErrABI)
		_, err = w.tryApply(testSet(t, next.policy), w.options())
		wantError(t, "apply", err, ErrABI)
		if err != nil && !strings.Contains(err.Error(), "learned names") {
			t.Errorf("apply: %v; want it to say that names are lost", err)
		}
		o := w.options()
		o.ReplaceState = true
		for _, fail := range []string{"state", "switch", "twins"} {
			setStep(t, func(at string) error {
				if at == fail {
					return errBoom
				}
				return nil
			})
			_, err := w.tryApply(testSet(t, next.policy), o)
			setStep(t, func(string) error { return nil })
			if fail == "twins" { // after the switch: the next writer goes on
				if err != nil {
					t.Fatal(err)
				}
				continue
			}
			wantError(t, fail, err, errBoom)
			w.expectNames(fail, all, 0)
		}
		w.apply(next.policy)
		w.expectNames("replaced", next.maps, 0)
		names, err := ReadNames(w.gate)
		if err != nil || len(names) != 0 {
			t.Errorf("replaced: names %+v, %v; want none", names, err)
		}
	}
}

func TestServerOnThisHostIsReadOnLoopback(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		before := w.tc() + w.inside.Exec("tc", "qdisc", "show", "dev", "lo")
		for _, server := range []string{"127.0.0.53", "\"::1\"", insideAddr} {
			applied := w.apply(listsNames + "dns: {servers: [" + server + "]}\n")
			if !slices.Equal(applied.Interfaces, []string{"eth0"}) {
				t.Errorf("%s: applied to %q, want eth0", server, applied.Interfaces)
			}
			s := w.status()
			if s.State != Enforcing || len(s.Interfaces) != 2 {
				t.Fatalf("%s: %s %q, interfaces %+v", server, s.State, s.Problems, s.Interfaces)
			}
			lo, eth0 := s.Interfaces[0], s.Interfaces[1]
			if lo.Name != "lo" || !lo.DNSOnly || !lo.Hooks[0].Attached || !lo.Hooks[1].Attached || eth0.DNSOnly {
				t.Errorf("%s: %+v and %+v; want lo for DNS only, attached", server, lo, eth0)
			}
		}
		// Another policy judges lo itself, and one on trial leaves it attached for the one before.
		w.apply("interfaces: [lo, eth0]\negress: {default: allow}\ndns: {servers: [127.0.0.1]}\n")
		if s := w.status(); len(s.Interfaces) != 2 || s.Interfaces[0].DNSOnly {
			t.Errorf("guarded: %+v", s.Interfaces)
		}
		w.apply(listsNames + "dns: {servers: [127.0.0.53]}\n")
		w.applyOnTrial(namesPolicy, time.Hour)
		if s := w.status(); len(s.Interfaces) != 1 {
			t.Errorf("on trial: %+v", s.Interfaces)
		}
		if err := w.confirm(); err != nil {
			t.Fatal(err)
		}
		w.inside.Run(func() {
			own, err := dispatchersOn(1)
			if err != nil || own != 0 {
				t.Errorf("%d dispatchers are left on lo, %v", own, err)
			}
		})
		w.apply(listsNames + "dns: {servers: [127.0.0.53]}\n")
		w.off()
		if after := w.tc() + w.inside.Exec("tc", "qdisc", "show", "dev", "lo"); after != before {
			t.Errorf("off leaves\n%s", after)
		}
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("off leaves %q", pins)
		}
	})
}

// dispatchersOn counts egate's programs on an interface.
func dispatchersOn(ifindex int) (n int, err error) {
	for d := range 2 {
		programs, err := hookPrograms(ifindex, verdict.Direction(d), nil)
		if err != nil {
			return 0, err
		}
		for _, p := range programs {
			if strings.HasPrefix(p.Name, "egate_") {
				n++
			}
		}
	}
	return n, nil
}

func TestServerBehindAnUnguardedInterfaceIsAWarning(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.inside.Exec("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1-far")
	w.inside.Exec("ip", "link", "set", "eth1-far", "up")
	w.inside.Exec("ip", "addr", "add", "10.8.0.1/24", "dev", "eth1")
	w.inside.Exec("ip", "link", "set", "eth1", "up")
	applied, err := w.tryApply(testSet(t, listsNames+"dns: {servers: [10.8.0.53, 10.9.0.2, 192.0.2.53]}\n"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(applied.Warnings) != 1 || !strings.Contains(applied.Warnings[0], "10.8.0.53 is reached by eth1") {
		t.Errorf("warnings %q; want one about 10.8.0.53", applied.Warnings)
	}
}

func TestNoServerIsRefused(t *testing.T) {
	w := newWorld(t, HookAuto)
	setHostServers(t)
	_, err := w.tryApply(testSet(t, listsNames), w.options())
	wantError(t, "no server", err, ErrNoServer)
	if pins := w.pins(); len(pins) > 0 {
		t.Errorf("pins %q", pins)
	}
	setHostServers(t, netip.MustParseAddr(outsideAddr))
	w.apply(listsNames)
	if s := w.status(); !slices.Equal(s.Names.Servers, []netip.Addr{netip.MustParseAddr(outsideAddr)}) {
		t.Errorf("servers %v, want the host's", s.Names.Servers)
	}
}

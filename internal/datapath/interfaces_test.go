package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"egate/internal/testutil"
)

func TestResolveInterfaces(t *testing.T) {
	n := testutil.NewNetns(t)
	n.Exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	n.Exec("ip", "link", "set", "eth0", "up")
	n.Exec("ip", "link", "set", "eth1", "up")
	n.Exec("ip", "tuntap", "add", "tun0", "mode", "tun")
	for _, c := range []struct {
		patterns []string
		setup    string // a command that changes the namespace first
		want     []string
		warnings int
		err      error
	}{
		{patterns: []string{"eth0"}, want: []string{"eth0"}},
		{patterns: []string{"eth*", "lo"}, want: []string{"lo", "eth1", "eth0"}}, // by ifindex
		{patterns: []string{"eth0", "eth[01]"}, want: []string{"eth1", "eth0"}},
		{patterns: []string{"eth0", "wlan*"}, want: []string{"eth0"}, warnings: 1},
		{patterns: []string{"tun0"}, want: []string{"tun0"}}, // down
		{patterns: []string{"wlan0", "ppp*"}, err: ErrNoInterface},
		{patterns: []string{"default"}, err: ErrNoInterface},
		{patterns: []string{"default"}, setup: "ip route add default dev eth0", want: []string{"eth0"}},
		{patterns: []string{"default"}, setup: "ip -6 route add default dev eth1", want: []string{"eth1", "eth0"}},
		{patterns: []string{"default"}, setup: "ip route del default dev eth0", want: []string{"eth1"}},
		{patterns: []string{"default"}, setup: "ip route add unreachable default", want: []string{"eth1"}},
	} {
		if c.setup != "" {
			words := strings.Fields(c.setup)
			n.Exec(words[0], words[1:]...)
		}
		var found []guarded
		var warnings []string
		var err error
		n.Run(func() { found, warnings, err = resolveInterfaces(c.patterns) })
		var names []string
		for _, g := range found {
			names = append(names, g.Name)
		}
		if !errors.Is(err, c.err) || !slices.Equal(names, c.want) || len(warnings) != c.warnings {
			t.Errorf("%q: %q, warnings %q, error %v; want %q, %d, %v", c.patterns, names, warnings, err, c.want, c.warnings, c.err)
		}
		if errors.Is(err, ErrNoInterface) && !strings.Contains(err.Error(), "tun0") {
			t.Errorf("%q: %v; want it to list what there is", c.patterns, err)
		}
	}
}

func TestLinkLayers(t *testing.T) {
	for encap, want := range map[string]string{
		"ether": "0", "loopback": "0", "none": "1", "ipip": "1", "tunnel6": "1", "sit": "1", "ppp": "1", "unknown519": "1",
		"gre": "refused", "gre6": "refused", "infiniband": "refused", "ieee802.11": "refused",
	} {
		g, err := guardedOf(&netlink.LinkAttrs{Name: "x0", Index: 7, EncapType: encap})
		got := fmt.Sprint(g.Link)
		if err != nil {
			got = "refused"
			wantError(t, encap, err, ErrInterface)
		}
		if got != want {
			t.Errorf("link layer of %q: %s, want %s", encap, got, want)
		}
	}
	_, err := guardedOf(&netlink.LinkAttrs{Name: "x0", Index: 1 << 20, EncapType: "ether"})
	wantError(t, "ifindex over the bound", err, ErrInterface)
}

func TestIfaceEntries(t *testing.T) {
	for index, want := range map[int]uint32{1: 16384, 8191: 16384, 8192: 32768, 50000: 131072, maxIfindex: 1 << 20} {
		if got := ifaceEntries([]guarded{{Index: 1}, {Index: index}}); got != want {
			t.Errorf("entries for ifindex %d: %d, want %d", index, got, want)
		}
	}
}

// TestInterfacesThatChange: renamed ones stay guarded, those that vanish are
// forgotten by the next apply, and an ifindex in the thousands is one.
func TestInterfacesThatChange(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.inside.Exec("ip", "link", "add", "eth1", "index", "3000", "type", "veth", "peer", "name", "far1")
		both := "interfaces: [\"eth*\", \"wan*\"]\negress:\n  default: drop\n  rules:\n    - {name: port-1000, action: allow, to: {ports: [udp/1000]}}\n"
		applied, err := w.tryApply(testSet(t, both), w.options())
		if err != nil || !slices.Equal(applied.Interfaces, []string{"eth0", "eth1"}) {
			t.Fatalf("apply: %+v, %v", applied, err)
		}
		p.expect("", map[int]bool{1000: true, 2000: false})

		w.inside.Exec("ip", "link", "set", "eth0", "down")
		w.inside.Exec("ip", "link", "set", "eth0", "name", "wan0")
		w.inside.Exec("ip", "link", "set", "wan0", "up")
		testutil.KnowEachOther(t, testutil.Link{Netns: w.inside, Name: "wan0", Index: w.cable.Index, MAC: w.cable.MAC, Addrs: nil}, w.far())
		p.expect("renamed", map[int]bool{1000: true, 2000: false})
		s := w.status()
		if s.State != Enforcing || s.Interfaces[0].Name != "wan0" || s.Interfaces[0].NamedAt != "eth0" || !s.Interfaces[0].Hooks[0].Attached {
			t.Errorf("renamed: %s %q %+v", s.State, s.Problems, s.Interfaces)
		}

		w.inside.Exec("ip", "link", "del", "eth1")
		s = w.status()
		if s.State != Broken || len(s.Problems) != 1 || !s.Interfaces[1].Gone {
			t.Errorf("vanished: %s %q %+v; want broken with one problem", s.State, s.Problems, s.Interfaces)
		}
		if _, err := w.tryApply(testSet(t, both), w.options()); err != nil {
			t.Fatalf("apply after an interface has vanished: %v", err)
		}
		s = w.status()
		if s.State != Enforcing || len(s.Interfaces) != 1 {
			t.Errorf("applied again: %s %q %+v; want enforcing on one", s.State, s.Problems, s.Interfaces)
		}
		for _, pin := range w.pins() {
			if strings.Contains(pin, "links/3000") {
				t.Errorf("%s is left", pin)
			}
		}
		p.expect("applied again", map[int]bool{1000: true, 2000: false})

		// Another interface with the number of the old one.
		w.inside.Exec("ip", "link", "add", "eth1", "index", "3000", "type", "veth", "peer", "name", "far1")
		if applied, err := w.tryApply(testSet(t, both), w.options()); err != nil || len(applied.Interfaces) != 2 {
			t.Fatalf("apply with a new eth1: %+v, %v", applied, err)
		}
		w.inside.Exec("ip", "link", "del", "eth1")
		w.inside.Exec("ip", "link", "add", "eth1", "index", "3000", "type", "veth", "peer", "name", "far1")
		if s := w.status(); s.State != Broken {
			t.Errorf("an interface was replaced by another with its number: %s %+v", s.State, s.Interfaces)
		}
		if _, err := w.tryApply(testSet(t, both), w.options()); err != nil {
			t.Fatalf("apply with a third eth1: %v", err)
		}
		if s := w.status(); s.State != Enforcing || !s.Interfaces[1].Hooks[0].Attached {
			t.Errorf("third eth1: %s %q", s.State, s.Problems)
		}
		w.off()
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("pins left: %q", pins)
		}
	})
}

// TestNarrowerPolicyLetsInterfacesGo: an interface that the next policy does
// not name is as if egate had never been there.
func TestNarrowerPolicyLetsInterfacesGo(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000)
		before := w.tc()
		w.apply("interfaces: [eth0, lo]\negress: {default: drop}\n")
		p.expect("guarded", map[int]bool{1000: false})
		w.apply("interfaces: [lo]\negress: {default: drop}\n")
		p.expect("let go", map[int]bool{1000: true})
		if after := w.tc(); after != before {
			t.Errorf("tc shows\n%s\nbefore\n%s", after, before)
		}
	})
}

// TestStatusNamesInterfacesThatCameLater: what the policy means and does not
// guard is said, until the next apply guards it.
func TestStatusNamesInterfacesThatCameLater(t *testing.T) {
	w := newWorld(t, HookAuto)
	policy := strings.Replace(onlyPorts(1000), "interfaces: [eth0]", `interfaces: [eth0, "eth*"]`, 1)
	w.apply(policy)
	if s := w.status(); len(s.Problems) != 0 || s.State != Enforcing {
		t.Fatalf("before: %v, %q", s.State, s.Problems)
	}
	w.inside.Exec("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "other0")
	if s := w.status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0], `interface eth9 matches "eth*" and is not guarded`) || s.State != Broken {
		t.Errorf("with a new interface: %v, %q", s.State, s.Problems)
	}
	w.apply(policy)
	if s := w.status(); len(s.Problems) != 0 || len(s.Interfaces) != 2 {
		t.Errorf("after another apply: %q, %d interfaces", s.Problems, len(s.Interfaces))
	}
}

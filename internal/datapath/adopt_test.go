package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// wildPolicy guards eth0 and all veths, and lets nothing out but UDP to a port.
func wildPolicy(port int) string {
	return strings.Replace(onlyPorts(port), "[eth0]", `[eth0, "veth*"]`, 1)
}

// applyWild applies it; that no veth is there yet is a warning.
func (w *world) applyWild(port int) {
	w.t.Helper()
	if _, err := w.tryApply(testSet(w.t, wildPolicy(port)), w.options()); err != nil {
		w.t.Fatalf("apply: %v", err)
	}
}

// addVeth makes an interface inside whose other end is inside too, under a name
// that no pattern of these tests means.
func (w *world) addVeth(name string, index int) {
	w.t.Helper()
	args := []string{"link", "add", name}
	if index > 0 {
		args = append(args, "index", fmt.Sprint(index))
	}
	w.inside.Exec("ip", append(args, "type", "veth", "peer", "name", "p-"+name)...)
}

func (w *world) tryAdopt() (names []string, err error) {
	var adopted []Adopted
	w.inside.Run(func() { adopted, err = Adopt(w.gate) })
	for _, a := range adopted {
		names = append(names, a.Name)
	}
	return names, err
}

// adopts expects what Adopt names, and nothing refused.
func (w *world) adopts(want ...string) {
	w.t.Helper()
	adopted, err := w.tryAdopt()
	if err != nil {
		w.t.Fatalf("adopt: %v", err)
	}
	slices.Sort(adopted)
	if !slices.Equal(adopted, want) {
		w.t.Errorf("adopted %q, want %q", adopted, want)
	}
}

// interfaceNames are those that status lists.
func interfaceNames(s *Status) []string {
	var names []string
	for _, i := range s.Interfaces {
		names = append(names, i.Name)
	}
	return names
}

// sendOut sends a packet by an interface, past routing.
func (w *world) sendOut(name string, packets int) {
	w.t.Helper()
	link, err := w.inside.Handle().LinkByName(name)
	if err != nil {
		w.t.Fatal(err)
	}
	frame := append(make([]byte, 12), 0x88, 0xb5, 1, 2, 3, 4) // of a type for experiments
	copy(frame, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2})
	frame = append(frame, make([]byte, 60-len(frame))...)
	var fd int
	w.inside.Run(func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		w.t.Fatal(err)
	}
	defer unix.Close(fd)
	for range packets {
		err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // which is how a drop is told
			w.t.Fatalf("send by %s: %v", name, err)
		}
	}
}

// droppedOn is what status says was dropped on egress of an interface.
func droppedOn(t testing.TB, s *Status, name string) uint64 {
	t.Helper()
	for _, i := range s.Interfaces {
		if i.Name == name {
			return i.Hooks[0].Dropped.Packets
		}
	}
	t.Fatalf("%s is not among %q", name, interfaceNames(s))
	return 0
}

func (w *world) enforcing(when string) *Status {
	w.t.Helper()
	s := w.status()
	if s.State != Enforcing {
		w.t.Fatalf("%s: %s, %q", when, s.State, s.Problems)
	}
	return s
}

func TestAdoptGuardsInterfacesThatCome(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.applyWild(1000)
		w.adopts()
		w.addVeth("veth1", 0)
		w.inside.Exec("ip", "tuntap", "add", "other0", "mode", "tun")
		if s := w.status(); s.State != Broken || len(s.Problems) != 1 {
			t.Errorf("before: %s %q, want one problem", s.State, s.Problems)
		}
		w.adopts("veth1")
		w.adopts()
		s := w.enforcing("adopted")
		if got := interfaceNames(s); !slices.Equal(got, []string{"eth0", "veth1"}) {
			t.Errorf("status lists %q", got)
		}
		w.inside.Exec("ip", "link", "set", "veth1", "up")
		before := droppedOn(t, w.status(), "veth1")
		w.sendOut("veth1", 3)
		if got := droppedOn(t, w.status(), "veth1") - before; got != 3 {
			t.Errorf("%d packets dropped on the adopted interface, want 3", got)
		}
		p.expect("adopted", map[int]bool{1000: true, 2000: false})

		// The next policy, and a trial of one, know it from their own look.
		total := droppedOn(t, w.status(), "veth1")
		if _, err := w.tryApply(testSet(t, wildPolicy(2000)), w.options()); err != nil {
			t.Fatal(err)
		}
		s = w.enforcing("applied again")
		if got := droppedOn(t, s, "veth1"); got < total {
			t.Errorf("%d packets after the next apply, %d before", got, total)
		}
		w.adopts()
		w.off()
		if pins := w.pins(); len(pins) > 0 {
			t.Errorf("pins left: %q", pins)
		}
		if out := w.inside.Exec("tc", "qdisc", "show", "dev", "veth1"); strings.Contains(out, "clsact") {
			t.Errorf("off leaves on the adopted interface:\n%s", out)
		}
	})
}

// TestAdoptLetsGo: interfaces come and go more often than there are positions;
// what was counted stays.
func TestAdoptLetsGo(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		if _, err := w.tryApply(testSet(t, strings.Replace(onlyPorts(1000), "[eth0]", "[eth0, veth1]", 1)), w.options()); err != nil {
			t.Fatal(err)
		}
		var packets uint64
		for i := range spareForNames + 3 {
			w.addVeth("veth1", 77)
			w.adopts("veth1")
			w.inside.Exec("ip", "link", "set", "veth1", "up")
			w.inside.Exec("ip", "link", "set", "p-veth1", "up")
			w.sendOut("veth1", 2)
			got := droppedOn(t, w.enforcing("there"), "veth1")
			if got < packets+2 {
				t.Fatalf("round %d: %d packets, had %d and sent 2", i, got, packets)
			}
			packets = got
			w.inside.Exec("ip", "link", "del", "veth1")
			if s := w.status(); s.State != Broken {
				t.Errorf("round %d, gone: %s %q", i, s.State, s.Problems)
			}
			w.adopts()
			if s := w.enforcing("let go"); len(s.Interfaces) != 1 {
				t.Errorf("round %d: status lists %q", i, interfaceNames(s))
			}
			if pins := strings.Join(w.pins(), " "); strings.Contains(pins, "links/77-") {
				t.Errorf("round %d: pins %s", i, pins)
			}
			if hook == HookClsact && w.notedQdiscs() != 1 {
				t.Errorf("round %d: %d qdiscs are noted, want that of eth0", i, w.notedQdiscs())
			}
		}
		// It is the same interface to a policy that is applied later.
		w.addVeth("veth1", 77)
		if _, err := w.tryApply(testSet(t, strings.Replace(onlyPorts(1000), "[eth0]", "[eth0, veth1]", 1)), w.options()); err != nil {
			t.Fatal(err)
		}
		if got := droppedOn(t, w.enforcing("applied again"), "veth1"); got < packets {
			t.Errorf("%d packets, were %d", got, packets)
		}
		// What the policy knew from the beginning is let go too.
		w.inside.Exec("ip", "link", "del", "veth1")
		w.adopts()
		w.enforcing("a named interface is gone")
	})
}

// notedQdiscs counts the qdiscs that egate knows as its own.
func (w *world) notedQdiscs() (count int) {
	w.t.Helper()
	m, err := ebpf.LoadPinnedMap(w.bpffs+"/egate/"+qdiscsPin, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer m.Close()
	var key qdiscKey
	var one uint32
	entries := m.Iterate()
	for entries.Next(&key, &one) {
		count++
	}
	if err := entries.Err(); err != nil {
		w.t.Fatal(err)
	}
	return count
}

func TestAdoptRunsOutOfRoom(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.applyWild(1000)
	large := minIfaceEntries
	w.addVeth("veth1", large)
	w.addVeth("veth2", large-1)
	for range 2 {
		adopted, err := w.tryAdopt()
		wantError(t, "an ifindex without room", err, ErrInterface)
		if err != nil && !strings.Contains(err.Error(), "veth1") || len(adopted) > 1 {
			t.Errorf("adopted %q, error %v", adopted, err)
		}
	}
	if s := w.status(); !slices.Contains(interfaceNames(s), "veth2") || s.State != Broken {
		t.Errorf("%s: status lists %q", s.State, interfaceNames(s))
	}
	w.inside.Exec("ip", "link", "del", "veth1")
	w.adopts()
	w.enforcing("the one without room is gone")
}

// TestMatchesNowRefusesOneByOne: a type that can't be read does not keep the
// other interfaces out.
func TestMatchesNowRefusesOneByOne(t *testing.T) {
	device := func(name string, index int, encap string) netlink.Link {
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index, EncapType: encap}}
	}
	links := &linkTable{
		all:       []netlink.Link{device("veth1", 5, "ether"), device("gre1", 6, "gre"), device("wg0", 7, "none"), device("eth9", 8, "ether")},
		isDefault: map[int]bool{8: true},
	}
	found, refused, err := matchesNow([]string{"veth*", "gre?", "wg0", "v*", "default"}, links)
	if err != nil || len(refused) != 1 || !errors.Is(refused[0], ErrInterface) {
		t.Errorf("refused %v, error %v; want one that is refused", refused, err)
	}
	want := []guarded{{Name: "veth1", Index: 5}, {Name: "wg0", Index: 7, Link: 1}, {Name: "eth9", Index: 8}}
	if !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

// TestAdoptGivesPlacesAgainAtOnce: all places are taken, some by interfaces that
// are gone, and as many come.
func TestAdoptGivesPlacesAgainAtOnce(t *testing.T) {
	w := newWorld(t, HookAuto)
	names := make([]string, spareForNames+2)
	for i := range names {
		names[i] = fmt.Sprintf("veth%d", i)
	}
	text := strings.Replace(onlyPorts(1000), "[eth0]", "[eth0, "+strings.Join(names, ", ")+"]", 1)
	if _, err := w.tryApply(testSet(t, text), w.options()); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:spareForNames] {
		w.addVeth(name, 0)
	}
	w.adopts(names[:spareForNames]...)
	w.addVeth(names[spareForNames], 0)
	adopted, err := w.tryAdopt()
	wantError(t, "no place", err, ErrInterface)
	if len(adopted) > 0 {
		t.Errorf("adopted %q without a place", adopted)
	}
	w.addVeth(names[spareForNames+1], 0)
	w.inside.Exec("ip", "link", "del", names[0])
	w.inside.Exec("ip", "link", "del", names[1])
	w.adopts(names[spareForNames], names[spareForNames+1])
	if s := w.enforcing("places given again"); len(s.Interfaces) != spareForNames+1 {
		t.Errorf("status lists %q", interfaceNames(s))
	}
}

func TestAdoptFollowsDefaultRoutes(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		w.inside.Exec("ip", "route", "add", "default", "dev", "eth0")
		w.apply(strings.Replace(onlyPorts(1000), "eth0", "default", 1))
		w.addVeth("wan1", 0)
		w.adopts()
		w.inside.Exec("ip", "link", "set", "wan1", "up")
		w.inside.Exec("ip", "-6", "route", "add", "default", "dev", "wan1", "metric", "5")
		w.adopts("wan1")
		// It stays guarded without the route, until the next apply.
		w.inside.Exec("ip", "-6", "route", "del", "default", "dev", "wan1")
		w.adopts()
		if got := interfaceNames(w.enforcing("without its route")); !slices.Equal(got, []string{"eth0", "wan1"}) {
			t.Errorf("status lists %q", got)
		}
	})
}

func TestAdoptAttachesAgain(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		p := w.newProbe(1000, 2000)
		w.apply(onlyPorts(1000))
		if hook == HookTCX {
			if err := detachLink(w.bpffs + "/egate/g/links/" + fmt.Sprint(w.cable.Index) + "-egress"); err != nil {
				t.Fatal(err)
			}
		} else {
			w.inside.Exec("tc", "qdisc", "del", "dev", "eth0", "clsact")
		}
		p.expect("detached", map[int]bool{1000: true, 2000: true})
		w.adopts("eth0")
		p.expect("attached again", map[int]bool{1000: true, 2000: false})
		w.enforcing("attached again")
	})
}

// TestAdoptDuringATrial: both policies must know what comes, for either may be
// in force in the end.
func TestAdoptDuringATrial(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.applyWild(1000)
	o := w.options()
	o.Confirm = time.Second
	if _, err := w.tryApply(testSet(t, wildPolicy(2000)), o); err != nil {
		t.Fatal(err)
	}
	w.addVeth("veth1", 0)
	w.adopts("veth1")
	w.inside.Exec("ip", "link", "set", "veth1", "up")
	w.sendOut("veth1", 2)
	if got := droppedOn(t, w.status(), "veth1"); got < 2 {
		t.Errorf("%d packets on trial, want 2", got)
	}
	time.Sleep(1200 * time.Millisecond)
	before := droppedOn(t, w.status(), "veth1")
	w.sendOut("veth1", 2)
	s := w.status()
	if got := droppedOn(t, s, "veth1"); s.State != Reverted || got < before+2 {
		t.Errorf("%s: %d packets after the return, want %d", s.State, got, before+2)
	}
	w.adopts()
}

func TestAdoptRefuses(t *testing.T) {
	w := newWorld(t, HookAuto)
	_, err := Adopt("-")
	wantError(t, "a name that is none", err, ErrGateName)
	_, err = w.tryAdopt()
	wantError(t, "no gate", err, ErrNoGate)
	w.apply(onlyPorts(1000))
	w.outside.Run(func() { _, err = Adopt(w.gate) })
	wantError(t, "from another namespace", err, ErrNetns)
	w.pretendABI(99)
	_, err = w.tryAdopt()
	wantError(t, "state of another version", err, ErrABI)
}

// TestAdoptTakesNoLockForNothing: a writer at work does not hold it up.
func TestAdoptTakesNoLockForNothing(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.applyWild(1000)
	h, err := lockHost()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	w.adopts()
	if took := time.Since(started); took > testutil.Patience(500*time.Millisecond) {
		t.Errorf("with nothing to do it took %v", took)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptStopsAnywhere makes every step fail once; the next run goes on.
func TestAdoptStopsAnywhere(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		w.applyWild(1000)
		index := 100
		var packets uint64
		for _, failing := range []string{"enter", "attach", "let go"} {
			w.addVeth("veth1", index)
			setStep(t, func(name string) error {
				if name == failing && failing != "let go" {
					return errBoom
				}
				return nil
			})
			if failing != "let go" {
				_, err := w.tryAdopt()
				wantError(t, failing, err, errBoom)
				setStep(t, func(string) error { return nil })
			}
			w.adopts("veth1")
			w.inside.Exec("ip", "link", "set", "veth1", "up")
			w.inside.Exec("ip", "link", "set", "p-veth1", "up")
			w.sendOut("veth1", 2)
			got := droppedOn(t, w.enforcing(failing), "veth1")
			if got < packets+2 {
				t.Errorf("%s: %d packets, had %d and sent 2", failing, got, packets)
			}
			packets = got
			w.inside.Exec("ip", "link", "del", "veth1")
			if failing == "let go" {
				setStep(t, func(name string) error {
					if name == failing {
						return errBoom
					}
					return nil
				})
				_, err := w.tryAdopt()
				wantError(t, failing, err, errBoom)
				setStep(t, func(string) error { return nil })
			}
			w.adopts()
			w.enforcing("let go")
		}
		// All of it was counted once.
		w.addVeth("veth1", index)
		w.adopts("veth1")
		if got := droppedOn(t, w.enforcing("back"), "veth1"); got != packets {
			t.Errorf("%d packets in the end, want %d", got, packets)
		}
	})
}

// TestAdoptedPartsAreCountedOnce folds the same owner twice, as a writer does
// that follows a killed one.
func TestAdoptedPartsAreCountedOnce(t *testing.T) {
	testutil.RequireRoot(t)
	sums, err := ebpf.NewMap(sumsSpec())
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	o := owner{guarded: guarded{Name: "veth1", Index: 7}, position: 3}
	fold := func(part uint32) {
		o.part = part
		c := &counted{generation: 5, owners: []owner{o}}
		for d := range c.interfaces {
			c.interfaces[d] = []sum{{Packets: [4]uint64{10}}}
		}
		if err := c.foldInterface(o, sums, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		part uint32
		want uint64
	}{{nextPart(3, 0), 10}, {nextPart(3, 0), 10}, {nextPart(3, nextPart(3, 0)), 20}, {nextPart(4, 0), 30}, {0, 40}, {0, 40}} {
		fold(step.part)
		var total sum
		key := interfaceKey(0, o.guarded)
		if err := sums.Lookup(&key, &total); err != nil {
			t.Fatal(err)
		}
		if total.Packets[0] != step.want {
			t.Errorf("part %#x: %d packets, want %d", step.part, total.Packets[0], step.want)
		}
	}
	if nextPart(0, 0) == 0 || nextPart(2, 2<<16|0xffff) != 2<<16|1 {
		t.Errorf("parts %#x, %#x", nextPart(0, 0), nextPart(2, 2<<16|0xffff))
	}
}

// BenchmarkAdopt is a look at 200 interfaces with nothing to do.
func BenchmarkAdopt(b *testing.B) {
	w := newWorld(b, HookAuto)
	for i := range 100 {
		w.addVeth(fmt.Sprintf("veth%d", i), 0)
	}
	w.applyWild(1000)
	w.inside.Run(func() {
		for b.Loop() {
			if adopted, err := Adopt(w.gate); err != nil || len(adopted) > 0 {
				b.Fatal(adopted, err)
			}
		}
	})
}

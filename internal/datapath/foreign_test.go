package datapath

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
	"egate/internal/verdict"
)

// foreign is somebody else's program: it counts IPv4 packets and lets all go
// on to the next one.
type foreign struct {
	t     testing.TB
	prog  *ebpf.Program
	count *ebpf.Map
}

func newForeign(t testing.TB, name string) *foreign {
	t.Helper()
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R1, asm.R1, 16, asm.Word), // __sk_buff.protocol, network order
			asm.JNE.Imm(asm.R1, 8, "out"),             // ETH_P_IP: IPv6 sends packets of its own
			asm.StoreImm(asm.R10, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, count.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TCX_NEXT, TC_ACT_UNSPEC
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("load foreign program: %+v", err)
	}
	t.Cleanup(func() { prog.Close(); count.Close() })
	return &foreign{t, prog, count}
}

// seen is how many packets it has met since it was asked last.
func (f *foreign) seen() uint64 {
	f.t.Helper()
	var n uint64
	if err := f.count.Lookup(uint32(0), &n); err != nil {
		f.t.Fatal(err)
	}
	if err := f.count.Put(uint32(0), uint64(0)); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *foreign) attachTCX(w *world, anchor link.Anchor) {
	f.t.Helper()
	var l link.Link
	var err error
	w.inside.Run(func() {
		l, err = link.AttachTCX(link.TCXOptions{Interface: w.cable.Index, Program: f.prog, Attach: ebpf.AttachTCXEgress, Anchor: anchor})
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
}

func (f *foreign) attachClsact(w *world, priority uint16) {
	f.t.Helper()
	w.inside.Run(func() {
		err := netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: w.cable.Index, Parent: netlink.HANDLE_MIN_EGRESS,
				Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL,
			},
			Fd: f.prog.FD(), Name: "foreign", DirectAction: true,
		})
		if err != nil {
			f.t.Fatalf("add foreign filter: %v", err)
		}
	})
}

// egressNames lists the programs on egress in their order.
func (w *world) egressNames() []string {
	w.t.Helper()
	var names []string
	for _, p := range w.status().Interfaces[0].Hooks[verdict.Egress].Programs {
		names = append(names, p.Name)
	}
	return names
}

// TestForeignTCXPrograms: those that were there first stay behind egate, those
// that come later go where they ask to, and nobody changes places afterwards.
func TestForeignTCXPrograms(t *testing.T) {
	requireTCX(t)
	w := newWorld(t, HookTCX)
	p := w.newProbe(1000, 2000)
	early, front, late := newForeign(t, "early"), newForeign(t, "front"), newForeign(t, "late")
	early.attachTCX(w, link.Tail())
	w.apply(onlyPorts(1000))
	front.attachTCX(w, link.Head())
	late.attachTCX(w, link.Tail())
	order := []string{"front", "egate_egress", "early", "late"}
	if got := w.egressNames(); !slices.Equal(got, order) {
		t.Fatalf("programs on egress: %q, want %q", got, order)
	}
	p.expect("", map[int]bool{1000: true, 2000: false})
	if f, e, l := front.seen(), early.seen(), late.seen(); f != 2 || e != 1 || l != 1 {
		t.Errorf("foreign programs saw %d, %d, %d packets, want 2, 1, 1", f, e, l)
	}
	w.apply(onlyPorts(2000))
	if got := w.egressNames(); !slices.Equal(got, order) {
		t.Errorf("programs on egress after the second apply: %q, want %q", got, order)
	}
	p.expect("", map[int]bool{1000: false, 2000: true})
	if f, e, l := front.seen(), early.seen(), late.seen(); f != 2 || e != 1 || l != 1 {
		t.Errorf("after the second apply foreign programs saw %d, %d, %d packets, want 2, 1, 1", f, e, l)
	}
	w.off()
	p.expect("off", map[int]bool{1000: true, 2000: true})
	if f, e, l := front.seen(), early.seen(), late.seen(); f != 2 || e != 2 || l != 2 {
		t.Errorf("after off foreign programs saw %d, %d, %d packets, want 2, 2, 2", f, e, l)
	}
}

func TestPlaceLast(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		early := newForeign(t, "early")
		if hook == HookTCX {
			early.attachTCX(w, link.Tail())
		} else {
			w.inside.Exec("tc", "qdisc", "add", "dev", "eth0", "clsact")
			early.attachClsact(w, 7)
		}
		o := w.options()
		o.Place = PlaceLast
		if _, err := w.tryApply(testSet(t, onlyPorts(1000)), o); err != nil {
			t.Fatal(err)
		}
		if got, want := w.egressNames(), []string{"early", "egate_egress"}; !slices.Equal(got, want) {
			t.Errorf("programs on egress: %q, want %q", got, want)
		}
	})
}

// TestForeignFilters is the same for filters, of which one has the priority
// that egate likes best and another is not BPF at all. The qdisc is not ours.
func TestForeignFilters(t *testing.T) {
	w := newWorld(t, HookClsact)
	p := w.newProbe(1000, 2000)
	w.inside.Exec("tc", "qdisc", "add", "dev", "eth0", "clsact")
	same, late := newForeign(t, "same"), newForeign(t, "late")
	same.attachClsact(w, priorityFirst)
	w.inside.Exec("tc", "filter", "add", "dev", "eth0", "egress", "prio", "50", "protocol", "ip", "u32",
		"match", "ip", "dport", "9", "0xffff", "flowid", "1:1")
	before := w.tc()
	w.apply(onlyPorts(1000))
	late.attachClsact(w, 60)
	order := []string{"egate_egress", "same", "u32", "late"}
	if got := slices.Compact(w.egressNames()); !slices.Equal(got, order) {
		t.Fatalf("programs on egress: %q, want %q", got, order)
	}
	p.expect("", map[int]bool{1000: true, 2000: false})
	if s, l := same.seen(), late.seen(); s != 1 || l != 1 {
		t.Errorf("foreign filters saw %d, %d packets, want 1, 1", s, l)
	}
	w.apply(onlyPorts(2000))
	p.expect("", map[int]bool{1000: false, 2000: true})
	if s, l := same.seen(), late.seen(); s != 1 || l != 1 {
		t.Errorf("after the second apply foreign filters saw %d, %d packets, want 1, 1", s, l)
	}
	w.off()
	p.expect("off", map[int]bool{1000: true, 2000: true})
	if s, l := same.seen(), late.seen(); s != 2 || l != 2 {
		t.Errorf("after off foreign filters saw %d, %d packets, want 2, 2", s, l)
	}
	w.inside.Exec("tc", "filter", "del", "dev", "eth0", "egress", "prio", "60")
	if after := w.tc(); after != before {
		t.Errorf("qdiscs and filters before:\n%s\nafter:\n%s", before, after)
	}
}

// TestForeignFilterBeforeAll: what cannot stand beside egate's at the first
// priority stays first, and apply says so.
func TestForeignFilterBeforeAll(t *testing.T) {
	w := newWorld(t, HookClsact)
	w.inside.Exec("tc", "qdisc", "add", "dev", "eth0", "clsact")
	w.inside.Exec("tc", "filter", "add", "dev", "eth0", "egress", "prio", fmt.Sprint(priorityFirst), "protocol", "ip", "u32",
		"match", "ip", "dport", "9", "0xffff", "flowid", "1:1")
	applied, err := w.tryApply(testSet(t, onlyPorts(1000)), w.options())
	if err != nil {
		t.Fatal(err)
	}
	if len(applied.Warnings) != 1 {
		t.Errorf("warnings: %q, want one about the filter before egate", applied.Warnings)
	}
	w.newProbe(1000, 2000).expect("", map[int]bool{1000: true, 2000: false})
}

// TestForeignFilterKeepsOurQdisc: somebody uses the qdisc that egate made.
func TestForeignFilterKeepsOurQdisc(t *testing.T) {
	w := newWorld(t, HookClsact)
	w.apply(onlyPorts(1000))
	guest := newForeign(t, "guest")
	guest.attachClsact(w, 5)
	p := w.newProbe(1000)
	w.off()
	p.expect("off", map[int]bool{1000: true})
	if n := guest.seen(); n != 1 {
		t.Errorf("the foreign filter saw %d packets after off, want 1", n)
	}
}

func TestIngressQdiscIsRefused(t *testing.T) {
	w := newWorld(t, HookClsact)
	w.inside.Exec("tc", "qdisc", "add", "dev", "eth0", "ingress")
	before := w.tc()
	_, err := w.tryApply(testSet(t, onlyPorts(1000)), w.options())
	wantError(t, "apply", err, ErrInterface)
	if after := w.tc(); after != before {
		t.Errorf("qdiscs and filters before:\n%s\nafter:\n%s", before, after)
	}
	if pins := w.pins(); len(pins) > 0 {
		t.Errorf("pins left: %q", pins)
	}
}

// TestOrphanFilters: the pins of a gate were removed by hand. Its filters let
// everything pass; the next apply removes them.
func TestOrphanFilters(t *testing.T) {
	w := newWorld(t, HookClsact)
	w.apply(onlyPorts(1000))
	w.inside.Exec("rm", "-r", w.bpffs+"/egate")
	p := w.newProbe(1000, 2000)
	// The kernel empties the program array some time after its last pin is gone.
	for limit := time.Now().Add(testutil.Patience(3 * time.Second)); !p.passes(2000); {
		if time.Now().After(limit) {
			t.Fatal("without pins packets are still dropped")
		}
	}
	w.apply(onlyPorts(2000))
	p.expect("applied again", map[int]bool{1000: false, 2000: true})
	if got, want := w.egressNames(), []string{"egate_egress"}; !slices.Equal(got, want) {
		t.Errorf("programs on egress: %q, want %q", got, want)
	}
}

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"egate/internal/testutil"
)

// vlanTag is a tag that frames carry.
type vlanTag struct {
	proto string // as ip has it
	id    int
}

// Tags, the inner one first.
var (
	oneTag  = []vlanTag{{"802.1Q", 5}}
	twoTags = []vlanTag{{"802.1Q", 5}, {"802.1ad", 6}}
)

var etherTypes = map[string]uint16{"802.1Q": 0x8100, "802.1ad": 0x88a8}

// TestVLAN: a gate on an interface that carries VLAN tags reads past them, in
// the frame and beside it, and its answers carry them too.
func TestVLAN(t *testing.T) {
	t.Parallel()
	addrs := [][]netip.Prefix{
		testutil.Addrs("10.78.0.1/24", "fd78::1/64"),
		testutil.Addrs("10.78.0.2/24", "fd78::2/64"),
	}
	// Interfaces of the kernel's own. A frame that leaves one has its tag beside
	// it, without reorder_hdr in it. With two tags the outer one is beside.
	for _, c := range []struct {
		name   string
		tags   []vlanTag
		args   []string
		device bool // guard the VLAN interface, not the one below
	}{
		{"tag beside the frame", oneTag, nil, false},
		{"tag in the frame", oneTag, []string{"reorder_hdr", "off"}, false},
		{"two tags", twoTags, nil, false},
		{"interface of a tag", oneTag, nil, true},
		{"interface of two tags", twoTags, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			near, far := addVLANs(t, p.client, c.tags, c.args, addrs[0]), addVLANs(t, p.server, c.tags, c.args, addrs[1])
			l := lineOf(near, far)
			if !c.device {
				l.iface = p.client.Name
			}
			l.check(t)
		})
	}
	// Tags that programs put on and take off, on a kernel without such
	// interfaces too.
	for name, tags := range map[string][]vlanTag{"tag": oneTag, "two tags": twoTags} {
		t.Run(name+" of a program", func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			lineOf(p.client, p.server).check(t, func() {
				attachTagger(t, p.client, tags)
				attachTagger(t, p.server, tags)
			})
		})
	}
}

// addVLANs stacks VLAN interfaces on a link, for the outer tag first, and gives
// addresses to the last.
func addVLANs(t *testing.T, on testutil.Link, tags []vlanTag, args []string, addrs []netip.Prefix) testutil.Link {
	t.Helper()
	below := on.Name
	for i, tag := range slices.Backward(tags) {
		name := fmt.Sprintf("vlan%d", tag.id)
		r := on.Netns.Try("ip", append([]string{"link", "add", "link", below, "name", name, "type", "vlan",
			"proto", tag.proto, "id", strconv.Itoa(tag.id)}, args...)...)
		if r.Code != 0 && hasAny(r.Stderr, "Unknown device type", "not supported") {
			t.Skip("the kernel has no vlan interfaces")
		}
		if r.Code != 0 {
			t.Fatalf("make %s: %s", name, r.Stderr)
		}
		below = name
		if i > 0 {
			setUp(t, on.Netns, name)
		}
	}
	return setUp(t, on.Netns, below, addrs...)
}

// attachTagger makes a link carry tags: behind the hosts' stack and before any
// gate on the way out, behind all gates on the way in.
func attachTagger(t *testing.T, on testutil.Link, tags []vlanTag) {
	t.Helper()
	// The answer to a packet that came in tagged has its tags: __sk_buff.vlan_present.
	push := asm.Instructions{asm.LoadMem(asm.R1, asm.R6, 20, asm.Word), asm.JNE.Imm(asm.R1, 0, "next")}
	var pop asm.Instructions
	for _, tag := range tags {
		push = append(push,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, networkOrder(etherTypes[tag.proto])),
			asm.Mov.Imm(asm.R3, int32(tag.id)),
			asm.FnSkbVlanPush.Call(),
		)
		pop = append(pop, asm.Mov.Reg(asm.R1, asm.R6), asm.FnSkbVlanPop.Call())
	}
	for _, side := range []struct {
		body   asm.Instructions
		attach ebpf.AttachType
		anchor link.Anchor
	}{
		{push, ebpf.AttachTCXEgress, link.Head()},
		{pop, ebpf.AttachTCXIngress, link.Tail()},
	} {
		code := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
		code = append(code, side.body...)
		code = append(code, asm.Mov.Imm(asm.R0, -1).WithSymbol("next"), asm.Return()) // TCX_NEXT
		attachTCX(t, on, loadClassifier(t, "tagger", code), side.attach, side.anchor)
	}
}

// networkOrder is a number as a register has it that was loaded from the wire.
func networkOrder(n uint16) int32 {
	var wire [2]byte
	binary.BigEndian.PutUint16(wire[:], n)
	return int32(binary.NativeEndian.Uint16(wire[:]))
}

func loadClassifier(t *testing.T, name string, code asm.Instructions) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatalf("load %s: %+v", name, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// attachTCX attaches a program until the test ends, or skips the test before
// Linux 6.6.
func attachTCX(t *testing.T, on testutil.Link, p *ebpf.Program, attach ebpf.AttachType, anchor link.Anchor) {
	t.Helper()
	var l link.Link
	var err error
	on.Netns.Run(func() {
		l, err = link.AttachTCX(link.TCXOptions{Interface: on.Index, Program: p, Attach: attach, Anchor: anchor})
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("the kernel has no TCX")
	}
	if err != nil {
		t.Fatalf("attach to %s: %v", on.Name, err)
	}
	t.Cleanup(func() { l.Close() })
}

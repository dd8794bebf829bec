package e2e

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// TestGates: two gates on one interface know nothing of each other, and a
// program of somebody else's knows nothing of them.
func TestGates(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	serveSink(t, p.server.Netns, 8080)
	serveEcho(t, p.server.Netns, 7)
	e := newEgate(t, p.client.Netns)
	foreign := newCounter(t)
	foreign.attach(t, p.client)

	e.apply(policyFor("veth0", egress("allow",
		`name: no-web, action: reject, to: {ports: [tcp/80]}`,
		`name: no-dns, action: drop, to: {ports: [53]}`)), "--gate", "outer")
	e.apply(policyFor("veth0", egress("drop",
		`name: ping, action: allow, to: {icmp: [echo-request]}`,
		`name: echo, action: allow, to: {ports: [udp/7]}`,
		`name: dns, action: allow, to: {ports: [53]}`,
		`name: no-mail, action: reject, to: {ports: [tcp/25]}`,
		`name: web, action: allow, to: {ports: [tcp/80]}`),
		ingress("drop")), "--gate", "inner")

	try := func(probes ...attempt) {
		t.Helper()
		for _, a := range probes {
			for _, to := range p.serverAddr() {
				a.probe.check(t, p.client.Netns, to, a.want)
			}
		}
	}
	foreign.read(t)
	try(
		attempt{ping(1), passes},
		attempt{echo(7, 100), passes},
		attempt{echo(53, 100), silent}, // "outer" drops it
		attempt{connect(8080), silent}, // "inner" drops it
		attempt{connect(80), refused},  // "outer" rejects it, and its answer gets past "inner"
		attempt{connect(25), refused},  // "inner" rejects it
	)
	// Which gate stands first is a matter of the hook, so what the first one
	// stops the second one does not count. Both let the same through: 1 echo
	// request and 1 datagram of each family.
	if n := foreign.read(t); n != 4 {
		t.Errorf("the foreign program behind the gates has seen %d packets, want 4", n)
	}
	outer, inner := e.status("outer"), e.status("inner")
	for name, c := range map[string]struct {
		got  map[string]uint64
		want counts
	}{
		"outer": {countersOf(outer), counts{"egress no-web rejected": 2, "egress no-dns dropped": 2}},
		"inner": {countersOf(inner), counts{"egress ping allowed": 2, "egress echo allowed": 2, "egress no-mail rejected": 2, "ingress: reply": 4, "ingress: own-answer": 4}},
	} {
		for key, n := range c.want {
			if c.got[key] != n {
				t.Errorf("gate %s, %s: %d, want %d", name, key, c.got[key], n)
			}
		}
	}
	checkSums(t, outer)
	checkSums(t, inner)

	// One goes, the other stays.
	e.run("off", "--gate", "outer")
	try(attempt{connect(53), refused}, attempt{connect(8080), silent}) // the server has nothing at port 53
	e.run("off", "--gate", "inner")
	foreign.read(t)
	try(attempt{ping(2), passes}, attempt{connect(8080), passes})
	if n := foreign.read(t); n < 4 {
		t.Errorf("the foreign program has seen %d packets after off, want at least 2 echo requests of each family", n)
	}
}

// counter is somebody else's program on egress. It counts packets and lets all
// go on.
type counter struct {
	program *ebpf.Program
	packets *ebpf.Map
}

func newCounter(t *testing.T) counter {
	t.Helper()
	packets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	return counter{packets: packets, program: loadClassifier(t, "foreign", asm.Instructions{
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, packets.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TCX_NEXT, TC_ACT_UNSPEC
		asm.Return(),
	})}
}

// attach puts it behind what comes later, with TCX, or where the kernel has
// none as a filter of a low priority.
func (c counter) attach(t *testing.T, on testutil.Link) {
	t.Helper()
	if testutil.KernelAtLeast(t, 6, 6) {
		attachTCX(t, on, c.program, ebpf.AttachTCXEgress, link.Tail())
		return
	}
	on.Netns.Exec("tc", "qdisc", "add", "dev", on.Name, "clsact")
	on.Netns.Run(func() {
		err := netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: on.Index, Parent: netlink.HANDLE_MIN_EGRESS,
				Handle: 1, Priority: 50000, Protocol: unix.ETH_P_ALL,
			},
			Fd: c.program.FD(), Name: "foreign", DirectAction: true,
		})
		if err != nil {
			t.Fatalf("add filter: %v", err)
		}
	})
}

// read is how many packets it has seen since it was asked last.
func (c counter) read(t *testing.T) (n uint64) {
	t.Helper()
	if err := c.packets.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	if err := c.packets.Put(uint32(0), uint64(0)); err != nil {
		t.Fatal(err)
	}
	return n
}

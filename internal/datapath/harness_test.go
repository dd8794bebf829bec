package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"egate/internal/compile"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
)

// testBPFFS mounts a bpffs for this test alone and makes egate use it.
func testBPFFS(t testing.TB) string {
	t.Helper()
	testutil.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	t.Setenv(EnvBPFFS, dir)
	return dir
}

// testSet compiles policy text; version and name are put in front.
func testSet(t testing.TB, text string) *tables.Set {
	t.Helper()
	text = "version: 1\nname: test\n" + text
	p, problems := policy.Parse("test.yaml", []byte(text), policy.OpenFile)
	if p == nil {
		t.Fatalf("parse: %v\n%s", problems, text)
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// withHooks runs a test with each hook that the kernel has.
func withHooks(t *testing.T, f func(t *testing.T, hook Hook)) {
	testutil.RequireRoot(t)
	for _, hook := range []Hook{HookTCX, HookClsact} {
		t.Run(hook.String(), func(t *testing.T) {
			if hook == HookTCX {
				requireTCX(t)
			}
			f(t, hook)
		})
	}
}

func requireTCX(t testing.TB) {
	t.Helper()
	testutil.RequireRoot(t)
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("needs TCX (Linux 6.6)")
	}
	if err != nil {
		t.Fatal(err)
	}
}

const (
	insideAddr  = "10.9.0.1"
	outsideAddr = "10.9.0.2"
)

// world is a guarded namespace and one outside of it, on a cable. No packet
// but a test's own runs on the cable. The bpffs is the test's own.
type world struct {
	t               testing.TB
	bpffs           string
	inside, outside *testutil.Netns
	cable           testutil.Link // its inner end, eth0
	hook            Hook
	gate            string
}

func newWorld(t testing.TB, hook Hook) *world {
	t.Helper()
	w := &world{t: t, bpffs: testBPFFS(t), hook: hook, gate: "g"}
	w.inside, w.outside = testutil.NewNetns(t), testutil.NewNetns(t)
	a, b := testutil.VethPair(t,
		testutil.Port{Netns: w.inside, Name: "eth0", Addrs: testutil.Addrs(insideAddr+"/24", "fd09::1/64")},
		testutil.Port{Netns: w.outside, Name: "eth0", Addrs: testutil.Addrs(outsideAddr+"/24", "fd09::2/64")})
	testutil.KnowEachOther(t, a, b)
	w.cable = a
	return w
}

func (w *world) options() ApplyOptions { return ApplyOptions{Gate: w.gate, Hook: w.hook} }

// apply applies policy text inside and must succeed.
func (w *world) apply(text string) *Applied {
	w.t.Helper()
	applied, err := w.tryApply(testSet(w.t, text), w.options())
	if err != nil {
		w.t.Fatalf("apply: %v", err)
	}
	if len(applied.Warnings) > 0 {
		w.t.Fatalf("apply warns: %q", applied.Warnings)
	}
	return applied
}

func (w *world) tryApply(set *tables.Set, o ApplyOptions) (applied *Applied, err error) {
	w.t.Helper()
	w.inside.Run(func() { applied, err = Apply(set, o) })
	return applied, err
}

func (w *world) off() {
	w.t.Helper()
	w.inside.Run(func() {
		if err := Off(w.gate); err != nil {
			w.t.Fatalf("off: %v", err)
		}
	})
}

func (w *world) status() *Status {
	w.t.Helper()
	s, err := ReadStatus(w.gate)
	if err != nil {
		w.t.Fatalf("status: %v", err)
	}
	return s
}

// onlyPorts is a policy for eth0 that lets nothing out but UDP to these ports.
func onlyPorts(ports ...int) string {
	var rules strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&rules, "    - {name: port-%d, action: allow, to: {ports: [udp/%d]}}\n", p, p)
	}
	if len(ports) == 0 {
		return "interfaces: [eth0]\negress: {default: drop}\n"
	}
	return "interfaces: [eth0]\negress:\n  default: drop\n  rules:\n" + rules.String()
}

// probe sends UDP from the inside and tells what arrives outside.
type probe struct {
	w        *world
	from     *net.UDPConn
	to       map[int]*net.UDPConn
	sequence int
}

func (w *world) newProbe(ports ...int) *probe {
	w.t.Helper()
	p := &probe{w: w, to: map[int]*net.UDPConn{}}
	var err error
	w.inside.Run(func() { p.from, err = net.ListenUDP("udp4", nil) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.from.Close() })
	for _, port := range ports {
		var c *net.UDPConn
		w.outside.Run(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
		p.to[port] = c
	}
	return p
}

// send sends one packet of 100 bytes payload; a drop at the hook is no error.
func (p *probe) send(port int) []byte {
	p.w.t.Helper()
	p.sequence++
	payload := fmt.Appendf(nil, "%-100d", p.sequence)
	to := netip.AddrPortFrom(netip.MustParseAddr(outsideAddr), uint16(port))
	if _, err := p.from.WriteToUDPAddrPort(payload, to); err != nil && !errors.Is(err, unix.EPERM) {
		p.w.t.Fatalf("send: %v", err)
	}
	return payload
}

// sentBytes is what a packet of send counts on Ethernet: 14 + 20 + 8 + 100.
const sentBytes = 142

// passes tells whether a packet to the port arrives.
func (p *probe) passes(port int) bool {
	p.w.t.Helper()
	payload := p.send(port)
	c := p.to[port]
	var buf [200]byte
	for {
		// veth delivers within the send, so what has not come now won't come.
		if err := c.SetReadDeadline(time.Now().Add(testutil.Patience(30 * time.Millisecond))); err != nil {
			p.w.t.Fatal(err)
		}
		n, err := c.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			p.w.t.Fatal(err)
		}
		if string(buf[:n]) == string(payload) {
			return true
		}
	}
}

// expect checks which ports pass.
func (p *probe) expect(when string, want map[int]bool) {
	p.w.t.Helper()
	for port, pass := range want {
		if got := p.passes(port); got != pass {
			p.w.t.Errorf("%s: UDP to port %d passes: %v, want %v", when, port, got, pass)
		}
	}
}

// objects are ids of all that a gate has in the kernel.
type objects struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
}

// objectsOf finds them through the gate's pins.
func (w *world) objectsOf() (o objects) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.bpffs, "egate"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			defer p.Close()
			info, err := p.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			used, _ := info.MapIDs()
			o.programs, o.maps = append(o.programs, id), append(o.maps, used...)
		} else if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			defer m.Close()
			info, err := m.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			o.maps = append(o.maps, id)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// expectGone waits for the kernel to free all of them.
func (o objects) expectGone(t testing.TB) {
	t.Helper()
	if len(o.programs) == 0 || len(o.maps) == 0 {
		t.Fatal("the gate had no programs or no maps: the test looks in the wrong place")
	}
	limit := time.Now().Add(testutil.Patience(3 * time.Second))
	for {
		// Not by opening them: a program array whose last user closes it twice in a
		// row, before the kernel has emptied it, keeps a reference for ever.
		var left []string
		for _, id := range o.programs {
			if next, err := ebpf.ProgramGetNextID(id - 1); err == nil && next == id {
				left = append(left, fmt.Sprintf("program %d", id))
			}
		}
		for _, id := range o.maps {
			if next, err := ebpf.MapGetNextID(id - 1); err == nil && next == id {
				left = append(left, fmt.Sprintf("map %d", id))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("still in the kernel: %q", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pins lists what is pinned, by path below the bpffs.
func (w *world) pins() []string {
	w.t.Helper()
	var pins []string
	err := filepath.WalkDir(w.bpffs, func(path string, e fs.DirEntry, err error) error {
		// A new bpffs has maps.debug and progs.debug of the kernel's own.
		if err == nil && path != w.bpffs && !strings.Contains(e.Name(), ".") {
			pins = append(pins, strings.TrimPrefix(path, w.bpffs+"/"))
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(pins)
	return pins
}

// tc is what `tc` shows of the inside; filters without program ids, which the
// kernel counts up.
func (w *world) tc() string {
	w.t.Helper()
	out := w.inside.Exec("tc", "qdisc", "show", "dev", "eth0")
	for _, dir := range []string{"egress", "ingress"} {
		out += w.inside.Try("tc", "filter", "show", "dev", "eth0", dir).Stdout
	}
	return out
}

// wantError checks the sentinel of an error.
func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that is %q", what, err, want)
	}
}

// far is the outer end of the cable.
func (w *world) far() testutil.Link {
	w.t.Helper()
	link, err := w.outside.Handle().LinkByName("eth0")
	if err != nil {
		w.t.Fatal(err)
	}
	return testutil.Link{
		Netns: w.outside, Name: "eth0", Index: link.Attrs().Index, MAC: link.Attrs().HardwareAddr,
		Addrs: testutil.Addrs(outsideAddr+"/24", "fd09::2/64"),
	}
}

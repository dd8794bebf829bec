package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/compile"
	"egate/internal/datapath"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
)

// switched is the last line of switchPolicies.
const switched = "switched"

// switchPolicies is a process of its own: it puts two policies in force in
// turn, as `egate apply` would. Arguments: how often, the two files.
func switchPolicies(args []string) error {
	times, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var sets []*tables.Set
	for _, path := range args[1:] {
		p, problems := policy.Load(path)
		if p == nil {
			return fmt.Errorf("%v", problems)
		}
		set, _, err := compile.Compile(p)
		if err != nil {
			return err
		}
		sets = append(sets, set)
	}
	defer fmt.Println(switched)
	for i := range times {
		applied, err := datapath.Apply(sets[i%len(sets)], datapath.ApplyOptions{Gate: "host"})
		if err != nil {
			return fmt.Errorf("apply %d: %w", i, err)
		}
		if len(applied.Warnings) > 0 {
			return fmt.Errorf("apply %d: %v", i, applied.Warnings)
		}
	}
	return nil
}

// Ports of TestSwitchUnderTraffic, by what the two policies say.
const (
	bothAllow = 1000
	bothDrop  = 2000
	onlyA     = 3000
	onlyB     = 4000
)

// TestSwitchUnderTraffic: two policies take turns while two senders send as
// fast as a pause of 100 µs lets them. A packet is judged by the one policy or
// by the other, never by none and never by half of one.
func TestSwitchUnderTraffic(t *testing.T) {
	t.Parallel()
	switches := 1000
	if _, vm := testutil.InVM(); vm {
		switches = 20
	}
	p := newPair(t)
	e := newEgate(t, p.client.Netns)
	a := e.file(policyFor("veth0", egress("drop",
		`name: good, action: allow, to: {ports: [1000]}`,
		`name: bad, action: drop, to: {ports: [2000]}`,
		`name: a, action: allow, to: {ports: [3000]}`)))
	b := e.file(policyFor("veth0", egress("allow",
		`name: a, action: drop, to: {ports: [3000]}`,
		`name: bad, action: drop, to: {ports: [2000]}`,
		`name: good, action: allow, to: {ports: [1000]}`)))
	e.run("apply", a)

	receivers := map[uint16]*receiver{}
	for _, port := range []uint16{bothAllow, bothDrop, onlyA, onlyB} {
		receivers[port] = newReceiver(t, p.server.Netns, port)
	}
	stop := make(chan struct{})
	var senders sync.WaitGroup
	sent := make([]map[uint16]uint64, 2)
	for i, ports := range [][]uint16{{bothAllow, onlyA}, {bothDrop, onlyB}} {
		to := p.serverAddr()[i] // one sender for each family
		senders.Go(func() { sent[i] = send(t, p.client.Netns, to, ports, stop) })
	}
	begin := time.Now()
	// The first one of the process is b, so that each changes something.
	switcher := e.netns.Start("env", e.commandAs(mainSwitch, strconv.Itoa(switches), b, a)...)
	eventually(t, 5*time.Minute, "the end of the switches", func() bool { return strings.Contains(switcher.Output(), switched) })
	close(stop)
	senders.Wait()
	if out := switcher.Output(); out != switched+"\n" {
		t.Fatalf("switching failed: %s", out)
	}
	t.Logf("%d switches in %v, %d packets sent", switches, time.Since(begin).Round(time.Millisecond),
		sent[0][bothAllow]+sent[0][onlyA]+sent[1][bothDrop]+sent[1][onlyB])

	good, bad, forA, forB := sent[0][bothAllow], sent[1][bothDrop], sent[0][onlyA], sent[1][onlyB]
	if missing := receivers[bothAllow].missing(t, good); missing != 0 {
		t.Errorf("%d of %d packets that both policies allow are lost", missing, good)
	}
	if n := bad - receivers[bothDrop].missing(t, bad); n != 0 {
		t.Errorf("%d of %d packets that both policies forbid arrived", n, bad)
	}
	arrivedA := forA - receivers[onlyA].missing(t, forA)
	arrivedB := forB - receivers[onlyB].missing(t, forB)
	if arrivedA == 0 || arrivedA == forA || arrivedB == 0 || arrivedB == forB {
		t.Errorf("of packets that only one policy allows %d of %d and %d of %d arrived: was there a switch at all?",
			arrivedA, forA, arrivedB, forB)
	}

	// Counters of rules and of the default go on from policy to policy. Every
	// packet sent is counted once, for the one that judged it.
	s := e.status("host")
	checkCounters(t, s, counts{
		"egress good allowed":    good,
		"egress bad dropped":     bad,
		"egress a allowed":       arrivedA,
		"egress a dropped":       forA - arrivedA,
		"egress default allowed": arrivedB,
		"egress default dropped": forB - arrivedB,
		"egress: rule":           good + bad + forA,
		"egress: default":        forB,
	})
	if s.Generation != uint32(switches+1) {
		t.Errorf("generation %d after %d applies", s.Generation, switches+1)
	}
}

// send sends numbered datagrams to the ports in turn until stop is closed, and
// tells how many to each.
func send(t *testing.T, from *testutil.Netns, to netip.Addr, ports []uint16, stop <-chan struct{}) map[uint16]uint64 {
	sent := map[uint16]uint64{}
	var c *net.UDPConn
	var err error
	from.Run(func() { c, err = net.ListenUDP("udp", nil) })
	if err != nil {
		t.Error(err)
		return sent
	}
	defer c.Close()
	message := make([]byte, 64)
	for {
		for _, port := range ports {
			binary.BigEndian.PutUint64(message, sent[port])
			// A packet that TC drops is EPERM or ENOBUFS here on some kernels, and
			// no error on others: what counts is what arrives.
			if _, err := c.WriteToUDPAddrPort(message, netip.AddrPortFrom(to, port)); err != nil &&
				!errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOBUFS) {
				t.Error(err)
				return sent
			}
			sent[port]++
		}
		select {
		case <-stop:
			return sent
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// receiver notes which numbers of send have arrived at a port.
type receiver struct {
	conn    *net.UDPConn
	mu      sync.Mutex
	arrived map[uint64]int
	done    chan struct{}
}

func newReceiver(t *testing.T, in *testutil.Netns, port uint16) *receiver {
	t.Helper()
	r := &receiver{conn: listenUDP(t, in, port), arrived: map[uint64]int{}, done: make(chan struct{})}
	raw, err := r.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	if err != nil || set != nil {
		t.Fatalf("enlarge receive buffer: %v %v", err, set)
	}
	go func() {
		defer close(r.done)
		buf := make([]byte, 2048)
		for {
			n, err := r.conn.Read(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err == nil && n == 64 {
				r.mu.Lock()
				r.arrived[binary.BigEndian.Uint64(buf)]++
				r.mu.Unlock()
			}
		}
	}()
	return r
}

// missing ends the receiver and tells how many of the first sent numbers have
// not arrived. One that arrived twice fails the test.
func (r *receiver) missing(t *testing.T, sent uint64) uint64 {
	t.Helper()
	// All that was sent is in the socket's queue by now: a veth pair has none.
	if err := r.conn.SetReadDeadline(time.Now().Add(testutil.Patience(200 * time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	<-r.done
	var missing uint64
	for n := range sent {
		switch r.arrived[n] {
		case 0:
			missing++
		case 1:
		default:
			t.Errorf("number %d arrived %d times", n, r.arrived[n])
		}
	}
	if uint64(len(r.arrived)) != sent-missing {
		t.Errorf("%d different numbers arrived, %d of them were sent", len(r.arrived), sent-missing)
	}
	return missing
}

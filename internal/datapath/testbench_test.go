package datapath

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"egate/internal/domain"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// What TC programs return, from linux/pkt_cls.h.
const (
	actUnspec   = 0xffffffff
	actShot     = 2
	actRedirect = 7
)

// testBench is a policy program with maps of its own, run by
// BPF_PROG_TEST_RUN, attached to nothing. Its one guarded interface is that of
// the test runs: loopback.
type testBench struct {
	set        *tables.Set
	generation uint32
	ifindex    int
	loaded     *loaded
	state      state
	events     *ringbuf.Reader
	record     ringbuf.Record
	event      abiEgateEvent
	out        []byte
}

// benchKey is the key of a testBench's names.
var benchKey = domain.Key{0x0706050403020100, 0x0f0e0d0c0b0a0908}

// skb is the part of struct __sk_buff that test runs take and give.
type skb struct {
	_       [10]uint32
	Ifindex uint32
	_       uint32
	CB      [5]uint32
	_       [31]uint32
}

func newTestBench(t testing.TB, set *tables.Set) *testBench {
	t.Helper()
	return newTestBenchOn(t, set, 1)
}

// newTestBenchOn guards another interface than that of the test runs, if
// ifindex is not 1: the program then lets everything pass unseen.
func newTestBenchOn(t testing.TB, set *tables.Set, ifindex int) *testBench {
	t.Helper()
	specs, err := stateSpecs()
	if err != nil {
		t.Fatal(err)
	}
	b := &testBench{set: set, state: state{}, out: make([]byte, 8192)}
	needed := programStateMaps
	if set.DNS.InUse {
		needed = slices.Concat(programStateMaps, nameStateMaps)
	}
	for _, name := range needed {
		if b.state[name], err = ebpf.NewMap(specs[name]); err != nil {
			t.Fatalf("make %s: %v", name, err)
		}
	}
	if set.DNS.InUse {
		if err := b.state[nameKeyMap].Put(uint32(0), benchKey); err != nil {
			t.Fatal(err)
		}
	}
	b.generation, b.ifindex = 1, ifindex
	if b.loaded, err = b.load(set); err != nil {
		t.Fatalf("load: %+v", err)
	}
	if b.events, err = ringbuf.NewReader(b.state[eventsMap]); err != nil {
		t.Fatal(err)
	}
	return b
}

// load loads a policy on the bench's state.
func (b *testBench) load(set *tables.Set) (*loaded, error) {
	b.set = set
	p := &plan{
		set:        set,
		interfaces: []guarded{{Name: "lo", Index: b.ifindex}},
		meta:       &meta{Generation: b.generation},
		secret:     0x0123456789abcdef,
		state:      b.state,
		servers:    set.DNS.Servers,
	}
	return p.load()
}

func (b *testBench) Close() {
	b.events.Close()
	b.loaded.policyMaps.Close()
	b.loaded.policyPrograms.Close()
	b.state.close()
}

// Run judges a frame and checks that what the program returned is one of the
// verdicts; which one is the right one, its event tells.
func (b *testBench) Run(t testing.TB, frame []byte, dir verdict.Direction) (returned uint32, out []byte) {
	t.Helper()
	ctx := skb{Ifindex: 1}
	ctx.CB[4] = uint32(dir)
	opts := ebpf.RunOptions{Data: frame, DataOut: b.out, Context: &ctx}
	returned, err := b.loaded.EgatePolicy.Run(&opts)
	if err != nil {
		t.Fatalf("run program on %x: %v", frame, err)
	}
	if returned != actUnspec && returned != actShot && returned != actRedirect {
		t.Fatalf("program returned %d for %x", returned, frame)
	}
	return returned, opts.DataOut
}

// NextEvent gives the next decision; it is valid until the one after.
func (b *testBench) NextEvent(t testing.TB) *abiEgateEvent {
	t.Helper()
	b.events.SetDeadline(time.Now().Add(5 * time.Second))
	if err := b.events.ReadInto(&b.record); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the program reported no event for a packet")
		}
		t.Fatal(err)
	}
	if _, err := binary.Decode(b.record.RawSample, binary.LittleEndian, &b.event); err != nil {
		t.Fatalf("event of %d bytes: %v", len(b.record.RawSample), err)
	}
	return &b.event
}

// RuleCounter is a rule's, or behind the last rule the default's, over all CPUs.
func (b *testBench) RuleCounter(t testing.TB, dir verdict.Direction, rule int) (sum abiEgateRuleCounter) {
	t.Helper()
	position := uint32(rule)
	if dir == verdict.Ingress {
		position += uint32(len(b.set.Chains[verdict.Egress].Rules) + 1)
	}
	var perCPU []abiEgateRuleCounter
	if err := b.loaded.RuleCounters.Lookup(position, &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range perCPU {
		for a := range c.Packets {
			sum.Packets[a] += c.Packets[a]
			sum.Bytes[a] += c.Bytes[a]
		}
	}
	return sum
}

// Totals are a direction's, over all CPUs.
func (b *testBench) Totals(t testing.TB, dir verdict.Direction) (sum abiEgateTotals) {
	t.Helper()
	var perCPU []abiEgateTotals
	if err := b.state[totalsMap].Lookup(uint32(dir), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range perCPU {
		for i := range c.Proto {
			sum.Proto[i].PassedPackets += c.Proto[i].PassedPackets
			sum.Proto[i].PassedBytes += c.Proto[i].PassedBytes
			sum.Proto[i].BlockedPackets += c.Proto[i].BlockedPackets
			sum.Proto[i].BlockedBytes += c.Proto[i].BlockedBytes
		}
		for i := range c.Reason {
			sum.Reason[i].Packets += c.Reason[i].Packets
			sum.Reason[i].Bytes += c.Reason[i].Bytes
		}
		sum.EventsLost += c.EventsLost
		sum.EventsSent += c.EventsSent
		sum.EventsSuppressed += c.EventsSuppressed
		sum.AnswersSent += c.AnswersSent
		sum.AnswersFailed += c.AnswersFailed
		sum.FlowsFailed += c.FlowsFailed
	}
	return sum
}

// price is what one run costs, in nanoseconds, over many of the same frame.
func (b *testBench) price(t testing.TB, frame []byte, ctx *skb) float64 {
	t.Helper()
	const runs = 100_000
	opts := ebpf.RunOptions{Data: frame, DataOut: b.out, Context: ctx, Repeat: runs}
	start := time.Now()
	if _, err := b.loaded.EgatePolicy.Run(&opts); err != nil {
		t.Fatal(err)
	}
	return float64(time.Since(start).Nanoseconds()) / runs
}

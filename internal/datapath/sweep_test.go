package datapath

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// exampleNames guards eth0 and opens what names lead to.
const exampleNames = `interfaces: [eth0]
dns: {servers: [` + outsideAddr + `]}
egress:
  default: drop
  rules:
    - {name: listed, action: allow, to: {domains: ["*.example"]}}
`

// tables opens the gate's maps of names.
func (w *world) tables() *nameTables {
	w.t.Helper()
	t, err := openNameTables(w.gate)
	if err != nil || t == nil {
		w.t.Fatalf("open maps of names: %v, %v", t, err)
	}
	w.t.Cleanup(t.close)
	return t
}

func put[K, V any](t testing.TB, m *ebpf.Map, key K, value V) {
	t.Helper()
	if err := m.Put(&key, &value); err != nil {
		t.Fatalf("put into %v: %v", m, err)
	}
}

func isThere[K, V any](t testing.TB, m *ebpf.Map, key K, _ V) bool {
	t.Helper()
	var value V
	err := m.Lookup(&key, &value)
	if err != nil && !isNoKey(err) {
		t.Fatalf("look into %v: %v", m, err)
	}
	return err == nil
}

func addr(text string) abiEgateAddr { return addrKey(netip.MustParseAddr(text)) }

func TestSweepRemovesWhatHasExpired(t *testing.T) {
	w := newWorld(t, HookAuto)
	s := NewSweeper(w.gate)
	if _, err := s.Sweep(); err == nil {
		t.Error("no gate: no error")
	}
	w.apply(onlyPorts(1000))
	if swept, err := s.Sweep(); err != nil || swept != (Swept{}) {
		t.Errorf("a gate without names: %+v, %v", swept, err)
	}
	w.apply(exampleNames)
	tables := w.tables()
	const now = uint64(10 * 24 * time.Hour)
	ago := func(d time.Duration) uint64 { return now - uint64(d) }
	slot := func(name, expires uint64) abiEgateNameSlot { return abiEgateNameSlot{Name: name, ExpiresNs: expires} }
	learned := func(a string, slots ...abiEgateNameSlot) {
		l := abiEgateLearned{Addr: addr(a)}
		copy(l.Slots[:], slots)
		put(t, tables.state[learnedMap], addr(a), l)
	}
	learned("192.0.2.1", slot(1, ago(1)))
	learned("192.0.2.2", slot(1, ago(1)), slot(2, now+1))
	learned("2001:db8::1", slot(3, now), slot(4, ago(time.Hour)))

	flow := func(port uint16, proto uint8) abiEgateFlowKey {
		return abiEgateFlowKey{Local: addr(insideAddr), Remote: addr("192.0.2.9"), LocalPort: port, RemotePort: 443, Proto: proto}
	}
	bind := func(k abiEgateFlowKey, name, seen uint64) {
		put(t, tables.state[bindingsMap], k, abiEgateBinding{Slot: slot(name, 0), SeenNs: seen})
	}
	bind(flow(1, 6), 5, ago(flowTCPLife-1))
	bind(flow(2, 6), 6, ago(flowTCPLife+1))
	bind(flow(3, 17), 7, ago(flowOtherLife-1))
	bind(flow(4, 17), 8, ago(flowOtherLife+1))
	bind(flow(5, 17), 8, now+uint64(time.Second)) // written meanwhile

	name := func(hash, seen uint64) { put(t, tables.state[namesMap], hash, abiEgateName{SeenNs: seen, Length: 1}) }
	for hash := range uint64(9) {
		name(hash+1, ago(2*time.Hour)) // 1, 2: an address; 5, 7, 8: a connection; 3, 4, 6, 9: nothing
	}
	name(10, ago(30*time.Minute))

	question := func(id uint16, asked uint64) {
		put(t, tables.state[questionsMap], abiEgateQuestionKey{Id: id}, abiEgateQuestion{AskedNs: asked})
	}
	question(1, ago(29*time.Second))
	question(2, ago(31*time.Second))

	swept, err := s.sweep(now)
	want := Swept{Addresses: 2, Names: 4, Questions: 1, Bindings: 2}
	if err != nil || swept != want {
		t.Errorf("swept %+v, %v; want %+v", swept, err, want)
	}
	if !isThere(t, tables.state[learnedMap], addr("192.0.2.2"), abiEgateLearned{}) || isThere(t, tables.state[learnedMap], addr("192.0.2.1"), abiEgateLearned{}) {
		t.Error("the wrong address is gone")
	}
	for hash, there := range map[uint64]bool{1: true, 2: true, 3: false, 4: false, 5: true, 6: false, 7: true, 8: true, 9: false, 10: true} {
		if isThere(t, tables.state[namesMap], hash, abiEgateName{}) != there {
			t.Errorf("name %d is there: %v", hash, !there)
		}
	}
	if swept, err = s.sweep(now); err != nil || swept != (Swept{}) {
		t.Errorf("again: %+v, %v", swept, err)
	}
	counts := map[uint32]uint64{sweptAddresses: 2, sweptNames: 4, sweptQuestions: 1, sweptBindings: 2, sweptStreams: 0}
	for what, count := range counts {
		var n uint64
		if err := tables.state[sweptMap].Lookup(what, &n); err != nil || n != count {
			t.Errorf("counted as swept %d: %d, %v; want %d", what, n, err, count)
		}
	}
}

func TestSweepRemovesStreamsThatDoNotMove(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.apply(exampleNames)
	tables := w.tables()
	key := func(port uint16) abiEgateFlowKey {
		return abiEgateFlowKey{Local: addr(insideAddr), Remote: addr(outsideAddr), LocalPort: port, RemotePort: 53, Proto: 6, Pad: [3]uint8{1}}
	}
	move := func(port uint16, next uint32) {
		put(t, tables.state[streamsMap], key(port), abiEgateStream{Next: next, Bytes: 7})
		put(t, tables.state[streamRoomsMap], key(port), [streamRoomBytes]byte{})
	}
	move(1, 1)
	move(2, 1)
	move(3, 1)
	connection := key(3)
	connection.Pad = [3]uint8{}
	put(t, tables.state[streamRoomsMap], key(4), [streamRoomBytes]byte{}) // its stream was evicted
	s := NewSweeper(w.gate)
	now := uint64(20 * 24 * time.Hour)
	put(t, tables.state[bindingsMap], connection, abiEgateBinding{SeenNs: now})
	sweep := func(want int) {
		t.Helper()
		swept, err := s.sweep(now)
		if err != nil || swept.Streams != want {
			t.Errorf("swept %+v, %v; want %d streams", swept, err, want)
		}
	}
	sweep(0)
	if isThere(t, tables.state[streamRoomsMap], key(4), [streamRoomBytes]byte{}) {
		t.Error("an unfinished message without a stream stays")
	}
	now += uint64(streamLife)
	move(2, 2)
	sweep(0)
	now += 1
	sweep(1) // 1 stood still; 2 moved; 3 has a name
	for port, there := range map[uint16]bool{1: false, 2: true, 3: true} {
		if isThere(t, tables.state[streamsMap], key(port), abiEgateStream{}) != there ||
			isThere(t, tables.state[streamRoomsMap], key(port), [streamRoomBytes]byte{}) != there {
			t.Errorf("stream %d is there: %v", port, !there)
		}
	}
}

// TestTakeLeavesWhatIsRefreshed: a program writes an entry at each point of its
// removal.
func TestTakeLeavesWhatIsRefreshed(t *testing.T) {
	w := newWorld(t, HookAuto)
	w.apply(exampleNames)
	m := w.tables().state[questionsMap]
	key := abiEgateQuestionKey{Id: 1}
	for _, c := range []struct {
		name           string
		at             int // which look the program is quicker than, from 1
		removed, backs int
		there          bool
	}{
		{"not at all", 0, 1, 0, false},
		{"before the second look", 1, 0, 0, true},
		{"between look and removal", 2, 0, 1, true},
	} {
		put(t, m, key, abiEgateQuestion{AskedNs: 1})
		if c.at == 1 {
			put(t, m, key, abiEgateQuestion{AskedNs: 2})
		}
		looks, backs := 0, 0
		dead := func(_ *abiEgateQuestionKey, q *abiEgateQuestion) bool {
			looks++
			isDead := q.AskedNs == 1
			if looks == 1 && c.at == 2 {
				put(t, m, key, abiEgateQuestion{AskedNs: 2})
			}
			return isDead
		}
		removed, err := take(m, []abiEgateQuestionKey{key}, dead, func(*abiEgateQuestionKey) error { backs++; return nil })
		if err != nil || removed != c.removed || backs != c.backs || isThere(t, m, key, abiEgateQuestion{}) != c.there {
			t.Errorf("%s: removed %d, put back %d, there %v, %v; want %d, %d, %v", c.name, removed, backs, !c.there, err, c.removed, c.backs, c.there)
		}
	}
}

func BenchmarkSweepOfFullMaps(b *testing.B) {
	w := newWorld(b, HookAuto)
	w.apply(exampleNames)
	tables := w.tables()
	for b.Loop() {
		b.StopTimer()
		for i := range uint64(20000) {
			put(b, tables.state[learnedMap], abiEgateAddr{Hi: 1, Lo: i}, abiEgateLearned{Addr: abiEgateAddr{Hi: 1, Lo: i}})
		}
		b.StartTimer()
		if _, err := NewSweeper(w.gate).Sweep(); err != nil {
			b.Fatal(err)
		}
	}
}

func isNoKey(err error) bool { return errors.Is(err, ebpf.ErrKeyNotExist) }

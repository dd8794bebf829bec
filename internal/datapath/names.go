package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// nameTables is what a living process keeps in order beside the programs: the
// maps of names of a gate, and where those who cached an address's names see that
// they changed. No lock is needed for it: every write is about one entry, and one
// into maps that are being replaced is lost with them.
type nameTables struct {
	state                // maps of names
	epochs   []*ebpf.Map // name_epochs of the generations that may be in force
	policies []uint32    // their numbers
}

// openNameTables opens those of a gate; nil if no policy of it ever used names.
// The caller closes.
func openNameTables(name string) (*nameTables, error) {
	g, err := findGate(name)
	if err != nil {
		return nil, err
	}
	return patiently(g.openNameTables)
}

// findGate finds a gate by name without a lock.
func findGate(name string) (*gate, error) {
	if err := CheckGateName(name); err != nil {
		return nil, err
	}
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return nil, fmt.Errorf("gate %s: %w", name, ErrNoGate)
	}
	if err != nil {
		return nil, err
	}
	return h.gate(name), nil
}

// patiently reads again, for half a second, what a writer at work may have moved
// meanwhile.
func patiently[T any](read func() (T, error)) (out T, err error) {
	for tries := 0; ; tries++ {
		out, err = read()
		moved := errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMoved)
		if !moved || tries == readTries {
			return out, err
		}
		time.Sleep(readPause)
	}
}

func (g *gate) openNameTables() (*nameTables, error) {
	exists, err := g.exists()
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, g.errNone()
	}
	if err := g.checkABI(); err != nil {
		return nil, err
	}
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	defer v.close()
	if v.current == nil {
		return nil, fmt.Errorf("gate %s: what is in force has no pins: %w", g.name, ErrDamaged)
	}
	maps, err := g.openNames(v.current, nil)
	if err != nil || maps == nil {
		return nil, err
	}
	t := &nameTables{state: maps}
	for _, gen := range v.kept() {
		t.policies = append(t.policies, gen.number)
		if gen.meta.Names == nil {
			continue
		}
		m, err := gen.openWritable(nameEpochsMap)
		if err != nil {
			t.close()
			return nil, err
		}
		t.epochs = append(t.epochs, m)
	}
	return t, nil
}

func (t *nameTables) close() {
	t.state.close()
	for _, m := range t.epochs {
		m.Close()
	}
}

// announce tells the programs that an address's names changed, so that what
// they cached of it no longer holds. The number is a random one: one more would
// be one that a program writes at the same moment.
func (t *nameTables) announce(a abiEgateAddr) error {
	for _, m := range t.epochs {
		if err := m.Put(nameEpoch(a), rand.Uint32()); err != nil {
			return fmt.Errorf("tell of an address's names: %w", err)
		}
	}
	return nil
}

// nameEpoch is the twin of name_epoch in bpf/include/names.h.
func nameEpoch(a abiEgateAddr) uint32 {
	h := (a.Hi^a.Lo>>7)*0x9e3779b97f4a7c15 ^ a.Lo*0xbf58476d1ce4e5b9
	return uint32(h^h>>31) & (uint32(abiEgateLimitEGATE_LIMIT_NAME_EPOCHS) - 1)
}

// count adds to one of the numbers in map `swept`, which a single process
// writes.
func (t *nameTables) count(what uint32, more int) error {
	if more == 0 {
		return nil
	}
	var n uint64
	if err := t.state[sweptMap].Lookup(what, &n); err != nil {
		return fmt.Errorf("read what was swept: %w", err)
	}
	if err := t.state[sweptMap].Put(what, n+uint64(more)); err != nil {
		return fmt.Errorf("write what was swept: %w", err)
	}
	return nil
}

// monotonic is the clock of all times in maps.
func monotonic() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

// take removes what is still dead from a hash, and tells how many entries. An
// entry that a program refreshed meanwhile stays: it is looked at once more, and
// should it be refreshed between that look and its removal (some microseconds),
// the removal gives it in its last form and it is put back. back is then called:
// for as long as the two calls of the kernel take, programs did not find it.
func take[K, V any](m *ebpf.Map, keys []K, dead func(*K, *V) bool, back func(*K) error) (removed int, err error) {
	for i := range keys {
		key, value := &keys[i], new(V)
		err := m.Lookup(key, value)
		if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && !dead(key, value) {
			continue
		}
		if err == nil {
			err = m.LookupAndDelete(key, value)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("remove from %v: %w", m, err)
		}
		if dead(key, value) {
			removed++
			continue
		}
		err = m.Update(key, value, ebpf.UpdateNoExist)
		if errors.Is(err, ebpf.ErrKeyExist) { // it was made anew, and counted so
			removed++
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("put back into %v: %w", m, err)
		}
		if err := back(key); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

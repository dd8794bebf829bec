package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of pins in a gate's folder.
const (
	activePin   = "active"
	linksPin    = "links"
	statePin    = "state"
	genPrefix   = "gen-"
	newPrefix   = "new-"
	oldPrefix   = "old-"
	programPin  = "program"
	guardPin    = "guard"
	pendingPin  = "pending"
	metaPin     = "meta"
	dispatchPin = "dispatch_" // followed by the direction
)

// gate is one gate's folder of pins.
type gate struct {
	host *host
	name string
	dir  string
}

func (h *host) gate(name string) *gate {
	return &gate{host: h, name: name, dir: filepath.Join(h.root, name)}
}

func (g *gate) path(elements ...string) string {
	return filepath.Join(append([]string{g.dir}, elements...)...)
}

func (g *gate) exists() (bool, error) {
	_, err := os.Stat(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, explain(fmt.Errorf("look for gate %s: %w", g.name, err))
	}
	return true, nil
}

func (g *gate) errNone() error { return fmt.Errorf("gate %s: %w", g.name, ErrNoGate) }

// slot gives the id of the program in the active slot, 0 if it is empty. A
// program array whose last pin is gone is emptied by the kernel, so a missing
// pin is an empty slot.
func (g *gate) slot() (ebpf.ProgramID, error) {
	m, err := ebpf.LoadPinnedMap(g.path(activePin), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, explain(fmt.Errorf("open active slot: %w", err))
	}
	defer m.Close()
	return slotOf(m, 0)
}

func slotOf(m *ebpf.Map, index uint32) (ebpf.ProgramID, error) {
	var id uint32
	if err := m.Lookup(index, &id); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, nil
		}
		return 0, fmt.Errorf("read active slot: %w", err)
	}
	return ebpf.ProgramID(id), nil
}

// put is the switch: one write, and every interface and both directions go by
// the program. nil empties the slot: everything passes.
func (g *gate) put(p *ebpf.Program) error {
	m, err := ebpf.LoadPinnedMap(g.path(activePin), nil)
	if errors.Is(err, fs.ErrNotExist) && p == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open active slot: %w", err)
	}
	defer m.Close()
	if p == nil {
		if err := m.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("empty active slot: %w", err)
		}
		return nil
	}
	if err := m.Put(uint32(0), p); err != nil {
		return fmt.Errorf("write active slot: %w", err)
	}
	return nil
}

// view is what the kernel says is in force.
type view struct {
	slot        ebpf.ProgramID // 0: nothing
	generations []*generation  // complete ones, oldest first
	current     *generation    // the newest that the slot leads to; nil if none is known
	previous    *generation    // while a confirmation is pending: what is in force after the deadline, if anything
	pending     bool           // the guard stands in the slot
	expired     bool           // and the deadline is past
	deadline    time.Time
}

// view reads what is in force. It changes nothing; without the lock it can
// meet a gate that is being changed, and the pins it finds may be gone.
func (g *gate) view() (*view, error) {
	v := &view{}
	var err error
	if v.slot, err = g.slot(); err != nil {
		return nil, err
	}
	if v.generations, err = g.generations(); err != nil {
		return nil, err
	}
	if v.slot == 0 {
		return v, nil
	}
	for _, gen := range v.generations {
		switch v.slot {
		case gen.program:
			v.current = gen
		case gen.guard:
			v.current, v.pending = gen, true
		}
	}
	if !v.pending {
		return v, nil
	}
	if v.previous, err = v.behind(v.current); err != nil {
		return nil, err
	}
	now, err := bootTime()
	if err != nil {
		return nil, err
	}
	left := v.current.meta.DeadlineBoot - now
	v.expired, v.deadline = left < 0, time.Now().Add(left)
	return v, nil
}

// behind finds the generation that the guard goes back to, nil if none.
func (v *view) behind(gen *generation) (*generation, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(gen.dir, pendingPin), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open what is pending: %w", err)
	}
	defer m.Close()
	id, err := slotOf(m, 1)
	if err != nil || id == 0 {
		return nil, err
	}
	for _, other := range v.generations {
		if other.program == id {
			return other, nil
		}
	}
	return nil, fmt.Errorf("find the policy before: no generation has program %d: %w", id, ErrDamaged)
}

// kept lists the generations that are in force or can be again.
func (v *view) kept() []*generation {
	var kept []*generation
	for _, gen := range []*generation{v.previous, v.current} {
		if gen != nil {
			kept = append(kept, gen)
		}
	}
	return kept
}

func (v *view) isKept(gen *generation) bool { return slices.Contains(v.kept(), gen) }

// close releases what view opened.
func (v *view) close() {
	for _, gen := range v.generations {
		gen.close()
	}
}

// bootTime is CLOCK_BOOTTIME, by which the guard judges.
func bootTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// checkNetns refuses to change a gate from another network namespace than its
// own.
func (g *gate) checkNetns(gen *generation) error {
	now, err := currentNetns()
	if err != nil {
		return err
	}
	if gen.meta.Netns != now {
		return fmt.Errorf("gate %s belongs to network namespace net:[%d], this is net:[%d]; run egate there, or take another gate with --gate, or `egate off` this one if that namespace is gone: %w",
			g.name, gen.meta.Netns.Inode, now.Inode, ErrNetns)
	}
	return nil
}

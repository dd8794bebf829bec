package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle makes a gate's pins and attachments agree with what is in force: it
// ends what a killed or failed writer began, after a switch by taking the old
// policy away, before it by taking the new one away; and it makes formal what
// the kernel has done by itself when a confirmation did not come. The caller
// holds the lock and closes the view, which is that of afterwards. Nothing in
// force, and nothing known in force, is left to the caller.
func (g *gate) settle() (*view, error) {
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	if v.expired {
		if v, err = g.revert(v); err != nil {
			return nil, err
		}
	}
	if v.current == nil {
		return v, nil
	}
	if err := g.tidy(v); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// revert puts the policy before the expired one in force, or none.
func (g *gate) revert(v *view) (*view, error) {
	defer v.close()
	if v.previous == nil {
		if err := g.put(nil); err != nil {
			return nil, err
		}
	} else if err := g.put(v.previous.handle); err != nil {
		return nil, err
	}
	return g.view()
}

// tidy removes all that does not belong to what is in force.
func (g *gate) tidy(v *view) error {
	if err := g.removeAside(); err != nil {
		return err
	}
	if !v.pending {
		if err := g.settleTwins(v.current); err != nil {
			return err
		}
		if err := g.removeGuard(v.current); err != nil {
			return err
		}
	}
	if err := step("detach"); err != nil {
		return err
	}
	wanted := map[int]bool{}
	for _, gen := range v.kept() {
		for _, i := range gen.attached() {
			wanted[i.Index] = true
		}
	}
	if err := g.detach(func(ifindex int) bool { return !wanted[ifindex] }, v.current.meta); err != nil {
		return err
	}
	return g.retireOthers(v)
}

// removeAside removes folders of generations that were never complete, or
// whose counters are folded.
func (g *gate) removeAside() error {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return fmt.Errorf("list gate: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), oldPrefix) {
			if err := removePins(g.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeGuard removes the guard of a policy that does not need it any more.
// The guard may still be running on some processor; the array behind it is
// emptied with its last pin, so that waits for the end of those runs.
func (g *gate) removeGuard(gen *generation) error {
	if gen.guard == 0 {
		return nil
	}
	waitForPrograms()
	for _, name := range []string{guardPin, pendingPin} {
		if err := removePin(filepath.Join(gen.dir, name)); err != nil {
			return err
		}
	}
	gen.guard = 0
	return nil
}

// retireOthers takes away every generation that is not in force and can't be
// again. Its counters go into the sums.
func (g *gate) retireOthers(v *view) error {
	var gone []*generation
	for _, gen := range v.generations {
		if !v.isKept(gen) {
			gone = append(gone, gen)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	s, err := g.openState()
	if err != nil {
		return err
	}
	defer s.close()
	if err := step("wait"); err != nil {
		return err
	}
	waitForPrograms()
	for _, gen := range gone { // oldest first: the order must be the same if this is done again
		if err := step("fold"); err != nil {
			return err
		}
		if err := gen.fold(s[sumsMap], v.kept()); err != nil {
			return fmt.Errorf("fold counters of generation %d: %w", gen.number, err)
		}
		if err := g.discard(gen); err != nil {
			return err
		}
	}
	return nil
}

// discard removes a generation. The new name says that its counters are
// folded, should this be killed half way.
func (g *gate) discard(gen *generation) error {
	if err := step("discard"); err != nil {
		return err
	}
	old := g.path(fmt.Sprintf("%s%d", oldPrefix, gen.number))
	if err := os.Rename(gen.dir, old); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("put generation %d away: %w", gen.number, err)
	}
	gen.dir = old
	return removePins(old)
}

// programGrace is how long programs are waited for where membarrier refuses:
// far longer than a TC program can run.
const programGrace = 200 * time.Millisecond

// waitForPrograms returns when no processor is inside a program that the
// active slot led to before. Programs run under RCU, and
// MEMBARRIER_CMD_GLOBAL waits for one grace period of it
// (kernel/sched/membarrier.c calls synchronize_rcu); kernels with
// nohz_full refuse it.
func waitForPrograms() {
	const membarrierCmdGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierCmdGlobal, 0, 0); errno != 0 {
		time.Sleep(programGrace)
	}
}

package datapath

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Confirm keeps the policy that Apply put in force for a trial.
//
// Errors wrap ErrGateName, ErrNoGate, ErrNotPending, ErrBusy, ErrABI, ErrNetns
// or ErrPermission.
func Confirm(name string) error {
	if err := change(name, confirm); err != nil {
		return fmt.Errorf("confirm: %w", explain(err))
	}
	return nil
}

// Off takes a gate's policy out of force, and all that belongs to the gate
// away. From then on everything passes. It works whatever state a killed
// writer or another version left.
//
// Errors wrap ErrGateName, ErrNoGate, ErrBusy, ErrNetns or ErrPermission.
func Off(name string) error {
	if err := change(name, off); err != nil {
		return fmt.Errorf("off: %w", explain(err))
	}
	return nil
}

// change runs f on an existing gate under the lock.
func change(name string, f func(*gate) error) error {
	if err := CheckGateName(name); err != nil {
		return err
	}
	if _, err := openHost(); errors.Is(err, errNoBPFFS) {
		return fmt.Errorf("gate %s: %w", name, ErrNoGate) // nothing is mounted for a look
	}
	h, err := lockHost()
	if err != nil {
		return err
	}
	g := h.gate(name)
	exists, err := g.exists()
	switch {
	case err != nil:
	case !exists:
		err = g.errNone()
	default:
		err = f(g)
	}
	return errors.Join(err, h.close())
}

func confirm(g *gate) error {
	if err := g.checkABI(); err != nil {
		return err
	}
	before, err := g.view()
	if err != nil {
		return err
	}
	defer before.close()
	if before.current != nil && hookNamed(before.current.meta.Hook) == HookClsact {
		if err := g.checkNetns(before.current); err != nil {
			return err
		}
	}
	after, err := g.settle()
	if err != nil {
		return err
	}
	defer after.close()
	switch {
	case before.expired && after.slot == 0:
		return errors.Join(
			fmt.Errorf("gate %s: the time was over %v ago; no policy was in force before, so the gate is off: %w",
				g.name, time.Since(before.deadline).Round(time.Second), ErrNotPending),
			g.wipe())
	case before.expired:
		return fmt.Errorf("gate %s: the time was over %v ago; the policy before (%s) is in force again: %w",
			g.name, time.Since(before.deadline).Round(time.Second), after.current.meta.Policy, ErrNotPending)
	case !after.pending:
		return fmt.Errorf("gate %s: %w", g.name, ErrNotPending)
	}
	if err := step("confirm"); err != nil {
		return err
	}
	if err := g.put(after.current.handle); err != nil {
		return err
	}
	v, err := g.settle()
	if err != nil {
		return fmt.Errorf("the policy stays in force, but: %w", err)
	}
	v.close()
	return nil
}

func off(g *gate) error {
	// What can be known of the gate is only needed to refuse to leave filters
	// behind in a network namespace that is not this one.
	if v, err := g.view(); err == nil {
		defer v.close()
		if v.current != nil && hookNamed(v.current.meta.Hook) == HookClsact {
			if err := g.checkNetns(v.current); err != nil && !isGone(v.current.meta.Netns) {
				return err
			}
		}
	}
	return g.wipe()
}

// isGone tells whether nothing leads to a network namespace any more. Should
// something that cannot be seen from here still hold it, its filters let
// everything pass.
func isGone(id netnsID) bool {
	ran, err := inNetns(id, func() error { return nil })
	return err == nil && !ran
}

// wipe removes a gate with all that belongs to it. It is done again by
// whoever finds a gate with an empty slot.
func (g *gate) wipe() error {
	if err := step("wipe"); err != nil {
		return err
	}
	if err := g.put(nil); err != nil {
		return err
	}
	if err := g.detach(func(int) bool { return true }, nil); err != nil {
		return err
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return fmt.Errorf("list gate: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := step("unpin"); err != nil {
				return err
			}
			if err := removePins(g.path(e.Name())); err != nil {
				return err
			}
		}
	}
	// The dispatchers tell which filters are egate's: they go when none is left.
	return removePins(g.dir)
}

// putGeneration is the switch to a generation, behind its guard if it has one.
func (g *gate) putGeneration(gen *generation) error {
	if gen.guard == 0 {
		return g.put(gen.handle)
	}
	guard, err := gen.openGuard()
	if err != nil {
		return err
	}
	defer guard.Close()
	return g.put(guard)
}

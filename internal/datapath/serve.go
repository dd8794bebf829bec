package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Service is a gate that a living process looks after: it alone, until Close.
type Service struct {
	gate *gate
	lock *os.File // the gate's folder; the writers' lock is another one
}

// Serve takes a gate of the calling thread's network namespace over. The caller
// closes.
//
// Errors wrap ErrGateName, ErrNoGate, ErrNetns, ErrABI, ErrDamaged,
// ErrPermission, or ErrBusy if another process serves the gate.
func Serve(name string) (*Service, error) {
	s, err := serve(name)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", explain(err))
	}
	return s, nil
}

func serve(name string) (*Service, error) {
	if err := requirePrivilege(); err != nil {
		return nil, err
	}
	g, err := findGate(name)
	if err != nil {
		return nil, err
	}
	exists, err := g.exists()
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, g.errNone()
	}
	v, err := patiently(g.adoptable)
	if err != nil {
		return nil, err
	}
	v.close()
	f, err := os.Open(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, g.errNone()
	}
	if err != nil {
		return nil, fmt.Errorf("open gate %s: %w", name, err)
	}
	if err := lockFile(f, time.Now()); err != nil {
		if errors.Is(err, ErrBusy) {
			err = fmt.Errorf("gate %s: another daemon serves it%s: %w", name, holderText(f), ErrBusy)
		}
		f.Close()
		return nil, err
	}
	return &Service{gate: g, lock: f}, nil
}

func holderText(f *os.File) string {
	if pid := lockHolder(f); pid != 0 {
		return fmt.Sprintf(" (pid %d)", pid)
	}
	return ""
}

// IsCurrent tells whether the gate is still there: one that was taken off and
// made again is another.
func (s *Service) IsCurrent() (bool, error) {
	open, err := s.lock.Stat()
	if err != nil {
		return false, fmt.Errorf("look at gate %s: %w", s.gate.name, err)
	}
	now, err := os.Stat(s.gate.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, explain(fmt.Errorf("look at gate %s: %w", s.gate.name, err))
	}
	return os.SameFile(open, now), nil
}

// Close lets another process serve the gate.
func (s *Service) Close() error {
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("close gate %s: %w", s.gate.name, err)
	}
	return nil
}

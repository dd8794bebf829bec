package programs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"egate/internal/compile"
	"egate/internal/datapath"
	"egate/internal/policy"
)

// guardedLink is the interface that test runs are on where they name no other.
const guardedLink = "lo"

// gates are policies in force, each in a gate of its own, all of them on
// loopback of one network namespace: what `egate apply` leaves behind. They are
// pinned in a bpffs that hangs on a file descriptor, so nothing is left of them
// however the process ends.
type gates struct {
	mount int
	count int
}

func newGates() (*gates, error) {
	context, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	return &gates{mount: mount}, nil
}

func (g *gates) path() string { return fmt.Sprintf("/proc/self/fd/%d", g.mount) }

// Close takes all policies away.
func (g *gates) Close() error {
	if err := unix.Close(g.mount); err != nil {
		return fmt.Errorf("close bpffs: %w", err)
	}
	return nil
}

// gate is one policy in force.
type gate struct {
	gates           *gates
	name            string
	egress, ingress *ebpf.Program // the dispatchers
}

// apply puts a policy in force; list is the text of every set file that the
// policy names. The caller closes the gate, and stays on a thread of the
// namespace from the first policy on.
func (g *gates) apply(text, list string) (*gate, error) {
	p, problems := policy.Parse("policy.yaml", []byte(text), func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(list)), nil
	})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	g.count++
	out := &gate{gates: g, name: fmt.Sprintf("bench-%d", g.count)}
	err = g.withPath(func() error {
		_, err := datapath.Apply(set, datapath.ApplyOptions{
			Gate: out.name, Source: datapath.Source{Path: "policy.yaml", SHA256: sha256.Sum256([]byte(text))},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if out.egress, err = out.dispatcher("dispatch_egress"); err != nil {
		return nil, err
	}
	if out.ingress, err = out.dispatcher("dispatch_ingress"); err != nil {
		return nil, errors.Join(err, out.egress.Close())
	}
	return out, nil
}

func (g *gate) dispatcher(pin string) (*ebpf.Program, error) {
	p, err := ebpf.LoadPinnedProgram(filepath.Join(g.gates.path(), "egate", g.name, pin), nil)
	if err != nil {
		return nil, fmt.Errorf("open dispatcher: %w", err)
	}
	return p, nil
}

// Close gives the gate up; the policy stays in force.
func (g *gate) Close() error { return errors.Join(g.egress.Close(), g.ingress.Close()) }

// answersLearned is how many DNS answers the gate has read that opened addresses.
func (g *gate) answersLearned() (count uint64, err error) {
	err = g.gates.withPath(func() error {
		s, err := datapath.ReadStatus(g.name)
		if err != nil {
			return err
		}
		for _, m := range s.Names.Messages {
			if m.Outcome == "learned" {
				count = m.Count
			}
		}
		return nil
	})
	return count, err
}

// withPath calls f while this bpffs is the one that egate pins in.
func (g *gates) withPath(f func() error) (err error) {
	before, was := os.LookupEnv(datapath.EnvBPFFS)
	if err := os.Setenv(datapath.EnvBPFFS, g.path()); err != nil {
		return fmt.Errorf("name bpffs: %w", err)
	}
	defer func() {
		restored := os.Unsetenv(datapath.EnvBPFFS)
		if was {
			restored = os.Setenv(datapath.EnvBPFFS, before)
		}
		err = errors.Join(err, restored)
	}()
	return f()
}

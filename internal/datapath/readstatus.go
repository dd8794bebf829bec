package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"egate/internal/verdict"
)

// How often and how long a reader tries to meet a gate between two changes.
const (
	readTries = 50
	readPause = 10 * time.Millisecond
)

// ReadStatus reads how a gate stands. It takes no lock and changes nothing;
// if a writer is at work, it reads again until both ends of a reading agree.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged, ErrPermission, or
// ErrBusy if the gate never stood still.
func ReadStatus(name string) (*Status, error) {
	return whileStill(name, "status", (*gate).readOnce)
}

// whileStill reads something of a gate, again and again until no writer has
// changed the gate meanwhile.
func whileStill[T any](name, what string, read func(*gate) (T, error)) (out T, err error) {
	if err := CheckGateName(name); err != nil {
		return out, err
	}
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return out, fmt.Errorf("read %s of gate %s: %w", what, name, ErrNoGate)
	}
	if err != nil {
		return out, fmt.Errorf("read %s of gate %s: %w", what, name, explain(err))
	}
	g := h.gate(name)
	for tries := 0; ; tries++ {
		out, err = readStill(g, read)
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, errMoved) && tries < readTries:
			time.Sleep(readPause)
		case errors.Is(err, errMoved):
			return out, fmt.Errorf("read %s of gate %s: it changes all the time: %w", what, name, ErrBusy)
		default:
			return out, fmt.Errorf("read %s: %w", what, explain(err))
		}
	}
}

// errMoved says that the gate was changed while it was read.
var errMoved = errors.New("the gate was changed meanwhile")

// readStill reads once. It gives errMoved if a writer changed something.
func readStill[T any](g *gate, read func(*gate) (T, error)) (none T, err error) {
	exists, err := g.exists()
	if err != nil {
		return none, err
	}
	if !exists {
		return none, g.errNone()
	}
	before, err := g.fingerprint()
	if err != nil {
		return none, err
	}
	out, err := read(g)
	after, again := g.fingerprint()
	if again != nil || before != after {
		return none, errMoved
	}
	return out, err
}

// fingerprint changes whenever a writer changes what is in force or pinned.
func (g *gate) fingerprint() (string, error) {
	slot, err := g.slot()
	if err != nil {
		return "", err
	}
	dirs, err := g.generationDirs()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprint(slot, dirs), nil // maps are printed sorted
}

func (g *gate) readOnce() (*Status, error) {
	s := &Status{
		Gate: g.name, State: Enforcing, Problems: []string{}, Interfaces: []InterfaceStatus{},
	}
	for d := range s.Chains {
		s.Chains[d].Rules = []RuleStatus{}
		s.Totals[d].Protocols, s.Totals[d].Reasons = []ProtocolTotals{}, []ReasonTotals{}
	}
	s.Names = NamesStatus{Servers: []netip.Addr{}, Messages: []MessageTotals{}, Tables: []TableStatus{}}
	slot, err := g.slot()
	if err != nil {
		return nil, err
	}
	if slot == 0 {
		s.State = Broken
		s.Problems = append(s.Problems, "nothing is in force: an apply or off was interrupted; run it again")
		return s, nil
	}
	if err := g.checkABI(); err != nil {
		return nil, err
	}
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	defer v.close()
	shown := s.describe(v)
	if shown == nil {
		return s, nil
	}
	state, err := g.readableState(shown)
	if err != nil {
		return nil, err
	}
	defer state.close()
	if err := s.readCounters(v, shown, state); err != nil {
		return nil, err
	}
	if err := s.Names.read(g, shown); err != nil {
		return nil, err
	}
	if err := s.readHooks(g, shown); err != nil {
		return nil, err
	}
	if len(s.Problems) > 0 && s.State == Enforcing {
		s.State = Broken
	}
	return s, nil
}

// describe fills in what is known of the policy in force, and gives its
// generation; nil if there is none.
func (s *Status) describe(v *view) *generation {
	shown := v.current
	switch {
	case shown == nil:
		s.State = Broken
		s.Problems = append(s.Problems, fmt.Sprintf("program %d is in force, and its pins are gone: nothing is known of it; apply a policy, or run off", v.slot))
		return nil
	case v.expired:
		s.State, s.Deadline = Reverted, &v.deadline
		if v.previous != nil {
			shown = v.previous
		} else {
			s.Problems = append(s.Problems, fmt.Sprintf("the policy %s was not confirmed and none was in force before: everything passes; run off, or apply a policy", shown.meta.Policy))
		}
	case v.pending:
		s.State, s.Deadline = Pending, &v.deadline
		if v.previous != nil {
			s.Previous = v.previous.meta.Policy
		}
	}
	m := shown.meta
	s.Policy, s.Path, s.SHA256, s.Generation, s.Applied = m.Policy, m.Path, m.SHA256, m.Generation, m.Applied
	s.Audit, s.Netns, s.Hook = m.Audit, m.Netns.Inode, m.Hook
	return shown
}

// readableState opens the state for reading, with the connection table that a
// generation uses: while a confirmation is pending there can be two. The caller
// closes.
func (g *gate) readableState(shown *generation) (state, error) {
	s := state{}
	for _, name := range []string{sumsMap, totalsMap, flowsMap} {
		m, err := ebpf.LoadPinnedMap(g.path(statePin, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			s.close()
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w; `apply --replace-state` starts afresh", err, ErrDamaged)
			}
			return nil, fmt.Errorf("open %s of the state: %w", name, err)
		}
		s[name] = m
	}
	twin, err := ebpf.LoadPinnedMap(g.path(statePin, flowsMap+twinSuffix), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open %s of the state: %w", flowsMap, err)
	}
	uses, err := shown.usesMap(twin)
	if err != nil {
		twin.Close()
		s.close()
		return nil, err
	}
	if !uses {
		twin.Close()
		return s, nil
	}
	s[flowsMap].Close()
	s[flowsMap] = twin
	return s, nil
}

// readHooks looks at the interfaces, in the gate's network namespace if that
// can be found.
func (s *Status) readHooks(g *gate, shown *generation) error {
	owners, err := g.host.dispatcherOwners()
	if err != nil {
		return err
	}
	ran, err := inNetns(shown.meta.Netns, func() error {
		links, err := listLinks()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
		}
		for i := range s.Interfaces {
			if err := s.readInterface(&s.Interfaces[i], names, owners); err != nil {
				return err
			}
		}
		return s.findUnguarded(shown, links)
	})
	if err == nil && !ran {
		s.Problems = append(s.Problems, fmt.Sprintf("network namespace net:[%d] is gone, or belongs to no process that can be seen from here", s.Netns))
	}
	return err
}

// findUnguarded names the interfaces that the policy means and that came, or
// came to carry a default route, after it was applied.
func (s *Status) findUnguarded(shown *generation, links []netlink.Link) error {
	guarded := map[int]bool{}
	for _, o := range shown.owners {
		guarded[o.Index] = true
	}
	for _, pattern := range shown.meta.Patterns {
		matches, err := matchLinks(pattern, links)
		if err != nil {
			return err
		}
		for _, l := range matches {
			if a := l.Attrs(); !guarded[a.Index] {
				guarded[a.Index] = true // once is enough
				s.Problems = append(s.Problems, fmt.Sprintf("interface %s matches %q and is not guarded: it came after the policy; apply the policy again, or let egate daemon run", a.Name, pattern))
			}
		}
	}
	return nil
}

func (s *Status) readInterface(i *InterfaceStatus, names map[int]string, owners map[ebpf.ProgramID]string) error {
	name, ok := names[i.Ifindex]
	if !ok {
		i.Gone = true
		s.Problems = append(s.Problems, fmt.Sprintf("interface %s (ifindex %d) is gone; the next apply, or egate daemon, forgets it", i.NamedAt, i.Ifindex))
		return nil
	}
	i.Name = name
	for _, d := range verdict.Directions {
		h := &i.Hooks[d]
		programs, err := hookPrograms(i.Ifindex, d, owners)
		if err != nil {
			return err
		}
		h.Programs = append(h.Programs, programs...)
		h.Position = 1 + slices.IndexFunc(programs, func(p Program) bool { return p.Gate == s.Gate })
		h.Attached = h.Position > 0
		if !h.Attached {
			s.Problems = append(s.Problems, fmt.Sprintf("%s of %s is not guarded: somebody has detached egate; apply the policy again", d, i.Name))
		}
	}
	return nil
}

package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/domain"
	"egate/internal/packet"
	"egate/internal/verdict"
)

// Lives of connections without packets, as in bpf/include/flow.h.
const (
	flowTCPLife   = 5 * 24 * time.Hour
	flowOtherLife = 180 * time.Second
)

// ReadNames reads what a gate knows of names, sorted by name. It takes no lock
// and changes nothing. A gate whose policies never used names has none.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged, ErrPermission, or
// ErrBusy if the gate never stood still.
func ReadNames(name string) ([]NameStatus, error) {
	return whileStill(name, "names", (*gate).readNames)
}

func (g *gate) readNames() ([]NameStatus, error) {
	slot, err := g.slot()
	if err != nil || slot == 0 {
		return nil, err
	}
	if err := g.checkABI(); err != nil {
		return nil, err
	}
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	defer v.close()
	shown := (&Status{}).describe(v)
	if shown == nil {
		return nil, fmt.Errorf("gate %s: nothing is known of the policy in force; apply a policy, or run off: %w", g.name, ErrDamaged)
	}
	st, err := g.readableNames(shown)
	if err != nil || st == nil {
		return nil, err
	}
	defer st.close()
	r, err := newNameReader(st)
	if err != nil {
		return nil, err
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	if err := r.findRules(shown); err != nil {
		return nil, err
	}
	return r.sorted(), nil
}

// readableNames opens the maps of names for reading. nil if there are none. The
// caller closes.
func (g *gate) readableNames(shown *generation) (state, error) {
	return g.openNames(shown, &ebpf.LoadPinOptions{ReadOnly: true})
}

// openNames opens the maps of names that a generation works on, or would: while
// a confirmation is pending they may have the names of twins. nil if there are
// none. The caller closes.
func (g *gate) openNames(shown *generation, o *ebpf.LoadPinOptions) (state, error) {
	suffix := ""
	twin, err := ebpf.LoadPinnedMap(g.path(statePin, learnedMap+twinSuffix), &ebpf.LoadPinOptions{ReadOnly: true})
	switch {
	case err == nil:
		uses, err := shown.usesMap(twin)
		twin.Close()
		if err != nil {
			return nil, err
		}
		if uses {
			suffix = twinSuffix
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open %s of the state: %w", learnedMap, err)
	}
	s := state{}
	for _, name := range nameStateMaps {
		m, err := ebpf.LoadPinnedMap(g.path(statePin, name+suffix), o)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" { // it is being renamed, learned last
			m, err = ebpf.LoadPinnedMap(g.path(statePin, name), o)
		}
		if errors.Is(err, fs.ErrNotExist) && suffix == "" && len(s) == 0 {
			return nil, nil
		}
		if err != nil {
			s.close()
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w; `apply --replace-state` starts afresh", err, ErrDamaged)
			}
			return nil, fmt.Errorf("open %s of the state: %w", name, err)
		}
		s[name] = m
	}
	return s, nil
}

// nameReader gathers what the maps of names say.
type nameReader struct {
	maps   state
	nowNs  uint64    // CLOCK_MONOTONIC, by which the maps tell times
	now    time.Time // the same moment
	labels map[uint64][]string
	names  map[uint64]*NameStatus // by hash
}

func newNameReader(maps state) (*nameReader, error) {
	r := &nameReader{maps: maps, labels: map[uint64][]string{}, names: map[uint64]*NameStatus{}}
	var err error
	if r.nowNs, err = monotonic(); err != nil {
		return nil, err
	}
	r.now = time.Now().Round(0)
	return r, nil
}

// wall is a time of the maps on the wall clock.
func (r *nameReader) wall(ns uint64) time.Time { return r.now.Add(time.Duration(ns - r.nowNs)) }

func (r *nameReader) name(hash uint64) *NameStatus {
	n := r.names[hash]
	if n == nil {
		n = &NameStatus{Rules: []string{}, Addresses: []NameAddress{}}
		r.names[hash] = n
	}
	return n
}

func (r *nameReader) read() error {
	err := eachEntry(r.maps[namesMap], func(hash *uint64, n *abiEgateName) error {
		out := r.name(*hash)
		out.Name, _ = n.text()
		out.Seen = r.wall(n.SeenNs)
		r.labels[*hash], _ = wireLabels(n.Wire[:min(int(n.Length), len(n.Wire))])
		return nil
	})
	if err != nil {
		return err
	}
	err = eachEntry(r.maps[learnedMap], func(a *abiEgateAddr, l *abiEgateLearned) error {
		if l.Addr != *a { // it was given to another address just now
			return nil
		}
		for _, s := range l.Slots {
			if s.Name != 0 && s.ExpiresNs > r.nowNs {
				n := r.name(s.Name)
				n.Addresses = append(n.Addresses, NameAddress{netipOf(*a), r.wall(s.ExpiresNs)})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eachEntry(r.maps[bindingsMap], func(k *abiEgateFlowKey, b *abiEgateBinding) error {
		life := flowOtherLife
		if k.Proto == packet.ProtoTCP {
			life = flowTCPLife
		}
		if b.Slot.Name != 0 && r.nowNs <= b.SeenNs+uint64(life) {
			r.name(b.Slot.Name).Connections++
		}
		return nil
	})
}

func (r *nameReader) sorted() []NameStatus {
	out := make([]NameStatus, 0, len(r.names))
	for _, n := range r.names {
		slices.SortFunc(n.Addresses, func(a, b NameAddress) int { return a.Address.Compare(b.Address) })
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b NameStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// findRules tells which rules of a generation list the names.
func (r *nameReader) findRules(gen *generation) error {
	if m := gen.meta.Names; m == nil || !m.Used {
		return nil
	}
	key, err := r.maps.nameKey()
	if err != nil {
		return err
	}
	f := ruleFinder{meta: gen.meta, key: key, found: map[uint16][]string{}}
	if f.domains, err = gen.openMap(domainsMap); err != nil {
		return err
	}
	defer f.domains.Close()
	if f.vectors, err = gen.openMap(vectorsMap); err != nil {
		return err
	}
	defer f.vectors.Close()
	if f.others, err = f.vector(0); err != nil {
		return err
	}
	for hash, labels := range r.labels {
		rules, err := f.rules(labels)
		if err != nil {
			return err
		}
		r.names[hash].Rules = rules
	}
	return nil
}

// ruleFinder tells which rules list a name, by a generation's maps.
type ruleFinder struct {
	meta             *meta
	key              domain.Key
	domains, vectors *ebpf.Map
	others           []uint64            // the rules that ask for no names
	found            map[uint16][]string // by class
}

// rules gives the labels of the rules that list a name.
func (f *ruleFinder) rules(labels []string) ([]string, error) {
	class, err := f.class(labels)
	if err != nil {
		return nil, err
	}
	if rules, ok := f.found[class]; ok {
		return rules, nil
	}
	rules := []string{}
	vector, err := f.vector(class)
	if err != nil {
		return nil, err
	}
	for i, rule := range f.meta.Chains[verdict.Egress].Rules {
		if (vector[i/64]&^f.others[i/64])>>(i%64)&1 != 0 {
			rules = append(rules, rule.Label)
		}
	}
	f.found[class] = rules
	return rules, nil
}

// class is tables.NameTable's, by the map.
func (f *ruleFinder) class(labels []string) (uint16, error) {
	for i := range labels {
		if slices.ContainsFunc(labels[i:], func(l string) bool { return strings.Contains(l, ".") }) {
			continue // none of a policy has that, but joined it would look like two labels
		}
		above := strings.Join(labels[i:], ".")
		var d abiEgateDomain
		err := f.domains.Lookup(f.key.Hash(above), &d)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
		case err != nil:
			return 0, fmt.Errorf("look a name up: %w", err)
		case i == 0:
			return d.Exact, nil
		default:
			return d.Below, nil
		}
	}
	return 0, nil
}

// vector reads a class's vector over the rules: see tables.VectorTable.
func (f *ruleFinder) vector(class uint16) ([]uint64, error) {
	m := f.meta.Names
	at := m.First + uint32(class)*m.Stride
	word := func() (w uint64, err error) {
		if err := f.vectors.Lookup(at, &w); err != nil {
			return 0, fmt.Errorf("read rule vectors: %w", err)
		}
		at++
		return w, nil
	}
	first, err := word()
	if err != nil {
		return nil, err
	}
	if m.Words == 1 {
		return []uint64{first}, nil
	}
	vector := make([]uint64, m.Words)
	for i := range vector {
		if first>>i&1 == 0 {
			continue
		}
		if vector[i], err = word(); err != nil {
			return nil, err
		}
	}
	return vector, nil
}

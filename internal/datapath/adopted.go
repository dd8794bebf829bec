package datapath

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Interfaces that came after a policy was applied are adopted into it: see
// Adopt. Who owns which position in map iface_counters is what meta says, with
// the changes that the map `adopted` in the generation's folder holds.
const adoptedPin = "adopted"

// How many positions in iface_counters a policy has for interfaces to come, as
// many again as it has interfaces at the least: 96 bytes each per processor.
const (
	spareForPatterns = 256
	spareForNames    = 8 // named interfaces are made anew at times
)

// adoption is a value of map `adopted`; the key is the position.
type adoption struct {
	Ifindex uint32 // 0: the position is free
	Part    uint32 // see sum
	Link    uint8
	Pad     [3]byte
	Name    [unix.IFNAMSIZ]byte // at the time of the adoption
}

func newAdoption(g guarded, part uint32) adoption {
	a := adoption{Ifindex: uint32(g.Index), Part: part, Link: g.Link}
	copy(a.Name[:len(a.Name)-1], g.Name)
	return a
}

func (a *adoption) guarded() guarded {
	return guarded{Name: string(bytes.TrimRight(a.Name[:], "\x00")), Index: int(a.Ifindex), Link: a.Link}
}

// adoptedSpec: without preallocation an update replaces the whole element, so
// that a reader without the lock never meets half of one.
func adoptedSpec(positions int) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "egate_adopted", Type: ebpf.Hash, KeySize: 4, ValueSize: 28, MaxEntries: uint32(positions + 1), // one for onlyForDNS
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

// newAdoptedMap pins an empty one in a generation's folder.
func newAdoptedMap(m *meta, dir string) error {
	adopted, err := ebpf.NewMap(adoptedSpec(counterPositions(m.Patterns, len(m.Interfaces))))
	if err != nil {
		return fmt.Errorf("make map of adopted interfaces: %w", err)
	}
	defer adopted.Close()
	if err := adopted.Pin(filepath.Join(dir, adoptedPin)); err != nil {
		return fmt.Errorf("pin map of adopted interfaces: %w", err)
	}
	return nil
}

// counterPositions is how many interfaces map iface_counters has room for.
func counterPositions(patterns []string, interfaces int) int {
	spare := spareForNames
	if slices.ContainsFunc(patterns, isOpen) {
		spare = spareForPatterns
	}
	return min(interfaces+max(spare, interfaces), math.MaxUint16-1) // struct egate_iface has 16 bits for it
}

// isOpen tells whether a pattern can mean any number of interfaces.
func isOpen(pattern string) bool {
	return pattern == defaultPattern || strings.ContainsAny(pattern, `*?[\`)
}

// owner is an interface that a generation guards.
type owner struct {
	guarded
	position int
	part     uint32 // see sum
}

// readAdopted reads the map `adopted` in a generation's folder.
func readAdopted(dir string) (map[uint32]adoption, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, adoptedPin), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open map of adopted interfaces: %w", err)
	}
	defer m.Close()
	var key uint32
	var value adoption
	all := map[uint32]adoption{}
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		all[key] = value
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list adopted interfaces: %w", err)
	}
	return all, nil
}

// ownersOf tells who owns the positions of iface_counters, in their order.
func ownersOf(m *meta, adopted map[uint32]adoption) []owner {
	owners := make([]owner, 0, len(m.Interfaces)+len(adopted))
	for i, g := range m.Interfaces {
		if _, changed := adopted[uint32(i)]; !changed {
			owners = append(owners, owner{guarded: g, position: i})
		}
	}
	for position, a := range adopted {
		if a.Ifindex != 0 && position != onlyForDNS {
			owners = append(owners, owner{guarded: a.guarded(), position: int(position), part: a.Part})
		}
	}
	slices.SortFunc(owners, func(a, b owner) int { return cmp.Compare(a.position, b.position) })
	return owners
}

// onlyForDNS is the key in map `adopted` of an interface on which DNS is read
// and nothing judged: it has no counters.
const onlyForDNS = 1 << 31

// dnsOnly lists the interfaces on which DNS is read, and nothing judged.
func (gen *generation) dnsOnly() []guarded {
	only := slices.Clone(gen.meta.DNSOnly)
	if a, ok := gen.records[onlyForDNS]; ok && a.Ifindex != 0 {
		only = append(only, a.guarded())
	}
	return slices.DeleteFunc(only, func(g guarded) bool { return gen.owner(g.Index) != nil })
}

// owner gives who has an ifindex, nil if nobody.
func (gen *generation) owner(ifindex int) *owner {
	for i := range gen.owners {
		if gen.owners[i].Index == ifindex {
			return &gen.owners[i]
		}
	}
	return nil
}

// openWritable opens one of the generation's maps. The caller closes.
func (gen *generation) openWritable(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(gen.dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("open %s of generation %d: %w", name, gen.number, err)
	}
	return m, nil
}

// roster is the maps by which interfaces are adopted into a generation and let
// go again.
type roster struct {
	gen      *generation
	adopted  *ebpf.Map
	ifaces   *ebpf.Map
	counters *ebpf.Map
}

// openRoster opens a generation's. The caller holds the lock, and closes.
func openRoster(gen *generation) (*roster, error) {
	r := &roster{gen: gen}
	var err error
	for name, to := range map[string]**ebpf.Map{adoptedPin: &r.adopted, "ifaces": &r.ifaces, "iface_counters": &r.counters} {
		if *to, err = gen.openWritable(name); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

func (r *roster) close() {
	for _, m := range []*ebpf.Map{r.adopted, r.ifaces, r.counters} {
		m.Close()
	}
}

// enter makes the generation judge an interface, whose packets it lets pass
// until then. Its position is noted first, so that no later one takes it too if
// this is killed in between.
func (r *roster) enter(g guarded) error {
	if g.Index >= int(r.ifaces.MaxEntries()) {
		return fmt.Errorf("guard interface %s: its ifindex %d is beyond the %d that the policy has room for; apply the policy again: %w",
			g.Name, g.Index, r.ifaces.MaxEntries(), ErrInterface)
	}
	o := r.gen.owner(g.Index)
	if o == nil {
		position, ok := r.free()
		if !ok {
			return fmt.Errorf("guard interface %s: the policy has room for %d interfaces, and all is taken; apply the policy again: %w",
				g.Name, r.positions(), ErrInterface)
		}
		if err := r.note(position, newAdoption(g, nextPart(position, r.gen.records[position].Part))); err != nil {
			return err
		}
		o = r.gen.owner(g.Index)
	}
	if err := step("enter"); err != nil {
		return err
	}
	entry := abiEgateIface{Slot: uint16(o.position + 1), Link: g.Link}
	if err := r.ifaces.Put(uint32(g.Index), &entry); err != nil {
		return fmt.Errorf("write interfaces: %w", err)
	}
	return nil
}

// nextPart gives a number that no other adoption of the same generation has,
// unless it was the 65,535th but one at the same position.
func nextPart(position, last uint32) uint32 {
	times := last&math.MaxUint16 + 1
	if times > math.MaxUint16 {
		times = 1
	}
	return position<<16 | times
}

// positions is how many interfaces can be guarded at once.
func (r *roster) positions() uint32 { return r.counters.MaxEntries() / 2 }

// free finds a position that nobody owns.
func (r *roster) free() (position uint32, ok bool) {
	taken := map[int]bool{}
	for _, o := range r.gen.owners {
		taken[o.position] = true
	}
	for p := range r.positions() {
		if !taken[int(p)] {
			return p, true
		}
	}
	return 0, false
}

func (r *roster) note(position uint32, record adoption) error {
	if err := r.adopted.Put(position, &record); err != nil {
		return fmt.Errorf("note adopted interface: %w", err)
	}
	r.gen.records[position] = record
	r.gen.owners = ownersOf(r.gen.meta, r.gen.records)
	return nil
}

// letGo frees the positions of interfaces that are gone. Their counts go into
// the sums first; no processor may be inside the program for them any more.
func (r *roster) letGo(gone []owner, sums *ebpf.Map, keep []*generation) error {
	c, err := r.gen.counters()
	if err != nil {
		return err
	}
	for _, o := range gone {
		if err := step("let go"); err != nil {
			return err
		}
		if err := r.ifaces.Put(uint32(o.Index), &abiEgateIface{}); err != nil {
			return fmt.Errorf("write interfaces: %w", err)
		}
		if err := c.foldInterface(o, sums, keep); err != nil {
			return err
		}
		if err := clearPerCPU[abiEgateIfaceCounter](r.counters, uint32(2*o.position), uint32(2*o.position+1)); err != nil {
			return err
		}
		if err := r.note(uint32(o.position), adoption{Part: max(o.part, nextPart(uint32(o.position), 0))}); err != nil {
			return err
		}
	}
	return nil
}

// clearPerCPU sets elements of a per-CPU array to zero.
func clearPerCPU[T any](m *ebpf.Map, keys ...uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	zero := make([]T, cpus)
	for _, key := range keys {
		if err := m.Put(key, zero); err != nil {
			return fmt.Errorf("clear %v: %w", m, err)
		}
	}
	return nil
}

// matchesNow lists the interfaces that patterns mean at present. Those that
// can't be guarded are refused, each with a sentence of its own.
func matchesNow(patterns []string, links *linkTable) (found []guarded, refused []error, err error) {
	seen := map[int]bool{}
	for _, pattern := range patterns {
		for _, l := range links.all {
			a := l.Attrs()
			matches := pattern == defaultPattern && links.isDefault[a.Index]
			if pattern != defaultPattern {
				if matches, err = path.Match(pattern, a.Name); err != nil {
					return nil, nil, fmt.Errorf("match interfaces with %q: %w", pattern, err)
				}
			}
			if !matches || seen[a.Index] {
				continue
			}
			seen[a.Index] = true
			g, err := guardedOf(a)
			if errors.Is(err, ErrInterface) {
				refused = append(refused, err)
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			found = append(found, g)
		}
	}
	return found, refused, nil
}

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"egate/internal/policy"
	"egate/internal/tables"
)

// Names of the maps in state/. Those of the program have their names from
// bpf/include/maps.h.
const (
	abiMap        = "abi"        // u32: layout of all the others
	generationMap = "generation" // u32: the number last given away; never given twice while the state lives
	sumsMap       = "sums"       // counters of generations that are gone, see counters.go
	totalsMap     = "totals"
	flowsMap      = "flows"
	fragmentsMap  = "fragments"
	answerMap     = "answer_time"
	eventsMap     = "events"

	// twinSuffix marks a map that takes the place of its namesake once a
	// policy that uses it is in force for good.
	twinSuffix = "-new"
)

// stateMaps lists those that every gate has. Those that programs use stand last:
// where the state is replaced, they decide whether the replacement is in force,
// so they are renamed after the rest.
var stateMaps = []string{abiMap, generationMap, sumsMap, answerMap, fragmentsMap, eventsMap, flowsMap, totalsMap}

// programStateMaps are those that programs use.
var programStateMaps = stateMaps[3:]

// allStateMaps are those and the maps of names, which are there from the first
// policy on that uses names. The maps of a replacement take their places in
// this order.
var allStateMaps = slices.Concat(stateMaps, nameStateMaps)

// maxSums bounds the counters kept of rules and interfaces that are gone.
const maxSums = 65536

// state is the open maps, by name.
type state map[string]*ebpf.Map

func (s state) close() {
	for _, m := range s {
		m.Close()
	}
}

// abiVersion reads the layout version of the state.
func (g *gate) abiVersion() (uint32, error) {
	m, err := ebpf.LoadPinnedMap(g.path(statePin, abiMap), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("open version of the state: %w", err)
	}
	defer m.Close()
	var version uint32
	if err := m.Lookup(uint32(0), &version); err != nil {
		return 0, fmt.Errorf("read version of the state: %w", err)
	}
	return version, nil
}

// checkABI refuses state of another layout with ErrABI.
func (g *gate) checkABI() error {
	version, err := g.abiVersion()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("gate %s: its state has no version, this egate's is %d; `apply --replace-state` starts afresh with counters, connections and learned names at zero: %w", g.name, ABIVersion, ErrABI)
	}
	if err != nil {
		return explain(err)
	}
	if version != ABIVersion {
		return fmt.Errorf("gate %s: its state has version %d, this egate's is %d; `apply --replace-state` starts afresh with counters, connections and learned names at zero: %w", g.name, version, ABIVersion, ErrABI)
	}
	return nil
}

// openState opens the maps of the state, without those of names. The caller
// closes. What is missing is ErrDamaged.
func (g *gate) openState() (state, error) {
	s := state{}
	if err := g.openStateMaps(s, stateMaps); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openStateMaps opens maps and puts them into s, which the caller closes.
func (g *gate) openStateMaps(s state, names []string) error {
	for _, name := range names {
		m, err := ebpf.LoadPinnedMap(g.path(statePin, name), nil)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w; `apply --replace-state` starts afresh", err, ErrDamaged)
			}
			return fmt.Errorf("open %s of the state: %w", name, err)
		}
		s[name] = m
	}
	return nil
}

// newState makes all maps that the policy needs and pins them under their names
// with a suffix. The caller closes.
func (g *gate) newState(set *tables.Set, suffix string) (state, error) {
	if err := os.MkdirAll(g.path(statePin), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the state: %w", err)
	}
	specs, err := stateSpecs()
	if err != nil {
		return nil, err
	}
	specs[flowsMap].MaxEntries = freshFlows(set)
	s := state{}
	for _, name := range stateMaps {
		if err := g.newStateMap(s, specs[name], name, suffix); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s[abiMap].Put(uint32(0), ABIVersion); err != nil {
		s.close()
		return nil, fmt.Errorf("write version of the state: %w", err)
	}
	if !set.DNS.InUse {
		return s, nil
	}
	if err := g.newNameState(s, suffix); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// newStateMap makes one map and puts it into s.
func (g *gate) newStateMap(s state, spec *ebpf.MapSpec, name, suffix string) error {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("make %s of the state: %w", name, err)
	}
	if err := m.Pin(g.path(statePin, name+suffix)); err != nil {
		m.Close()
		return fmt.Errorf("pin %s of the state: %w", name, err)
	}
	if old := s[name]; old != nil {
		old.Close()
	}
	s[name] = m
	return nil
}

func stateSpecs() (map[string]*ebpf.MapSpec, error) {
	spec, err := loadPolicy()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %w", err)
	}
	specs := map[string]*ebpf.MapSpec{
		abiMap:        {Name: "egate_abi", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		generationMap: {Name: "egate_gen", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		sumsMap:       sumsSpec(),
		nameKeyMap:    {Name: "egate_name_key", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1},
		sweptMap:      {Name: "egate_swept", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: sweptEntries},
	}
	for _, name := range slices.Concat(programStateMaps, programNameMaps) {
		specs[name] = spec.Maps[name]
		if specs[name] == nil {
			return nil, fmt.Errorf("read embedded program: it has no map %s", name)
		}
	}
	for name, n := range nameMapSizes {
		specs[name].MaxEntries = n
	}
	return specs, nil
}

// nextGeneration gives a number away, for good.
func (s state) nextGeneration() (uint32, error) {
	var last uint32
	if err := s[generationMap].Lookup(uint32(0), &last); err != nil {
		return 0, fmt.Errorf("read last generation: %w", err)
	}
	if err := s[generationMap].Put(uint32(0), last+1); err != nil {
		return 0, fmt.Errorf("write last generation: %w", err)
	}
	return last + 1, nil
}

// One rule for the size of the connection table: a policy that tracks gets
// what it asks for, and one that does not keeps what is there, or the least
// where there is nothing.
func freshFlows(set *tables.Set) uint32 {
	if !tracks(set) {
		return policy.MinFlows
	}
	return set.MaxFlows
}

// resizeFlows makes a twin of the connection table if the policy asks for
// another size, and copies into it what is known.
func (g *gate) resizeFlows(s state, set *tables.Set) error {
	old := s[flowsMap]
	if !tracks(set) || old.MaxEntries() == set.MaxFlows {
		return nil
	}
	specs, err := stateSpecs()
	if err != nil {
		return err
	}
	specs[flowsMap].MaxEntries = set.MaxFlows
	from, err := old.Clone()
	if err != nil {
		return fmt.Errorf("hold the connection table: %w", err)
	}
	defer from.Close()
	if err := g.newStateMap(s, specs[flowsMap], flowsMap, twinSuffix); err != nil {
		return err
	}
	return copyFlows(from, s[flowsMap], true)
}

// settleTwins gives the twins the places of their namesakes if the policy in
// force uses them, and removes them otherwise. Where all maps of the state are
// replaced, those that the new one has not go too.
func (g *gate) settleTwins(current *generation) error {
	twins, err := g.twins()
	if err != nil || len(twins) == 0 {
		return err
	}
	inForce, err := g.usesTwin(current, twins)
	if err != nil {
		return err
	}
	if !inForce {
		return g.removeTwins(twins)
	}
	if err := step("twins"); err != nil {
		return err
	}
	if slices.Contains(twins, abiMap) {
		if err := g.removeWithoutTwin(twins); err != nil {
			return err
		}
	}
	slices.SortFunc(twins, func(a, b string) int { return slices.Index(allStateMaps, a) - slices.Index(allStateMaps, b) })
	for _, name := range twins {
		path := g.path(statePin, name)
		if name == flowsMap {
			if err := g.takeOverFlows(path, path+twinSuffix); err != nil {
				return err
			}
		}
		if err := os.Rename(path+twinSuffix, path); err != nil {
			return fmt.Errorf("replace %s of the state: %w", name, err)
		}
	}
	return nil
}

// usesTwin tells whether a generation works on one of the twins.
func (g *gate) usesTwin(gen *generation, twins []string) (bool, error) {
	for _, name := range twins {
		if !slices.Contains(programStateMaps, name) && !slices.Contains(programNameMaps, name) {
			continue
		}
		m, err := ebpf.LoadPinnedMap(g.path(statePin, name+twinSuffix), nil)
		if err != nil {
			return false, fmt.Errorf("open %s of the state: %w", name, err)
		}
		uses, err := gen.usesMap(m)
		m.Close()
		if uses || err != nil {
			return uses, err
		}
	}
	return false, nil
}

// takeOverFlows copies what was learned between the first copy and the switch.
// After `apply --replace-state` the old table has another layout: nothing to copy.
func (g *gate) takeOverFlows(oldPath, newPath string) error {
	if _, err := os.Stat(filepath.Join(g.path(statePin), totalsMap+twinSuffix)); err == nil {
		return nil
	}
	from, err := ebpf.LoadPinnedMap(oldPath, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open old connection table: %w", err)
	}
	defer from.Close()
	to, err := ebpf.LoadPinnedMap(newPath, nil)
	if err != nil {
		return fmt.Errorf("open new connection table: %w", err)
	}
	defer to.Close()
	return copyFlows(from, to, false)
}

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"egate/internal/tables"
)

// A gate whose state is of another version is taken over with a new state
// beside the old: every map gets a twin, the new policy is built on the twins,
// the switch is the same one write, and then the twins take the places of the
// old maps. Of the old pins only the slot, the dispatchers and the links are
// used, whose form is the same in all versions, and names.

// replaceState makes the twins. The caller closes.
func (g *gate) replaceState(set *tables.Set) (state, error) {
	s, err := g.newState(set, twinSuffix)
	if err != nil {
		return nil, err
	}
	// The new generation must not have the number of one that is there.
	dirs, err := g.generationDirs()
	if err != nil {
		s.close()
		return nil, err
	}
	var last uint32
	for _, number := range dirs {
		last = max(last, number)
	}
	if err := s[generationMap].Put(uint32(0), last); err != nil {
		s.close()
		return nil, fmt.Errorf("write last generation: %w", err)
	}
	return s, nil
}

// generationDirs lists the folders of complete generations by their paths.
func (g *gate) generationDirs() (map[string]uint32, error) {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	dirs := map[string]uint32{}
	for _, e := range entries {
		if number, ok := generationNumber(genPrefix, e.Name()); ok {
			dirs[g.path(e.Name())] = number
		}
	}
	return dirs, nil
}

// settleReplacement ends a replacement of the state that was begun: after the
// switch by removing what is left of the old version, before it by removing
// what there is of the new one.
func (g *gate) settleReplacement() error {
	if _, err := os.Stat(g.path(statePin, abiMap+twinSuffix)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("look at the state: %w", err)
	}
	slot, err := g.slot()
	if err != nil {
		return err
	}
	twins, err := g.twins()
	if err != nil {
		return err
	}
	dirs, err := g.generationDirs()
	if err != nil {
		return err
	}
	var fresh *generation // built on the twins
	var others []string
	for dir := range dirs {
		gen, err := openProgram(dir)
		if err != nil {
			return err
		}
		uses, err := g.usesTwin(gen, twins)
		if err != nil {
			gen.close()
			return err
		}
		if uses {
			defer gen.close()
			fresh = gen
			continue
		}
		gen.close()
		others = append(others, dir)
	}
	if err := g.removeAside(); err != nil {
		return err
	}
	if fresh == nil || fresh.program != slot {
		if fresh != nil {
			if err := removePins(fresh.dir); err != nil {
				return err
			}
		}
		return g.removeTwins(twins)
	}
	waitForPrograms()
	for _, dir := range others {
		if err := removePins(dir); err != nil {
			return err
		}
	}
	return g.settleTwins(fresh)
}

// openProgram opens as much of a generation as all versions have.
func openProgram(dir string) (*generation, error) {
	p, err := ebpf.LoadPinnedProgram(filepath.Join(dir, programPin), nil)
	if err != nil {
		return nil, fmt.Errorf("open program: %w", err)
	}
	id, err := programID(p)
	if err != nil {
		p.Close()
		return nil, err
	}
	return &generation{dir: dir, handle: p, program: id}, nil
}

// twins lists the maps of the state that have a twin.
func (g *gate) twins() ([]string, error) {
	entries, err := os.ReadDir(g.path(statePin))
	if err != nil {
		return nil, fmt.Errorf("list the state: %w", err)
	}
	var twins []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), twinSuffix); ok {
			twins = append(twins, name)
		}
	}
	return twins, nil
}

// removeWithoutTwin removes the maps of the old state that the new one has not,
// and what else another version kept there.
func (g *gate) removeWithoutTwin(twins []string) error {
	entries, err := os.ReadDir(g.path(statePin))
	if err != nil {
		return fmt.Errorf("list the state: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), twinSuffix) || slices.Contains(twins, e.Name()) {
			continue
		}
		if err := removePin(g.path(statePin, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeTwins removes them, the one by which they are found last.
func (g *gate) removeTwins(twins []string) error {
	for _, name := range twins {
		if name != abiMap {
			if err := removePin(g.path(statePin, name+twinSuffix)); err != nil {
				return err
			}
		}
	}
	return removePin(g.path(statePin, abiMap+twinSuffix))
}

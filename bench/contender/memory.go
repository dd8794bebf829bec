package contender

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// MapsMB is the kernel memory of all maps that the gate's pins hold, by the
// kernel's own account, in MB.
func (g *Gate) MapsMB() (float64, error) {
	maps, err := g.EachMapMB()
	total := 0.0
	for _, mb := range maps {
		total += mb
	}
	return total, err
}

// weight is the memory of one map.
type weight struct {
	name  string
	bytes uint64
}

// EachMapMB is the same by the names of the maps.
func (g *Gate) EachMapMB() (map[string]float64, error) {
	weights := map[ebpf.MapID]weight{}
	err := filepath.WalkDir(g.BPFFS+"/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			defer m.Close()
			return weigh(m, weights)
		}
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return nil // a link, or one of the files that the kernel puts there
		}
		defer p.Close()
		return weighProgram(p, weights)
	})
	if err != nil {
		return nil, fmt.Errorf("weigh maps: %w", err)
	}
	out := map[string]float64{}
	for _, w := range weights {
		out[w.name] += float64(w.bytes) / 1e6
	}
	return out, nil
}

// weighProgram adds the maps that a program uses, pinned or not.
func weighProgram(p *ebpf.Program, weights map[ebpf.MapID]weight) error {
	info, err := p.Info()
	if err != nil {
		return err
	}
	ids, ok := info.MapIDs()
	if !ok {
		return errors.New("this kernel does not name a program's maps")
	}
	for _, id := range ids {
		if err := weighID(id, weights); err != nil {
			return err
		}
	}
	return nil
}

func weighID(id ebpf.MapID, weights map[ebpf.MapID]weight) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	defer m.Close()
	return weigh(m, weights)
}

// weigh adds a map, and the maps inside it.
func weigh(m *ebpf.Map, weights map[ebpf.MapID]weight) error {
	info, err := m.Info()
	if err != nil {
		return err
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("this kernel does not number maps")
	}
	if _, done := weights[id]; done {
		return nil
	}
	memory, ok := info.Memlock()
	if !ok {
		return errors.New("this kernel does not tell a map's memory")
	}
	weights[id] = weight{info.Name, memory}
	if m.Type() != ebpf.ArrayOfMaps && m.Type() != ebpf.HashOfMaps {
		return nil
	}
	var inner ebpf.MapID
	var key []byte
	for entries := m.Iterate(); entries.Next(&key, &inner); {
		if err := weighID(inner, weights); err != nil {
			return err
		}
	}
	return nil
}

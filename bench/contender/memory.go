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
	bytes := map[ebpf.MapID]uint64{}
	err := filepath.WalkDir(g.BPFFS+"/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			defer m.Close()
			return weigh(m, bytes)
		}
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return nil // a link, or one of the files that the kernel puts there
		}
		defer p.Close()
		return weighProgram(p, bytes)
	})
	if err != nil {
		return 0, fmt.Errorf("weigh maps: %w", err)
	}
	total := uint64(0)
	for _, n := range bytes {
		total += n
	}
	return float64(total) / 1e6, nil
}

// weighProgram adds the maps that a program uses, pinned or not.
func weighProgram(p *ebpf.Program, bytes map[ebpf.MapID]uint64) error {
	info, err := p.Info()
	if err != nil {
		return err
	}
	ids, ok := info.MapIDs()
	if !ok {
		return errors.New("this kernel does not name a program's maps")
	}
	for _, id := range ids {
		if err := weighID(id, bytes); err != nil {
			return err
		}
	}
	return nil
}

func weighID(id ebpf.MapID, bytes map[ebpf.MapID]uint64) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	defer m.Close()
	return weigh(m, bytes)
}

// weigh adds a map, and the maps inside it.
func weigh(m *ebpf.Map, bytes map[ebpf.MapID]uint64) error {
	info, err := m.Info()
	if err != nil {
		return err
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("this kernel does not number maps")
	}
	if _, done := bytes[id]; done {
		return nil
	}
	memory, ok := info.Memlock()
	if !ok {
		return errors.New("this kernel does not tell a map's memory")
	}
	bytes[id] = memory
	if m.Type() != ebpf.ArrayOfMaps && m.Type() != ebpf.HashOfMaps {
		return nil
	}
	var inner ebpf.MapID
	var key []byte
	for entries := m.Iterate(); entries.Next(&key, &inner); {
		if err := weighID(inner, bytes); err != nil {
			return err
		}
	}
	return nil
}

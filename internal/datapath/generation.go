package datapath

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/tables"
	"egate/internal/verdict"
)

// meta is what people want to know of a policy that the kernel does not: kept
// as JSON in an array map of one value, so that it comes and goes with it.
type meta struct {
	Gate        string        `json:"gate"`
	Generation  uint32        `json:"generation"`
	Policy      string        `json:"policy"`
	Path        string        `json:"path"`
	SHA256      string        `json:"sha256"`
	Applied     time.Time     `json:"applied"`
	Audit       bool          `json:"audit"`
	Netns       netnsID       `json:"netns"`
	Hook        string        `json:"hook"`
	Place       Place         `json:"place"`
	Patterns    []string      `json:"patterns"`
	Interfaces  []guarded     `json:"interfaces"`             // in the order of their numbers in iface_counters
	HostServers bool          `json:"host_servers,omitempty"` // the servers whose answers count are those that the host uses
	DNSOnly     []guarded     `json:"dns_only,omitempty"`     // interfaces on which DNS is read, and nothing judged
	Chains      [2]metaChain  `json:"chains"`                 // by verdict.Direction
	Names       *metaNames    `json:"names,omitempty"`        // nil where the policy does not read DNS answers
	Confirm     time.Duration `json:"confirm_ns,omitempty"`

	DeadlineBoot time.Duration `json:"deadline_boot_ns,omitempty"` // CLOCK_BOOTTIME; only with a guard
	Guarded      time.Time     `json:"guarded,omitzero"`           // when the guard got its deadline
}

// metaChain is a direction's rules.
type metaChain struct {
	Default verdict.Action `json:"default"`
	Replies bool           `json:"replies"`
	Rules   []metaRule     `json:"rules"`
}

type metaRule struct {
	Name   string         `json:"name,omitempty"`
	Label  string         `json:"label"`
	Line   int            `json:"line"`
	Action verdict.Action `json:"action"`

	// Only of rules that stand for several of the policy.
	Merged   int `json:"merged,omitempty"` // how many
	LastLine int `json:"last_line,omitempty"`
}

func metaChains(set *tables.Set) (chains [2]metaChain) {
	for d := range set.Chains {
		c := &set.Chains[d]
		chains[d] = metaChain{Default: c.Default, Replies: c.Replies, Rules: make([]metaRule, len(c.Rules))}
		for i, r := range c.Rules {
			rule := metaRule{Name: r.Name, Label: r.Label, Line: r.Line, Action: r.Action}
			if r.Merged() {
				rule.Merged, rule.LastLine = r.Count, r.LastLine
			}
			chains[d].Rules[i] = rule
		}
	}
	return chains
}

// metaNames says where the rules that list a name stand in map `vectors`.
type metaNames struct {
	Used   bool   `json:"used"`   // a rule lists names
	First  uint32 `json:"first"`  // position of class 0's row
	Stride uint32 `json:"stride"` // words of a row
	Words  uint32 `json:"words"`  // of a vector
}

func metaNamesOf(egress *abiEgateChain) *metaNames {
	const d = tables.Name
	return &metaNames{Used: egress.Used[d] != 0, First: egress.Vectors[d], Stride: egress.Strides[d], Words: egress.Words}
}

// newMetaMap keeps m in a map. The caller closes it.
func newMetaMap(m *meta) (*ebpf.Map, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode what is known of the policy: %w", err)
	}
	out, err := ebpf.NewMap(&ebpf.MapSpec{Name: "egate_meta", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(text)), MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make map for what is known of the policy: %w", err)
	}
	if err := out.Put(uint32(0), text); err != nil {
		out.Close()
		return nil, fmt.Errorf("write what is known of the policy: %w", err)
	}
	return out, nil
}

func readMeta(path string) (*meta, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open what is known of the policy: %w", err)
	}
	defer m.Close()
	text, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("read what is known of the policy: %w", err)
	}
	var out meta
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("decode what is known of the policy: %w", err)
	}
	return &out, nil
}

// generation is one policy as it is pinned.
type generation struct {
	number  uint32
	dir     string
	meta    *meta
	program ebpf.ProgramID
	guard   ebpf.ProgramID // 0 without one

	handle *ebpf.Program // of program

	records map[uint32]adoption // map `adopted`
	owners  []owner             // by position in iface_counters; what meta and records say together
}

// generations lists the complete ones, oldest first. The caller closes them.
func (g *gate) generations() ([]*generation, error) {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	var all []*generation
	for _, e := range entries {
		number, ok := generationNumber(genPrefix, e.Name())
		if !ok {
			continue
		}
		gen, err := openGeneration(g.path(e.Name()), number)
		if err != nil {
			for _, opened := range all {
				opened.close()
			}
			if !errors.Is(err, fs.ErrPermission) {
				err = fmt.Errorf("%w; `egate off` removes the gate: %w", err, ErrDamaged)
			}
			return nil, fmt.Errorf("open generation %d: %w", number, err)
		}
		all = append(all, gen)
	}
	slices.SortFunc(all, func(a, b *generation) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

func generationNumber(prefix, name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 32)
	return uint32(number), err == nil
}

func openGeneration(dir string, number uint32) (*generation, error) {
	gen := &generation{number: number, dir: dir}
	var err error
	if gen.meta, err = readMeta(filepath.Join(dir, metaPin)); err != nil {
		return nil, err
	}
	if gen.records, err = readAdopted(dir); err != nil {
		return nil, err
	}
	gen.owners = ownersOf(gen.meta, gen.records)
	if gen.handle, err = ebpf.LoadPinnedProgram(filepath.Join(dir, programPin), nil); err != nil {
		return nil, fmt.Errorf("open program: %w", err)
	}
	if gen.program, err = programID(gen.handle); err != nil {
		gen.close()
		return nil, err
	}
	guard, err := ebpf.LoadPinnedProgram(filepath.Join(dir, guardPin), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return gen, nil
	}
	if err != nil {
		gen.close()
		return nil, fmt.Errorf("open guard: %w", err)
	}
	defer guard.Close()
	if gen.guard, err = programID(guard); err != nil {
		gen.close()
		return nil, err
	}
	return gen, nil
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for program id: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, fmt.Errorf("ask for program id: the kernel tells none: %w", ErrUnsupported)
	}
	return id, nil
}

// usesMap tells whether the generation's program works on a map.
func (gen *generation) usesMap(m *ebpf.Map) (bool, error) {
	info, err := gen.handle.Info()
	if err != nil {
		return false, fmt.Errorf("ask for the program's maps: %w", err)
	}
	used, ok := info.MapIDs()
	if !ok {
		return false, fmt.Errorf("ask for the program's maps: the kernel tells none: %w", ErrUnsupported)
	}
	mapInfo, err := m.Info()
	if err != nil {
		return false, fmt.Errorf("ask for map id: %w", err)
	}
	id, ok := mapInfo.ID()
	if !ok {
		return false, fmt.Errorf("ask for map id: the kernel tells none: %w", ErrUnsupported)
	}
	return slices.Contains(used, id), nil
}

// openMap opens one of the generation's maps for reading. The caller closes.
func (gen *generation) openMap(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(gen.dir, name), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open %s of generation %d: %w", name, gen.number, err)
	}
	return m, nil
}

func (gen *generation) close() { gen.handle.Close() }

// attached lists the interfaces that the generation's dispatchers are to be on.
func (gen *generation) attached() []guarded {
	all := gen.dnsOnly()
	for _, o := range gen.owners {
		all = append(all, o.guarded)
	}
	return all
}

// openGuard opens the guard. The caller closes it.
func (gen *generation) openGuard() (*ebpf.Program, error) {
	p, err := ebpf.LoadPinnedProgram(filepath.Join(gen.dir, guardPin), nil)
	if err != nil {
		return nil, fmt.Errorf("open guard: %w", err)
	}
	return p, nil
}

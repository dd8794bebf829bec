package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"egate/internal/tables"
	"egate/internal/verdict"
)

// fillBatch is how many elements are written with one call.
const fillBatch = 1 << 16

// plan is all that a generation is built from.
type plan struct {
	set        *tables.Set
	interfaces []guarded
	meta       *meta
	secret     uint64
	state      state
	servers    []netip.Addr  // whose answers open names; nil where the policy does not read any
	previous   *generation   // what the guard goes back to; nil if nothing is in force
	confirm    time.Duration // 0: no guard
}

// loaded is a generation's objects as they come from the verifier.
type loaded struct {
	policyPrograms
	policyMaps
	config abiEgatePolicyConfig
}

// build loads a generation aside and pins it, complete or not at all. What a
// failure leaves behind, settle removes.
func (g *gate) build(p *plan) (*generation, error) {
	number := p.meta.Generation
	aside := g.path(fmt.Sprintf("%s%d", newPrefix, number))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the generation: %w", err)
	}
	if err := step("load"); err != nil {
		return nil, err
	}
	objects, err := p.load()
	if err != nil {
		return nil, err
	}
	defer objects.policyMaps.Close()
	defer objects.policyPrograms.Close()
	if p.set.DNS.InUse {
		p.meta.Names = metaNamesOf(&objects.config.Chain[verdict.Egress])
	}
	if p.confirm > 0 {
		if err := g.buildGuard(p, objects.EgatePolicy, aside); err != nil {
			return nil, err
		}
	}
	if err := step("pin"); err != nil {
		return nil, err
	}
	if err := pinGeneration(objects, aside, p.set.DNS.InUse); err != nil {
		return nil, err
	}
	if err := newAdoptedMap(p.meta, aside); err != nil {
		return nil, err
	}
	about, err := newMetaMap(p.meta)
	if err != nil {
		return nil, err
	}
	defer about.Close()
	if err := about.Pin(filepath.Join(aside, metaPin)); err != nil {
		return nil, fmt.Errorf("pin what is known of the policy: %w", err)
	}
	if err := step("rename"); err != nil {
		return nil, err
	}
	dir := g.path(fmt.Sprintf("%s%d", genPrefix, number))
	if err := os.Rename(aside, dir); err != nil {
		return nil, fmt.Errorf("rename generation: %w", err)
	}
	return openGeneration(dir, number)
}

// load creates the generation's maps with exactly the sizes it needs, fills
// them, and loads the program on them and on the maps of the state.
func (p *plan) load() (*loaded, error) {
	key, err := p.state.nameKey()
	if err != nil {
		return nil, err
	}
	c := encode(p.set, p.meta.Generation, p.secret, key)
	names := &p.set.Chains[verdict.Egress].Names
	c.domainHashes, c.domains, err = encodeDomains(names, key)
	if err != nil {
		return nil, err
	}
	spec, err := loadPolicy()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %w", err)
	}
	if err := spec.Variables["config"].Set(c.config); err != nil {
		return nil, fmt.Errorf("set constants of the program: %w", err)
	}
	sizes := map[string]int{
		"lines": c.lines.count, "cache": int(c.cachePages), "protos": len(c.protos),
		"pages": len(c.pages), vectorsMap: len(c.vectors),
		"rules": len(c.rules), "rule_counters": len(c.rules), "event_times": len(c.rules),
		"ifaces": int(ifaceEntries(p.interfaces)), "iface_counters": 2 * counterPositions(p.meta.Patterns, len(p.interfaces)),
		domainsMap: len(c.domains), nameEpochsMap: 1,
	}
	if p.set.DNS.InUse {
		sizes[nameEpochsMap] = int(abiEgateLimitEGATE_LIMIT_NAME_EPOCHS)
	}
	for name, n := range sizes {
		spec.Maps[name].MaxEntries = uint32(max(1, n))
	}
	replacements := map[string]*ebpf.Map{}
	replace := func(names []string) {
		for _, name := range names {
			replacements[name] = p.state[name]
			spec.Maps[name].MaxEntries = p.state[name].MaxEntries()
		}
	}
	replace(programStateMaps)
	if p.set.DNS.InUse {
		replace(programNameMaps)
	} else {
		// Nothing reads or writes them; a ring has a page at least.
		spec.Maps[unreadMap].MaxEntries = uint32(os.Getpagesize())
		spec.Maps[resolversMap].MaxEntries = 1
	}
	objects := loaded{config: c.config}
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{MapReplacements: replacements}); err != nil {
		return nil, explain(fmt.Errorf("load program: %w", err))
	}
	if err := p.fill(c, &objects); err != nil {
		objects.policyMaps.Close()
		objects.policyPrograms.Close()
		return nil, err
	}
	return &objects, nil
}

// fill writes the tables into the maps, and closes those for further writing
// that nobody changes: interfaces come later too.
func (p *plan) fill(c *content, o *loaded) error {
	if err := step("fill"); err != nil {
		return err
	}
	for i, g := range p.interfaces {
		entry := abiEgateIface{Slot: uint16(i + 1), Link: g.Link}
		if err := o.Ifaces.Put(uint32(g.Index), &entry); err != nil {
			return fmt.Errorf("write interfaces: %w", err)
		}
	}
	for _, g := range p.meta.DNSOnly {
		if err := o.Ifaces.Put(uint32(g.Index), &abiEgateIface{Link: g.Link, DnsOnly: 1}); err != nil {
			return fmt.Errorf("write interfaces: %w", err)
		}
	}
	err := fillMapped(o.Lines, c.lines.list...)
	if err == nil {
		err = fillArray(o.Protos, c.protos)
	}
	if err == nil {
		err = fillArray(o.Pages, c.pages)
	}
	if err == nil {
		err = fillMapped(o.Vectors, c.vectors)
	}
	if err == nil {
		err = fillArray(o.Rules, c.rules)
	}
	if err == nil {
		err = fillHash(o.Domains, c.domainHashes, c.domains)
	}
	if err == nil && p.set.DNS.InUse {
		err = fillResolvers(o.Resolvers, resolverFlags(&p.set.DNS, p.servers))
	}
	if err != nil {
		return err
	}
	for _, m := range []*ebpf.Map{o.Lines, o.Protos, o.Pages, o.Vectors, o.Rules, o.Domains} {
		if err := m.Freeze(); err != nil {
			return fmt.Errorf("freeze %v: %w", m, err)
		}
	}
	return nil
}

// fillMapped copies parts one behind the other into a mappable array whose
// elements have their layout.
func fillMapped[T any](m *ebpf.Map, parts ...[]T) error {
	size := 0
	for _, part := range parts {
		size += len(bytesOf(part))
	}
	if size == 0 {
		return nil
	}
	to, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %v: %w", m, err)
	}
	at := 0
	for _, part := range parts {
		at += copy(to[at:], bytesOf(part))
	}
	// Until it is unmapped the map can't be frozen.
	if err := unix.Munmap(to); err != nil {
		return fmt.Errorf("unmap %v: %w", m, err)
	}
	return nil
}

// bytesOf is the memory of values, which hold no pointers.
func bytesOf[T any](values []T) []byte {
	if len(values) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), uintptr(len(values))*unsafe.Sizeof(values[0]))
}

// fillArray writes values to the first places of an array, many a call.
func fillArray[T any](m *ebpf.Map, values []T) error {
	keys := make([]uint32, min(len(values), fillBatch))
	for first := 0; first < len(values); first += fillBatch {
		part := values[first:min(first+fillBatch, len(values))]
		for i := range part {
			keys[i] = uint32(first + i)
		}
		if _, err := m.BatchUpdate(keys[:len(part)], part, nil); err != nil {
			return fmt.Errorf("write %v: %w", m, err)
		}
	}
	return nil
}

// fillHash writes pairs to a hash, many a call.
func fillHash[K, V any](m *ebpf.Map, keys []K, values []V) error {
	for first := 0; first < len(keys); first += fillBatch {
		end := min(first+fillBatch, len(keys))
		if _, err := m.BatchUpdate(keys[first:end], values[first:end], nil); err != nil {
			return fmt.Errorf("write %v: %w", m, err)
		}
	}
	return nil
}

// pinGeneration pins the program and those of its own maps that are read or
// written later; with names also what tells the rules that list a name.
func pinGeneration(o *loaded, dir string, names bool) error {
	if err := o.EgatePolicy.Pin(filepath.Join(dir, programPin)); err != nil {
		return explain(fmt.Errorf("pin program: %w", err))
	}
	maps := map[string]*ebpf.Map{
		"ifaces": o.Ifaces, "rule_counters": o.RuleCounters, "iface_counters": o.IfaceCounters, "event_times": o.EventTimes,
	}
	if names {
		maps[resolversMap], maps[nameEpochsMap] = o.Resolvers, o.NameEpochs
		maps[domainsMap], maps[vectorsMap] = o.Domains, o.Vectors
	}
	for name, m := range maps {
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			return explain(fmt.Errorf("pin %s: %w", name, err))
		}
	}
	return nil
}

// buildGuard loads the program that stands in the active slot while a
// confirmation is pending, with the two policies behind it.
func (g *gate) buildGuard(p *plan, program *ebpf.Program, dir string) error {
	now, err := bootTime()
	if err != nil {
		return err
	}
	p.meta.Confirm, p.meta.DeadlineBoot, p.meta.Guarded = p.confirm, now+p.confirm, time.Now().Round(0)
	spec, err := loadDispatch()
	if err != nil {
		return fmt.Errorf("read embedded dispatcher: %w", err)
	}
	if err := spec.Variables["deadline_boot_ns"].Set(uint64(p.meta.DeadlineBoot)); err != nil {
		return fmt.Errorf("set deadline of the guard: %w", err)
	}
	var objects struct {
		Guard   *ebpf.Program `ebpf:"egate_guard"`
		Pending *ebpf.Map     `ebpf:"pending"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return explain(fmt.Errorf("load guard: %w", err))
	}
	defer objects.Guard.Close()
	defer objects.Pending.Close()
	if err := objects.Pending.Put(uint32(0), program); err != nil {
		return fmt.Errorf("put new policy behind the guard: %w", err)
	}
	if p.previous != nil {
		if err := objects.Pending.Put(uint32(1), p.previous.handle); err != nil {
			return fmt.Errorf("put policy before behind the guard: %w", err)
		}
	}
	// The pin is needed: the kernel empties a program array that nobody holds.
	if err := objects.Pending.Pin(filepath.Join(dir, pendingPin)); err != nil {
		return fmt.Errorf("pin what is pending: %w", err)
	}
	if err := objects.Guard.Pin(filepath.Join(dir, guardPin)); err != nil {
		return fmt.Errorf("pin guard: %w", err)
	}
	return nil
}

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"egate/internal/policy"
	"egate/internal/verdict"
)

// A generation counts by a rule's position. When it goes, what it counted for
// rules with a name, for each direction's default and for interfaces is added
// to the map `sums`, and the next one with that name carries on.
//
// The sum and the number of the generation that was added last are one value,
// written with one call; so a writer that was killed half way is followed by one
// that skips what is done. One generation is folded at a time, to its end.

// sumKind tells what a sum is of.
type sumKind uint8

const (
	sumRule      sumKind = 1
	sumDefault   sumKind = 2 // Name is empty
	sumInterface sumKind = 3 // Name is "IFINDEX NAME"
)

// sumKey is the key of map `sums`. Programs do not use the map.
type sumKey struct {
	Kind      sumKind
	Direction uint8
	Name      [policy.MaxNameLength + 1]byte
}

// sum is the value of map `sums`. An interface that was adopted, is gone and
// comes back under its old name and index is added twice for one generation: its
// adoptions are parts with numbers of their own.
type sum struct {
	Folded  uint32    // the generation that was added last
	Part    uint32    // and which part of it; 0 but for adopted interfaces
	Packets [4]uint64 // by verdict.Action
	Bytes   [4]uint64
}

func sumsSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "egate_sums", Type: ebpf.Hash, KeySize: policy.MaxNameLength + 3, ValueSize: 72, MaxEntries: maxSums,
		// Without preallocation an update replaces the whole element, so that a
		// reader never meets half of one.
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

func ruleKey(d verdict.Direction, name string) sumKey { return newSumKey(sumRule, d, name) }

func defaultKey(d verdict.Direction) sumKey { return newSumKey(sumDefault, d, "") }

func interfaceKey(d verdict.Direction, g guarded) sumKey {
	return newSumKey(sumInterface, d, fmt.Sprintf("%d %s", g.Index, g.Name))
}

func newSumKey(kind sumKind, d verdict.Direction, name string) sumKey {
	k := sumKey{Kind: kind, Direction: uint8(d)}
	copy(k.Name[:], name)
	return k
}

// add adds counters of the same shape.
func (s *sum) add(packets, bytes []uint64) {
	for i := range packets {
		s.Packets[i] += packets[i]
		s.Bytes[i] += bytes[i]
	}
}

// has tells whether a part of a generation was added last.
func (s *sum) has(generation, part uint32) bool { return s.Folded == generation && s.Part == part }

func (s *sum) isZero() bool { return s.Packets == [4]uint64{} && s.Bytes == [4]uint64{} }

// counted is what one generation counted.
type counted struct {
	generation uint32
	meta       *meta
	owners     []owner
	rules      [2][]sum // by position; the default stands last
	interfaces [2][]sum // as owners
}

// newCounted is counters that are all zero.
func newCounted(gen *generation) *counted {
	c := &counted{generation: gen.number, meta: gen.meta, owners: slices.Clone(gen.owners)}
	for _, d := range verdict.Directions {
		c.rules[d] = make([]sum, len(gen.meta.Chains[d].Rules)+1)
		c.interfaces[d] = make([]sum, len(c.owners))
	}
	return c
}

// counters reads what a generation has counted so far. It gives errMoved if
// interfaces were adopted or let go meanwhile.
func (gen *generation) counters() (*counted, error) {
	out := newCounted(gen)
	rules, err := gen.openMap("rule_counters")
	if err != nil {
		return nil, err
	}
	defer rules.Close()
	ifaces, err := gen.openMap("iface_counters")
	if err != nil {
		return nil, err
	}
	defer ifaces.Close()

	position := uint32(0)
	var perRule []abiEgateRuleCounter
	var perIface []abiEgateIfaceCounter
	for _, d := range verdict.Directions {
		for i := range out.rules[d] {
			if err := rules.Lookup(position, &perRule); err != nil {
				return nil, fmt.Errorf("read rule counters: %w", err)
			}
			for cpu := range perRule {
				out.rules[d][i].add(perRule[cpu].Packets[:], perRule[cpu].Bytes[:])
			}
			position++
		}
		for i, o := range out.owners {
			if err := ifaces.Lookup(uint32(2*o.position+int(d)), &perIface); err != nil {
				return nil, fmt.Errorf("read interface counters: %w", err)
			}
			for cpu := range perIface {
				out.interfaces[d][i].add(perIface[cpu].Packets[:], perIface[cpu].Bytes[:])
			}
		}
	}
	if now, err := readAdopted(gen.dir); err != nil || !maps.Equal(now, gen.records) {
		return nil, errors.Join(err, errMoved)
	}
	return out, nil
}

// each calls f for every counter that outlives its generation, with its part.
func (c *counted) each(f func(sumKey, uint32, *sum) error) error {
	for _, d := range verdict.Directions {
		rules := c.meta.Chains[d].Rules
		for i := range c.rules[d] {
			key := defaultKey(d)
			if i < len(rules) {
				if rules[i].Name == "" {
					continue
				}
				key = ruleKey(d, rules[i].Name)
			}
			if err := f(key, 0, &c.rules[d][i]); err != nil {
				return err
			}
		}
		for i, o := range c.owners {
			if err := f(interfaceKey(d, o.guarded), o.part, &c.interfaces[d][i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fold adds what a generation counted to the sums. It must not count any more:
// no processor may be inside its program. keep tells which names the policies
// in force have, for the case that the sums are full.
func (gen *generation) fold(sums *ebpf.Map, keep []*generation) error {
	c, err := gen.counters()
	if err != nil {
		return err
	}
	return c.each(func(key sumKey, part uint32, delta *sum) error {
		return c.foldOne(sums, key, part, delta, append(slices.Clone(keep), gen))
	})
}

// foldInterface adds what was counted of one owner to the sums.
func (c *counted) foldInterface(o owner, sums *ebpf.Map, keep []*generation) error {
	i := slices.Index(c.owners, o)
	if i < 0 {
		return nil
	}
	for _, d := range verdict.Directions {
		if err := c.foldOne(sums, interfaceKey(d, o.guarded), o.part, &c.interfaces[d][i], keep); err != nil {
			return err
		}
	}
	return nil
}

func (c *counted) foldOne(sums *ebpf.Map, key sumKey, part uint32, delta *sum, keep []*generation) error {
	if delta.isZero() {
		return nil
	}
	var total sum
	if err := sums.Lookup(&key, &total); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read sums: %w", err)
	}
	if total.has(c.generation, part) {
		return nil
	}
	total.Folded, total.Part = c.generation, part
	total.add(delta.Packets[:], delta.Bytes[:])
	err := sums.Put(&key, &total)
	if errors.Is(err, unix.E2BIG) {
		if err := prune(sums, keep); err != nil {
			return err
		}
		err = sums.Put(&key, &total)
	}
	if err != nil {
		return fmt.Errorf("write sums: %w", err)
	}
	return nil
}

// prune drops the sums of names that none of the generations has.
func prune(sums *ebpf.Map, keep []*generation) error {
	known := map[sumKey]bool{}
	for _, gen := range keep {
		note := func(key sumKey, _ uint32, _ *sum) error { known[key] = true; return nil }
		if err := newCounted(gen).each(note); err != nil {
			return err
		}
	}
	var key sumKey
	var value sum
	var drop []sumKey
	entries := sums.Iterate()
	for entries.Next(&key, &value) {
		if !known[key] {
			drop = append(drop, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list sums: %w", err)
	}
	for i := range drop {
		if err := sums.Delete(&drop[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("drop sum: %w", err)
		}
	}
	return nil
}

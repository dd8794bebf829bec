package compile

import (
	"hash/maphash"
	"slices"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
)

// asks is what a block's rules ask for together, as in policy.Rule.
type asks struct {
	to, from              *ipset.Set
	services, sourcePorts []policy.Service
	domains               *domain.Set
}

// unite makes dimension d the union of that of all blocks. A block that does
// not ask there matches whatever is there, and so does the union. d is one of
// mergeOrder.
func (a *asks) unite(blocks []block, d tables.Dimension) {
	anything := slices.ContainsFunc(blocks, func(b block) bool { return !b.asks.has(d) })
	switch d {
	case tables.Destination, tables.Source:
		set := a.set(d)
		if anything {
			*set = nil
			return
		}
		n := 0
		for i := range blocks {
			n += len((*blocks[i].set(d)).Ranges())
		}
		ranges := make([]ipset.Range, 0, n)
		for i := range blocks {
			ranges = append(ranges, (*blocks[i].set(d)).Ranges()...)
		}
		*set = ipset.New(ranges)
	default:
		list := a.list(d)
		if anything {
			*list = nil
			return
		}
		all := []policy.Service{}
		for i := range blocks {
			all = append(all, *blocks[i].list(d)...)
		}
		*list = canonical(all)
	}
}

func (a *asks) set(d tables.Dimension) **ipset.Set {
	if d == tables.Source {
		return &a.from
	}
	return &a.to
}

func (a *asks) list(d tables.Dimension) *[]policy.Service {
	if d == tables.SourcePort {
		return &a.sourcePorts
	}
	return &a.services
}

// has tells whether a asks for anything in dimension d.
func (a *asks) has(d tables.Dimension) bool {
	switch d {
	case tables.Destination, tables.Source:
		return *a.set(d) != nil
	case tables.Name:
		return a.domains != nil
	}
	return *a.list(d) != nil
}

// equalBut tells whether a and b ask for the same in all dimensions but d, one
// of mergeOrder.
func (a *asks) equalBut(b *asks, d tables.Dimension) bool {
	return (d == tables.Destination || equalSets(a.to, b.to)) &&
		(d == tables.Source || equalSets(a.from, b.from)) &&
		(d == tables.Service || equalLists(a.services, b.services)) &&
		(d == tables.SourcePort || equalLists(a.sourcePorts, b.sourcePorts)) &&
		equalDomains(a.domains, b.domains)
}

func equalSets(a, b *ipset.Set) bool {
	return a == b || a != nil && b != nil && a.Equal(b)
}

func equalDomains(a, b *domain.Set) bool {
	return a == b || a != nil && b != nil && a.Equal(b)
}

func equalLists(a, b []policy.Service) bool {
	return (a == nil) == (b == nil) && slices.Equal(a, b)
}

// hashBut is equal for what equalBut calls equal.
func (a *asks) hashBut(but tables.Dimension, seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, d := range mergeOrder {
		if d == but || !a.has(d) {
			continue
		}
		h.WriteByte(byte(d))
		switch d {
		case tables.Destination, tables.Source:
			for _, r := range (*a.set(d)).Ranges() {
				maphash.WriteComparable(&h, r)
			}
		default:
			for _, s := range *a.list(d) {
				maphash.WriteComparable(&h, s)
			}
		}
	}
	if a.domains != nil {
		h.WriteByte(byte(tables.Name))
		for _, p := range a.domains.Patterns() {
			maphash.WriteComparable(&h, p)
		}
	}
	return h.Sum64()
}

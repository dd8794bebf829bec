package compile

import (
	"cmp"
	"encoding/binary"
	"slices"

	"egate/internal/policy"
	"egate/internal/tables"
)

// serviceGroups is the rules' distinct lists of services.
type serviceGroups struct {
	grouping
	lists [][]policy.Service // of each group, in canonical form
}

// groupServices groups rules by the services they ask for in dimension d.
func groupServices(rules []policy.Rule, d tables.Dimension) serviceGroups {
	g := serviceGroups{grouping: newGrouping(len(rules))}
	byContent := map[string]int{}
	for i := range rules {
		list := rules[i].Services
		if d == tables.SourcePort {
			list = rules[i].SourcePorts
		}
		if list == nil {
			g.add(none)
			continue
		}
		list = canonical(list)
		key := contentKey(list)
		group, known := byContent[key]
		if !known {
			group = len(g.lists)
			g.lists = append(g.lists, list)
			byContent[key] = group
		}
		g.add(group)
	}
	return g
}

// canonical sorts a list, merges ranges that touch, and leaves ranges of
// protocols out that it holds whole. Lists that match the same are equal then.
func canonical(list []policy.Service) []policy.Service {
	sorted := slices.Clone(list)
	for i := range sorted {
		if sorted[i].Whole {
			sorted[i].First, sorted[i].Last = 0, 0
		}
	}
	slices.SortFunc(sorted, func(a, b policy.Service) int {
		switch {
		case a.Proto != b.Proto:
			return cmp.Compare(a.Proto, b.Proto)
		case a.Whole != b.Whole && a.Whole:
			return -1
		case a.Whole != b.Whole:
			return 1
		}
		return cmp.Compare(a.First, b.First)
	})
	out := sorted[:0]
	for _, s := range sorted {
		if n := len(out); n > 0 && out[n-1].Proto == s.Proto {
			before := &out[n-1]
			if before.Whole {
				continue
			}
			if uint32(s.First) <= uint32(before.Last)+1 {
				before.Last = max(before.Last, s.Last)
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

func contentKey(list []policy.Service) string {
	key := make([]byte, 0, 6*len(list))
	for _, s := range list {
		whole := byte(0)
		if s.Whole {
			whole = 1
		}
		key = append(key, s.Proto, whole)
		key = binary.BigEndian.AppendUint16(key, s.First)
		key = binary.BigEndian.AppendUint16(key, s.Last)
	}
	return string(key)
}

// boundary is where a group's range of selectors starts, or the place behind
// its end.
type boundary struct {
	at    uint32 // 0 to 65536
	group int
}

// compileSelectors fills t, protocol by protocol. It gives nil where no rule
// asks. Pages and rows need no limit check: 256 protocols have at most 65,536
// pages, and rows stay below tables.NoRow.
func compileSelectors(t *tables.SelectorTable, g serviceGroups) (*dimension, error) {
	if len(g.lists) == 0 {
		return nil, nil
	}
	var whole [256][]int
	var ranges [256][]boundary
	for group, list := range g.lists {
		for _, s := range list {
			if s.Whole {
				whole[s.Proto] = append(whole[s.Proto], group)
			} else {
				ranges[s.Proto] = append(ranges[s.Proto], boundary{uint32(s.First), group}, boundary{uint32(s.Last) + 1, group})
			}
		}
	}
	dim := newDimension(g.grouping)
	pages := newPageStore()
	for proto := range t.Protos {
		active := newCombination(len(g.lists))
		for _, group := range whole[proto] {
			active.flip(group)
		}
		class, err := dim.class(&active)
		if err != nil {
			return nil, err
		}
		t.Protos[proto] = tables.ProtoEntry{Class: class, Row: tables.NoRow}
		if len(ranges[proto]) == 0 {
			continue
		}
		classes, err := sweepSelectors(dim, &active, ranges[proto])
		if err != nil {
			return nil, err
		}
		t.Protos[proto].Row = pages.row(classes)
	}
	t.Rows, t.Pages = pages.rows, pages.pages
	return dim, nil
}

// sweepSelectors gives each selector of one protocol its class. active holds
// the groups that take the whole protocol.
func sweepSelectors(dim *dimension, active *combination, ranges []boundary) (*[1 << 16]uint16, error) {
	slices.SortFunc(ranges, func(a, b boundary) int { return cmp.Compare(a.at, b.at) })
	var classes [1 << 16]uint16
	for at := uint32(0); at < 1<<16; {
		for len(ranges) > 0 && ranges[0].at == at {
			active.flip(ranges[0].group)
			ranges = ranges[1:]
		}
		class, err := dim.class(active)
		if err != nil {
			return nil, err
		}
		end := uint32(1 << 16)
		if len(ranges) > 0 {
			end = ranges[0].at
		}
		for ; at < end; at++ {
			classes[at] = class
		}
	}
	return &classes, nil
}

// pageStore keeps equal pages, and equal rows of pages, once.
type pageStore struct {
	pages, rows   [][256]uint16
	pageAt, rowAt map[[256]uint16]uint16
}

func newPageStore() *pageStore {
	return &pageStore{pageAt: map[[256]uint16]uint16{}, rowAt: map[[256]uint16]uint16{}}
}

func (s *pageStore) row(classes *[1 << 16]uint16) uint16 {
	var row [256]uint16
	for i := range row {
		row[i] = store(&s.pages, s.pageAt, [256]uint16(classes[i*256:]))
	}
	return store(&s.rows, s.rowAt, row)
}

func store(list *[][256]uint16, at map[[256]uint16]uint16, page [256]uint16) uint16 {
	i, known := at[page]
	if !known {
		i = uint16(len(*list))
		*list = append(*list, page)
		at[page] = i
	}
	return i
}

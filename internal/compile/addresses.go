package compile

import (
	"egate/internal/ipset"
	"egate/internal/policy"
	"egate/internal/tables"
)

var (
	first4 = ipset.From4(0)
	last4  = ipset.From4(^uint32(0))
	last   = ipset.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}
)

// addressGroups is the rules' distinct address sets.
type addressGroups struct {
	grouping
	sets []*ipset.Set // of each group
}

// groupAddresses groups rules by the addresses they ask for in dimension d:
// first by pointer, because rules that name one set share it and it may be
// large, then by content.
func groupAddresses(rules []policy.Rule, d tables.Dimension) addressGroups {
	g := addressGroups{grouping: newGrouping(len(rules))}
	byPointer := map[*ipset.Set]int{nil: none}
	byContent := map[uint64][]int{}
	for i := range rules {
		set := rules[i].To
		if d == tables.Source {
			set = rules[i].From
		}
		group, known := byPointer[set]
		if !known {
			group = len(g.sets)
			hash := contentHash(set)
			for _, other := range byContent[hash] {
				if g.sets[other].Equal(set) {
					group = other
				}
			}
			if group == len(g.sets) {
				g.sets = append(g.sets, set)
				byContent[hash] = append(byContent[hash], group)
			}
			byPointer[set] = group
		}
		g.add(group)
	}
	return g
}

func contentHash(s *ipset.Set) uint64 {
	var h uint64
	for _, r := range s.Ranges() {
		for _, word := range [4]uint64{r.First.Hi, r.First.Lo, r.Last.Hi, r.Last.Lo} {
			h = mix(h ^ word)
		}
	}
	return h
}

// cursor walks the boundaries of one set in ascending order.
type cursor struct {
	at     ipset.Addr // the next boundary: a first address, or the one behind a last
	group  int
	ranges []ipset.Range // ranges[0] is the one that at belongs to
	inside bool          // at is behind the last address of ranges[0]
}

// advance moves to the next boundary and tells whether there is one.
func (c *cursor) advance() bool {
	if !c.inside {
		c.inside = true
		c.at = c.ranges[0].Last.Next()
		return c.ranges[0].Last != last
	}
	c.inside = false
	c.ranges = c.ranges[1:]
	if len(c.ranges) == 0 {
		return false
	}
	c.at = c.ranges[0].First
	return true
}

// cursors is a binary heap by the next boundary: the lowest comes first.
type cursors []cursor

func newCursors(sets []*ipset.Set) cursors {
	h := make(cursors, 0, len(sets))
	for g, s := range sets {
		if r := s.Ranges(); len(r) > 0 {
			h = append(h, cursor{at: r[0].First, group: g, ranges: r})
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	return h
}

// advance moves the lowest cursor on, and takes it out at its end.
func (h *cursors) advance() {
	s := *h
	if !s[0].advance() {
		s[0] = s[len(s)-1]
		s = s[:len(s)-1]
		*h = s
	}
	s.down(0)
}

func (h cursors) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at.Less(h[child].at) {
			child++
		}
		if !h[child].at.Less(h[i].at) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// compileAddresses fills t with one sweep over the whole address space, from
// boundary to boundary. It gives nil where no rule asks.
func compileAddresses(t *tables.AddressTable, g addressGroups) (*dimension, error) {
	if len(g.sets) == 0 {
		return nil, nil
	}
	dim := newDimension(g.grouping)
	active := newCombination(len(g.sets))
	heap := newCursors(g.sets)
	b := newAddressBuilder(g.sets)
	for start, more := (ipset.Addr{}), true; more; {
		for len(heap) > 0 && heap[0].at == start {
			active.flip(heap[0].group)
			heap.advance()
		}
		class, err := dim.class(&active)
		if err != nil {
			return nil, err
		}
		end := last
		if more = len(heap) > 0; more {
			end = heap[0].at.Prev()
		}
		b.add(start, end, class)
		start = end.Next()
	}
	if err := b.finish(t); err != nil {
		return nil, err
	}
	return dim, nil
}

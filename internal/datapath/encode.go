package datapath

import (
	"slices"

	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// content is a policy as its maps hold it: the tables of both directions one
// behind the other in shared arrays, with positions counted from an array's
// beginning.
type content struct {
	config    abiEgatePolicyConfig
	intervals []abiEgateInterval
	cells     []uint32
	protos    []abiEgateProto
	pages     []abiEgateQuad
	vectors   []uint64
	rules     []abiEgateRule

	selectors []uint16 // pages before they are packed
}

// encode lays the tables out. It is a pure function.
func encode(set *tables.Set, generation uint32, secret uint64) *content {
	c := &content{}
	c.config.AnswerSecret = secret
	c.config.Generation = generation
	c.config.Audit = bit(set.Audit)
	track := bit(tracks(set))
	for _, d := range verdict.Directions {
		chain := &set.Chains[d]
		out := &c.config.Chain[d]
		out.DefaultAction = uint8(chain.Default)
		out.Replies = bit(chain.Replies)
		// The opener is known only if the first packet is seen wherever it goes.
		out.Track = track
		c.addRules(chain, out)
		if len(chain.Rules) > 0 {
			c.addDimensions(chain, out)
		}
	}
	c.pages = make([]abiEgateQuad, len(c.selectors)/4)
	for i := range c.pages {
		c.pages[i].V = [4]uint16(c.selectors[4*i:])
	}
	return c
}

// tracks tells whether the policy needs to know who opened a connection.
func tracks(set *tables.Set) bool { return set.Chains[0].Track || set.Chains[1].Track }

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// addRules appends the chain's rules and, behind the last, its default.
func (c *content) addRules(chain *tables.Chain, out *abiEgateChain) {
	out.Rules = uint32(len(c.rules))
	out.RuleCount = uint32(len(chain.Rules))
	add := func(action verdict.Action, events policy.EventRate) {
		c.rules = append(c.rules, abiEgateRule{
			Action:          uint8(action),
			EventBurst:      events.Burst,
			EventIntervalNs: uint64(events.Interval.Nanoseconds()),
		})
		if action == verdict.Reject {
			out.Rejects = 1
		}
	}
	for i := range chain.Rules {
		add(chain.Rules[i].Action, chain.Rules[i].Events)
	}
	add(chain.Default, chain.Events)
}

// addDimensions appends the tables of the dimensions in use and the vectors.
func (c *content) addDimensions(chain *tables.Chain, out *abiEgateChain) {
	out.Words = uint32(chain.Words)
	out.All = uint32(len(c.vectors))
	for i := range chain.Words + 1 {
		c.vectors = append(c.vectors, chain.All(i))
	}
	for d := range tables.DimensionCount {
		if !chain.Used[d] {
			continue
		}
		out.Used[d] = 1
		out.Vectors[d] = uint32(len(c.vectors))
		c.vectors = append(c.vectors, chain.Vectors[d]...)
		if d <= tables.Source {
			out.Addr[d] = c.addAddresses(&chain.Addresses[d])
		} else {
			out.Sel[d-tables.Service] = c.addSelectors(&chain.Selectors[d-tables.Service])
		}
	}
}

func (c *content) addAddresses(t *tables.AddressTable) abiEgateAddrTable {
	base := uint32(len(c.intervals))
	c.intervals = slices.Grow(c.intervals, len(t.Intervals))
	for _, iv := range t.Intervals {
		value := iv.Value
		if iv.Sub > 0 {
			value += base // a position, not a class
		}
		c.intervals = append(c.intervals, abiEgateInterval{Start: iv.Start, Value: value, Sub: iv.Sub})
	}
	return abiEgateAddrTable{
		Shift4: 32 - uint32(t.Width4),
		Shift6: 64 - uint32(t.Width6),
		Cells4: c.addCells(t.Cells4, base),
		Cells6: c.addCells(t.Cells6, base),
	}
}

func (c *content) addCells(cells []uint32, base uint32) uint32 {
	first := uint32(len(c.cells))
	c.cells = slices.Grow(c.cells, len(cells))
	for _, position := range cells {
		c.cells = append(c.cells, base+position)
	}
	return first
}

func (c *content) addSelectors(t *tables.SelectorTable) abiEgateSelectorTable {
	out := abiEgateSelectorTable{Protos: uint32(len(c.protos))}
	for _, e := range t.Protos {
		c.protos = append(c.protos, abiEgateProto{Class: e.Class, Row: e.Row})
	}
	out.Rows = uint32(len(c.selectors))
	for i := range t.Rows {
		c.selectors = append(c.selectors, t.Rows[i][:]...)
	}
	out.Pages = uint32(len(c.selectors))
	for i := range t.Pages {
		c.selectors = append(c.selectors, t.Pages[i][:]...)
	}
	return out
}

package datapath

import (
	"egate/internal/domain"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// content is a policy as its maps hold it: the tables of both directions one
// behind the other in shared arrays, with positions counted from an array's
// beginning.
type content struct {
	config  abiEgatePolicyConfig
	lines   pieces[tables.Line]
	protos  []abiEgateProto
	pages   []abiEgateQuad
	vectors []uint64
	rules   []abiEgateRule

	selectors []uint16 // pages before they are packed

	domainHashes []uint64 // keys of domains
	domains      []abiEgateDomain

	cachePages uint32 // of both directions
}

// pieces is what one map holds, in parts that may be large and are copied only
// into the map.
type pieces[T any] struct {
	list  [][]T
	count int
}

// add appends a part and gives its position.
func (p *pieces[T]) add(part []T) int {
	at := p.count
	p.list = append(p.list, part)
	p.count += len(part)
	return at
}

// encode lays the tables out; key is that of the gate's names. It is a pure
// function.
func encode(set *tables.Set, generation uint32, secret uint64, key domain.Key) *content {
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
		out.Cache = c.cachePages
		if len(chain.Rules) > 0 || tracks(set) {
			c.cachePages += uint32(abiEgateLimitEGATE_LIMIT_CACHE_PAGES)
		}
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
	if set.DNS.InUse {
		c.config.Names = encodeNames(set, key)
		if refusesNames(set) {
			c.config.Chain[verdict.Egress].Rejects = 1
		}
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
	add := func(action verdict.Action, flags uint8, events policy.EventRate) {
		c.rules = append(c.rules, abiEgateRule{
			Action:          uint8(action),
			Flags:           flags,
			EventBurst:      events.Burst,
			EventIntervalNs: uint64(events.Interval.Nanoseconds()),
		})
		if action == verdict.Reject {
			out.Rejects = 1
		}
	}
	for i := range chain.Rules {
		r := &chain.Rules[i]
		add(r.Action, ruleFlags(r), r.Events)
	}
	add(chain.Default, 0, chain.Events)
}

// addDimensions appends the tables of the dimensions in use and the vectors.
func (c *content) addDimensions(chain *tables.Chain, out *abiEgateChain) {
	out.Words = uint32(chain.Words)
	for d := range tables.DimensionCount {
		if !chain.Used[d] {
			continue
		}
		out.Used[d] = 1
		c.alignVectors()
		v := &chain.Vectors[d]
		out.Vectors[d] = uint32(len(c.vectors))
		out.Strides[d] = uint32(v.Stride)
		c.vectors = append(c.vectors, v.Words...)
		switch d {
		case tables.Destination, tables.Source:
			out.Addr[d] = c.addAddresses(&chain.Addresses[d])
		case tables.Service, tables.SourcePort:
			out.Sel[d-tables.Service] = c.addSelectors(&chain.Selectors[d-tables.Service])
		}
	}
}

// alignVectors lets the next table of vectors begin on a cache line.
func (c *content) alignVectors() {
	for len(c.vectors)%8 != 0 {
		c.vectors = append(c.vectors, 0)
	}
}

func (c *content) addAddresses(t *tables.AddressTable) abiEgateAddrTable {
	return abiEgateAddrTable{Lines: uint32(c.lines.add(t.Lines)), Root4: encodeIndex(&t.Root4), Root6: encodeIndex(&t.Root6)}
}

func encodeIndex(x *tables.Index) abiEgateIndex {
	return abiEgateIndex{Shift: x.Shift, Low: x.Low, Last: x.Last, Base: x.Base}
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

package compile

import (
	"egate/internal/tables"
)

// world is a set of kinds of packets: an address family, or a protocol with or
// without a readable transport header. Two classes can meet in one packet only
// if they share a kind.
type world [9]uint64

// Kinds of the address dimensions.
const (
	kind4 = iota
	kind6
	kindNone     // nothing readable
	kindReadable // this address is, whatever the family
)

// Kinds of the selector dimensions: 0-255 protocols with a readable transport
// header, 256-511 without, and one where the protocol is unknown.
const (
	kindUnreadable = 256
	kindUnknown    = 512
)

func (w *world) add(kind int)      { w[kind/64] |= 1 << (kind % 64) }
func (w *world) has(kind int) bool { return w[kind/64]>>(kind%64)&1 != 0 }

func (w *world) meets(o *world) bool {
	for i := range w {
		if w[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// worlds knows the kinds of every class of a chain, by the contract of package
// packet on what can be read together.
type worlds struct {
	used [tables.DimensionCount]bool
	of   [tables.DimensionCount][]world
}

func newWorlds(c *tables.Chain, dims dimensions) *worlds {
	w := &worlds{used: c.Used}
	for d, dim := range dims {
		if dim == nil {
			continue
		}
		of := make([]world, dim.classes())
		w.of[d] = of
		switch d := tables.Dimension(d); d {
		case tables.Name: // names have no kinds
		case tables.Destination, tables.Source:
			addFamilies(of, &c.Addresses[d])
			of[0].add(kindNone)
			if d == tables.Destination {
				// A source route hides the destination alone.
				of[0].add(kind4)
				of[0].add(kind6)
			}
		default:
			addProtocols(of, &c.Selectors[d-tables.Service])
			of[0].add(kindUnknown)
		}
	}
	return w
}

func addFamilies(of []world, t *tables.AddressTable) {
	for first, class := range t.Intervals() {
		of[class].add(kindReadable)
		if first.Is4() {
			of[class].add(kind4)
		} else {
			of[class].add(kind6)
		}
	}
}

func addProtocols(of []world, t *tables.SelectorTable) {
	for proto, e := range t.Protos {
		of[e.Class].add(kindUnreadable + proto)
		if e.Row == tables.NoRow {
			of[e.Class].add(proto)
			continue
		}
		var seen [1 << 16 / 64]uint64
		for _, page := range t.Rows[e.Row] {
			if seen[page/64]>>(page%64)&1 != 0 {
				continue
			}
			seen[page/64] |= 1 << (page % 64)
			for _, class := range t.Pages[page] {
				of[class].add(proto)
			}
		}
	}
}

// possible tells whether a packet can have the class chosen last, that of
// dimension d, beside those chosen before it in the order of the search:
// service, source port, destination, source, name.
func (w *worlds) possible(d tables.Dimension, classes *[tables.DimensionCount]uint16) bool {
	switch d {
	case tables.SourcePort:
		return !w.used[tables.Service] || w.at(d, classes).meets(w.at(tables.Service, classes))
	case tables.Source:
		source := w.at(d, classes)
		if !w.used[tables.Destination] {
			return source.has(kind4) || source.has(kind6) || w.unreadable(classes)
		}
		destination := w.at(tables.Destination, classes)
		if source.has(kind4) && destination.has(kind4) || source.has(kind6) && destination.has(kind6) {
			return true
		}
		return source.has(kindNone) && destination.has(kindNone) && w.unreadable(classes)
	case tables.Name:
		// A destination that could not be read has no names.
		return classes[d] == 0 || !w.used[tables.Destination] || w.at(tables.Destination, classes).has(kindReadable)
	}
	return true
}

// unreadable tells whether the service and source port chosen are those of a
// packet of which nothing could be read.
func (w *worlds) unreadable(classes *[tables.DimensionCount]uint16) bool {
	return (!w.used[tables.Service] || classes[tables.Service] == 0) &&
		(!w.used[tables.SourcePort] || classes[tables.SourcePort] == 0)
}

func (w *worlds) at(d tables.Dimension, classes *[tables.DimensionCount]uint16) *world {
	return &w.of[d][classes[d]]
}

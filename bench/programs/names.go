package programs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"egate/bench/measure"
	"egate/bench/result"
	"egate/internal/testutil/frames"
)

// Contenders of the sheets of names, beside egate by its names.
const (
	nameByAddress = "egate, by address"
	nameUnchecked = "egate, verify: none"
	nameQuestion  = "question"
)

// shapes are the answers that are measured.
var shapes = []shape{
	{"answer of 1 A", 0, 1},
	{"answer of CNAME, 2 A", 1, 2},
	{"answer of 3 CNAME, 8 A", 3, 8},
}

// knownNames is how many names are asked for in turn where they are known: with
// those of other answers their addresses stay well below what egate remembers.
const knownNames = 1024

// named is the port of packets to named destinations, whose connections begin
// with a TLS ClientHello.
const named = 443

// nameSheets are the sheets of policies that list names.
func nameSheets() []Sheet {
	return []Sheet{
		{
			ID: "names-flow", Title: "Program alone: packet of an open flow that one rule lets pass, by name or by address", Size: "names",
			build: func(b *bench, form Form) error { return b.namedFlow(form.Names) },
		},
		{
			ID: "names-bound", Title: "Program alone: packets of one flow to each of so many learned addresses in turn", Size: "learned addresses",
			build: func(b *bench, form Form) error { return b.namedPackets(form.Learned, false) },
		},
		{
			ID: "names-first", Title: "Program alone: first packet of a connection (TCP SYN) to random learned addresses", Size: "learned addresses",
			build: func(b *bench, form Form) error { return b.namedPackets(form.Learned, true) },
		},
		{
			ID: "names-lookup-known", Title: "Program alone: DNS question and answer, of names that are known", Size: "names",
			build: func(b *bench, form Form) error { return b.lookups(form, knownNames) },
		},
		{
			ID: "names-lookup-fresh", Title: "Program alone: DNS question and answer, each of a new name with new addresses", Size: "names",
			build: func(b *bench, form Form) error { return b.lookups(form, 0) },
		},
	}
}

// NamePolicy is a policy of one rule that lets packets to names pass, which are
// in a set file, and nothing else but DNS with a server.
func NamePolicy(guarded string, server netip.Addr, file, rule string) string {
	return fmt.Sprintf("version: 1\ninterfaces: [%s]\nsets: {listed: {domain_file: %q}}\negress:\n  default: drop\n  replies: false\n"+
		"  rules:\n    - {name: listed, action: allow, events: none, to: {sets: [listed]}%s}\ndns: {servers: [\"%v\"]}\n", guarded, file, rule, server)
}

// NameList is the text of a list of names: one is asked for, or those below it,
// the others are exact ones and wildcards.
func NameList(asked string, n int) string {
	var text strings.Builder
	fmt.Fprintln(&text, asked)
	for i := 1; i < n; i++ {
		wildcard := ""
		if i%2 == 1 {
			wildcard = "*."
		}
		fmt.Fprintf(&text, "%shost-%d.listed.example.net\n", wildcard, i)
	}
	return text.String()
}

// nameGate puts a policy of n names in force.
func (b *bench) nameGate(n int, rule string) (*gate, error) {
	return b.gate(NamePolicy(guardedLink, resolver, "names.txt", rule), NameList("*."+askedBelow, n))
}

// addressGate puts the same policy in force by addresses: those that the names
// have.
func (b *bench) addressGate() (*gate, error) {
	return b.gate(fmt.Sprintf("version: 1\ninterfaces: [%s]\negress:\n  default: drop\n  replies: false\n"+
		"  rules:\n    - {name: listed, action: allow, events: none, to: {addresses: [20.0.0.0/8]}}\n", guardedLink), "")
}

// learn has the gate learn addresses, of which it returns the first ones.
func (b *bench) learn(g *gate, count int) ([]netip.Addr, error) {
	all := shape{"", 0, 8}
	l, err := newLookups(g.egress, g.ingress, all, 0, 20)
	if err != nil {
		return nil, err
	}
	b.keep(l)
	if _, _, err := l.price((count + all.addresses - 1) / all.addresses); err != nil {
		return nil, err
	}
	if err := g.checkLearned(l); err != nil {
		return nil, err
	}
	out := make([]netip.Addr, count)
	for i := range out {
		out[i] = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 20<<24|uint32(i))))
	}
	return out, nil
}

// namedFlow adds policies of these numbers of names, for one flow.
func (b *bench) namedFlow(sizes []int) error {
	address, err := b.addressGate()
	if err != nil {
		return err
	}
	for _, size := range sizes {
		name, err := b.nameGate(size, ", verify: none")
		if err != nil {
			return err
		}
		to, err := b.learn(name, 1)
		if err != nil {
			return err
		}
		all := []target{{to: netip.AddrPortFrom(to[0], named)}}
		if err := b.compare(size, all, []filter{{nameByAddress, address.egress}, {result.Egate, name.egress}}); err != nil {
			return err
		}
	}
	return nil
}

// namedPackets adds egate by address and by name for these numbers of
// addresses. Fresh packets are the first ones of connections; others are of one
// connection to each address.
func (b *bench) namedPackets(sizes []int, fresh bool) error {
	// Packets that are not TCP have nothing to verify.
	egates := []struct{ name, rule string }{{result.Egate, ", verify: none"}}
	if fresh {
		egates = []struct{ name, rule string }{{nameUnchecked, ", verify: none"}, {result.Egate, ""}}
		b.runs /= 4 // they take ten times as long as others
	}
	address, err := b.addressGate()
	if err != nil {
		return err
	}
	filters := []filter{{nameByAddress, address.egress}}
	var to []netip.Addr
	for _, c := range egates {
		g, err := b.nameGate(1, c.rule)
		if err != nil {
			return err
		}
		if to, err = b.learn(g, slices.Max(sizes)); err != nil {
			return err
		}
		filters = append(filters, filter{c.name, g.egress})
	}
	for i, size := range sizes {
		f, err := b.field(targetsOf(to[:size]))
		if err != nil {
			return err
		}
		if fresh {
			const syn = 2
			f.frame = frames.TCP(asker, to[0], 40000, named, syn, nil)
			f.fresh, f.first = true, uint32(i)<<28 // so that no other size meets the same connections
		}
		if err := b.compareOn(f, size, filters); err != nil {
			return err
		}
	}
	return nil
}

// targetsOf are addresses in no order.
func targetsOf(to []netip.Addr) []target {
	out := make([]target, len(to))
	for i, a := range to {
		// An odd factor leads to every address once.
		out[i*40503%len(to)] = target{to: netip.AddrPortFrom(a, named)}
	}
	return out
}

// lookups adds policies of the form's numbers of names, for look-ups of so many
// different names.
func (b *bench) lookups(form Form, names uint32) error {
	b.runs = form.Lookups
	b.note("questions leave %d at a time, then their answers come; each from another port", together)
	if names > 0 {
		b.note("%d names in turn", names)
	}
	for _, size := range form.Names {
		if err := b.emptyLookups(size, form.Lookups); err != nil {
			return err
		}
		g, err := b.nameGate(size, "")
		if err != nil {
			return err
		}
		var all []*lookups
		for i, s := range shapes {
			l, err := newLookups(g.egress, g.ingress, s, names, uint8(20+i))
			if err != nil {
				return err
			}
			b.keep(l)
			all = append(all, l)
			if _, _, err := l.some(max(knownNames, min(form.Lookups, together))); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if i == 0 {
				b.lookupCell(nameQuestion, size, func() (float64, error) { q, _, err := l.price(form.Lookups); return q, err })
			}
			b.lookupCell(s.name, size, func() (float64, error) { _, a, err := l.price(form.Lookups); return a, err })
		}
		check := func() error { return g.checkLearned(all...) }
		if err := check(); err != nil {
			return err
		}
		b.after = append(b.after, check)
	}
	return nil
}

// emptyLookups adds the empty program, which reads nothing: one of its figures
// stands for questions and answers of all kinds.
func (b *bench) emptyLookups(size, count int) error {
	empty, closer, err := LoadEmpty()
	if err != nil {
		return err
	}
	b.keep(closer)
	l, err := newLookups(empty, empty, shapes[len(shapes)-1], 0, 20)
	if err != nil {
		return err
	}
	b.keep(l)
	b.lookupCell(result.Empty, size, func() (float64, error) { _, a, err := l.price(count); return a, err })
	return nil
}

func (b *bench) lookupCell(name string, size int, sample func() (float64, error)) {
	b.cells = append(b.cells, measure.Cell{Contender: name, Size: size, Sample: sample})
}

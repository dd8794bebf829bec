package programs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"egate/bench/prefixes"
	"egate/bench/result"
)

// port is where packets go that are judged by their address alone.
const port = 53

// where tells which destinations a sheet over prefixes sends to.
type where struct {
	id, title string
	targets   func(l *prefixes.List, n int) []target
}

var wheres = []where{
	{"mixed", "random destinations, half of them in a blocklist", func(l *prefixes.List, n int) []target {
		in, out := inside(l, n/2), outside(l, n/2)
		all := append(in, out...)
		// So that the processor can't learn what comes.
		rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	}},
	{"inside", "random destinations in a blocklist", inside},
	{"outside", "random destinations outside a blocklist", outside},
	{"hot", "one destination in a blocklist, again and again", func(l *prefixes.List, _ int) []target { return inside(l, 1) }},
}

func inside(l *prefixes.List, n int) []target  { return targets(l.Inside(n), true) }
func outside(l *prefixes.List, n int) []target { return targets(l.Outside(n), false) }

func targets(addresses []netip.Addr, drop bool) []target {
	out := make([]target, len(addresses))
	for i, a := range addresses {
		out[i] = target{netip.AddrPortFrom(a, port), drop}
	}
	return out
}

// prefixSheets are the sheets over the number of prefixes that are dropped.
func prefixSheets() []Sheet {
	var all []Sheet
	for _, family := range []prefixes.Family{prefixes.IPv4, prefixes.IPv6} {
		for _, w := range wheres {
			all = append(all, Sheet{
				ID:    fmt.Sprintf("programs-v%d-%s", family, w.id),
				Title: fmt.Sprintf("Program alone: %v, %s", family, w.title),
				Size:  "prefixes",
				build: func(b *bench, form Form) error {
					for _, size := range form.Prefixes {
						l := prefixes.New(family, size)
						filters, err := b.filters(l)
						if err != nil {
							return err
						}
						if err := b.compare(size, w.targets(l, form.Targets), filters); err != nil {
							return err
						}
					}
					return nil
				},
			})
		}
	}
	return all
}

// destinationSheets are the sheets over the number of destinations that packets
// go to in turn: how much of the tables has to stay in the caches.
func destinationSheets() []Sheet {
	var all []Sheet
	for _, family := range []prefixes.Family{prefixes.IPv4, prefixes.IPv6} {
		all = append(all, Sheet{
			ID:    fmt.Sprintf("programs-v%d-destinations", family),
			Title: fmt.Sprintf("Program alone: %v, so many destinations in turn, all in the largest blocklist", family),
			Size:  "destinations",
			build: func(b *bench, form Form) error {
				l := prefixes.New(family, slices.Max(form.Prefixes))
				b.note("%d prefixes", len(l.Prefixes))
				filters, err := b.filters(l)
				if err != nil {
					return err
				}
				for _, size := range form.Destinations {
					if err := b.compare(size, inside(l, size), filters); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	return all
}

// filter is a program that drops what is in a list.
type filter struct {
	name    string
	program *ebpf.Program
}

// filters loads the programs that drop what is in a list.
func (b *bench) filters(l *prefixes.List) ([]filter, error) {
	trie, closer, err := LoadTrie(l.Prefixes)
	if err != nil {
		return nil, err
	}
	b.keep(closer)
	var list strings.Builder
	for _, p := range l.Prefixes {
		fmt.Fprintln(&list, p)
	}
	egate, err := b.apply(blocklist, list.String())
	if err != nil {
		return nil, err
	}
	return []filter{{result.Trie, trie}, {result.Egate, egate}}, nil
}

// compare adds all contenders at one size.
func (b *bench) compare(size int, to []target, filters []filter) error {
	f, err := b.field(to)
	if err != nil {
		return err
	}
	return b.compareOn(f, size, filters)
}

// compareOn adds all contenders on a field.
func (b *bench) compareOn(f *field, size int, filters []filter) error {
	if err := b.plain(size, f); err != nil {
		return err
	}
	for _, c := range filters {
		if err := b.contend(c.name, size, f, c.program, true); err != nil {
			return err
		}
	}
	return nil
}

// blocklist is the policy that drops what is in a list.
const blocklist = `
version: 1
interfaces: [` + guardedLink + `]
sets: {list: {file: list.txt}}
egress:
  default: allow
  rules: [{name: listed, action: drop, to: {sets: [list]}}]
`

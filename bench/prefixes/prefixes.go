// Package prefixes stands beside the stages: it makes the address lists that
// the benchmarks filter by, and the destinations they send to. What it makes
// depends on nothing but its arguments, so every run and every contender gets
// the same.
package prefixes

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// Family is 4 or 6.
type Family int

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// share is how many of a thousand prefixes have this many bits.
type share struct{ bits, permille int }

// kind is what lists of a family look like.
type kind struct {
	lengths []share
	space   []netip.Prefix // where addresses come from
	spared  []netip.Prefix // and where not
	network int            // leading bits that neighbours share
}

// The lengths are those of routing tables and blocklists together: mostly
// single networks, some large ones, a tail of single hosts.
var kinds = map[Family]*kind{
	IPv4: {
		lengths: []share{{24, 550}, {32, 200}, {23, 70}, {22, 80}, {21, 30}, {20, 40}, {19, 15}, {18, 8}, {17, 4}, {16, 3}},
		space:   parse("0.0.0.0/0"),
		spared: parse("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
			"192.0.0.0/16", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
		network: 16,
	},
	IPv6: {
		lengths: []share{{48, 550}, {64, 120}, {32, 100}, {128, 80}, {40, 50}, {44, 50}, {36, 30}, {46, 20}},
		// What the registries hand out.
		space:   parse("2400::/12", "2600::/12", "2800::/12", "2a00::/12", "2c00::/12"),
		network: 32,
	},
}

func parse(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

// List is a list of n different prefixes, some of them inside others, in no
// order. Networks come in bunches: half of the prefixes stand in the same /16,
// or /32 of IPv6, as an earlier one.
type List struct {
	Family   Family
	Prefixes []netip.Prefix

	members map[netip.Prefix]bool
	lengths []int // that occur
	random  *rand.Rand
}

// New makes the list of this family and length; it is the same each time.
func New(family Family, n int) *List {
	l := &List{
		Family:   family,
		Prefixes: make([]netip.Prefix, 0, n),
		members:  make(map[netip.Prefix]bool, n),
		random:   rand.New(rand.NewPCG(uint64(family), uint64(n))),
	}
	k := kinds[family]
	for _, s := range k.lengths {
		l.lengths = append(l.lengths, s.bits)
	}
	for len(l.Prefixes) < n {
		a := l.anywhere()
		if len(l.Prefixes) > 0 && l.random.IntN(2) == 0 {
			a = l.neighbour()
		}
		if l.Contains(a) && l.random.IntN(4) > 0 {
			continue // lists do have prefixes inside others, but few
		}
		p := netip.PrefixFrom(a, k.length(l.random)).Masked()
		if l.members[p] || overlaps(k.spared, p) {
			continue
		}
		l.members[p] = true
		l.Prefixes = append(l.Prefixes, p)
	}
	return l
}

func (k *kind) length(r *rand.Rand) int {
	at := r.IntN(1000)
	for _, s := range k.lengths {
		if at -= s.permille; at < 0 {
			return s.bits
		}
	}
	return k.lengths[0].bits
}

// anywhere is an address of the family's space.
func (l *List) anywhere() netip.Addr {
	k := kinds[l.Family]
	for {
		a := l.within(k.space[l.random.IntN(len(k.space))])
		if !overlaps(k.spared, netip.PrefixFrom(a, a.BitLen())) {
			return a
		}
	}
}

// neighbour is an address of a network that has a listed prefix.
func (l *List) neighbour() netip.Addr {
	p := l.Prefixes[l.random.IntN(len(l.Prefixes))]
	return l.within(netip.PrefixFrom(p.Addr(), kinds[l.Family].network).Masked())
}

// within is a random address of a prefix.
func (l *List) within(p netip.Prefix) netip.Addr {
	var noise [16]byte
	binary.BigEndian.PutUint64(noise[:], l.random.Uint64())
	binary.BigEndian.PutUint64(noise[8:], l.random.Uint64())
	b := p.Addr().AsSlice()
	for i := range b {
		keep := min(max(p.Bits()-8*i, 0), 8)
		b[i] |= noise[i] & (0xff >> keep)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return a
}

// Contains tells whether an address is in the list.
func (l *List) Contains(a netip.Addr) bool {
	for _, bits := range l.lengths {
		if l.members[netip.PrefixFrom(a, bits).Masked()] {
			return true
		}
	}
	return false
}

// InsideOf makes an address of the prefix at index i.
func (l *List) InsideOf(i int) netip.Addr { return l.within(l.Prefixes[i]) }

// Inside makes n addresses of the list, each of a random prefix.
func (l *List) Inside(n int) []netip.Addr {
	out := make([]netip.Addr, n)
	for i := range out {
		out[i] = l.InsideOf(l.random.IntN(len(l.Prefixes)))
	}
	return out
}

// Outside makes n addresses that are not in the list, half of them in networks
// of which a part is.
func (l *List) Outside(n int) []netip.Addr {
	out := make([]netip.Addr, 0, n)
	for len(out) < n {
		a := l.anywhere()
		if len(out)%2 == 0 {
			// A network may be listed whole: then the address is from anywhere.
			for range 8 {
				if b := l.neighbour(); !l.Contains(b) {
					a = b
					break
				}
			}
		}
		if !l.Contains(a) && !overlaps(kinds[l.Family].spared, netip.PrefixFrom(a, a.BitLen())) {
			out = append(out, a)
		}
	}
	return out
}

func overlaps(list []netip.Prefix, p netip.Prefix) bool {
	for _, q := range list {
		if q.Overlaps(p) {
			return true
		}
	}
	return false
}

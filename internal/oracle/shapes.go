package oracle

import (
	"math/rand/v2"

	"egate/internal/ipset"
)

// host6 is one IPv6 address as a range.
func host6(hi, lo uint64) ipset.Range {
	a := ipset.Addr{Hi: hi, Lo: lo}
	return ipset.Range{First: a, Last: a}
}

func host4(a uint32) ipset.Range { return ipset.Range{First: ipset.From4(a), Last: ipset.From4(a)} }

// Shapes are sets that lay a table out in every way: spread out, crowded, at
// both ends, along paths as long as they get.
func Shapes(r *rand.Rand) map[string]*ipset.Set {
	ranges := map[string][]ipset.Range{
		"ends": {host4(0), host4(^uint32(0)), host6(0, 0), host6(^uint64(0), ^uint64(0))},
	}
	add := func(name string, n int, one func(i int) ipset.Range) {
		for i := range n {
			ranges[name] = append(ranges[name], one(i))
		}
	}
	add("IPv4 hosts in one /24", 100, func(i int) ipset.Range { return host4(0xc0000200 + 2*uint32(i)) })
	add("IPv4 hosts at both ends", 64, func(i int) ipset.Range {
		if i%2 == 0 {
			return host4(uint32(i))
		}
		return host4(^uint32(0) - uint32(i))
	})
	add("IPv4 prefixes, many", 20_000, func(int) ipset.Range { return prefix4(r.Uint32(), 20+r.IntN(13)) })
	add("IPv4 /16", 3000, func(int) ipset.Range {
		return prefix4(r.Uint32(), 16)
	})
	// Boundaries at powers of two: each index finds all but three of them in its first line.
	add("IPv4 powers of two", 31, func(i int) ipset.Range { return host4(1 << i) })
	add("IPv6 powers of two", 127, func(i int) ipset.Range {
		if i < 64 {
			return host6(0, 1<<i)
		}
		return host6(1<<(i-64), 0)
	})
	// The longest path: in every word powers of two below the word's path.
	add("IPv6 powers of two in each word", 128, func(i int) ipset.Range {
		words := [4]uint64{1, 1, 1, 1}
		words[i/32] = 1 << (i % 32)
		return host6(words[0]<<32|words[1], words[2]<<32|words[3])
	})
	add("IPv6 hosts in one /64", 3000, func(int) ipset.Range { return host6(0x20010db8_00000000, r.Uint64()) })
	add("IPv6 hosts in crowded /96", 3000, func(i int) ipset.Range { return host6(0x20010db8_00000000, uint64(i%7)<<32|uint64(r.Uint32()>>20)) })
	add("IPv6 hosts, two in each /64", 3000, func(i int) ipset.Range { return host6(0x20010db8_00000000+uint64(i/2)*3, r.Uint64()) })
	add("IPv6 /48 in a few /32", 5000, func(int) ipset.Range {
		hi := 0x2a000000_00000000 | uint64(r.IntN(8))<<32 | uint64(r.Uint32()&0xffff0000)
		return ipset.Range{First: ipset.Addr{Hi: hi}, Last: ipset.Addr{Hi: hi | 0xffff, Lo: ^uint64(0)}}
	})
	add("any ranges", 2000, func(int) ipset.Range {
		a := ipset.Addr{Hi: r.Uint64() >> (r.IntN(64)), Lo: r.Uint64() >> (r.IntN(64))}
		b := ipset.Addr{Hi: a.Hi, Lo: a.Lo | r.Uint64()>>r.IntN(64)}
		return ipset.Range{First: a, Last: b}
	})
	shapes := map[string]*ipset.Set{}
	for name, list := range ranges {
		shapes[name] = ipset.New(list)
	}
	return shapes
}

func prefix4(a uint32, length int) ipset.Range {
	rest := ^uint32(0) >> length
	return ipset.Range{First: ipset.From4(a &^ rest), Last: ipset.From4(a | rest)}
}

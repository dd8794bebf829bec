package frames

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// Bounds of what Generator makes: BPF_PROG_TEST_RUN takes no frame without a
// whole Ethernet header, and none that does not fit in a page beside the
// kernel's own data.
const (
	MinFrame = 14
	MaxFrame = 3072
)

// Generator draws frames: most are sound, some are damaged, and all that the
// packet reader tells apart comes up. Addresses and ports come from the pools,
// so that a policy over the same pools meets them. Equal sources of randomness
// and pools give equal frames. It must not be used concurrently.
type Generator struct {
	Rand  *rand.Rand
	V4    []netip.Addr
	V6    []netip.Addr
	Ports []uint16
}

// New makes a generator with small pools.
func New(r *rand.Rand) *Generator {
	g := &Generator{Rand: r, Ports: []uint16{0, 22, 53, 67, 68, 80, 443, 546, 547, 8080, 65535}}
	for _, s := range []string{"0.0.0.0", "10.0.0.1", "10.0.0.2", "192.0.2.7", "198.51.100.255", "224.0.0.1", "255.255.255.255"} {
		g.V4 = append(g.V4, netip.MustParseAddr(s))
	}
	for _, s := range []string{"::", "::1", "fe80::1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::ffff", "ff02::1"} {
		g.V6 = append(g.V6, netip.MustParseAddr(s))
	}
	return g
}

// Frame draws an Ethernet frame of MinFrame to MaxFrame bytes.
func (g *Generator) Frame() []byte {
	var f []byte
	switch n := g.Rand.IntN(100); {
	case n < 6:
		f = g.notIP()
	case n < 11:
		f = g.neighbour()
	case n < 15:
		f = g.dhcp()
	case n < 55:
		f = g.ipv4()
	default:
		f = g.ipv6()
	}
	if g.in(3) { // Ethernet pads short frames, and nothing forbids longer ones
		f = append(f, make([]byte, g.Rand.IntN(40))...)
	}
	if g.in(4) {
		f = g.damage(f)
	}
	if g.in(5) {
		for range 1 + g.Rand.IntN(3) {
			f = VLAN(f, g.tagType(), uint16(g.Rand.Uint32()))
		}
	}
	if g.in(12) {
		f = f[:MinFrame+g.Rand.IntN(len(f)-MinFrame+1)]
	}
	return f[:min(len(f), MaxFrame)]
}

// in tells, once in n times, yes.
func (g *Generator) in(n int) bool { return g.Rand.IntN(n) == 0 }

func pick[T any](g *Generator, from ...T) T { return from[g.Rand.IntN(len(from))] }

func (g *Generator) port() uint16 { return pick(g, g.Ports...) }

func (g *Generator) tagType() uint16 { return pick(g, uint16(TypeVLAN), TypeVLAN, TypeQinQ, 0x9100) }

// bytes draws up to n random bytes.
func (g *Generator) bytes(n int) []byte {
	b := make([]byte, g.Rand.IntN(n+1))
	for i := range b {
		b[i] = byte(g.Rand.Uint32())
	}
	return b
}

// notIP draws link control, 802.3 frames, and types that egate does not know.
func (g *Generator) notIP() []byte {
	if g.in(3) {
		payload := append([]byte{pick(g, byte(0x42), 0xfe, 0xaa, 0)}, g.bytes(40)...)
		if g.in(6) {
			payload = nil
		}
		return Ethernet(uint16(g.Rand.IntN(0x600)), payload)
	}
	known := pick(g, uint16(TypeARP), 0x8035, 0x8809, 0x888e, 0x88c7, TypeLLDP, 0x88f7, 0x8902)
	return Ethernet(pick(g, known, known, uint16(g.Rand.Uint32()), 0x8847, 0x8864, 0x05ff, 0x0600), g.bytes(46))
}

// neighbour draws neighbour discovery and listener messages, and what almost is.
func (g *Generator) neighbour() []byte {
	src, dst := pick(g, g.V6...), pick(g, g.V6...)
	h := IPv6{Src: src, Dst: dst, Proto: ICMPv6, HopLimit: pick(g, uint8(255), 255, 255, 1, 1, 64)}
	if g.in(3) {
		h.Extensions = append(h.Extensions, Options(HopByHop, 0)) // router alert stands here
	}
	if g.in(8) {
		h.Extensions = append(h.Extensions, g.extension(FragmentHdr))
	}
	kind := pick(g, uint8(130), 131, 132, 133, 134, 135, 136, 137, 143, 138)
	return h.Frame(ICMPMessage(src, dst, kind, 0, 0, append(dst.AsSlice(), g.bytes(16)...)))
}

// dhcp draws client and server traffic, and what almost is.
func (g *Generator) dhcp() []byte {
	client, server, pool := uint16(68), uint16(67), g.V4
	if g.in(2) {
		client, server, pool = 546, 547, g.V6
	}
	if g.in(2) {
		client, server = server, client
	}
	if g.in(8) {
		client = g.port()
	}
	return UDP(pick(g, pool...), pick(g, pool...), client, server, g.bytes(64))
}

func (g *Generator) ipv4() []byte {
	src, dst := pick(g, g.V4...), pick(g, g.V4...)
	proto, segment := g.segment(src, dst)
	h := IPv4{Src: src, Dst: dst, Proto: proto, TTL: uint8(1 + g.Rand.IntN(255)), ID: uint16(g.Rand.IntN(4))}
	if g.in(4) {
		h.Options = g.options()
	}
	if g.in(8) { // extension headers are read past in IPv4 too, AH above all
		kind := pick(g, uint8(AH), AH, AH, Destination, HopByHop)
		header := append([]byte{proto}, g.extension(kind).Body...)
		h.Proto, segment = kind, append(header, segment...)
	}
	switch g.Rand.IntN(12) {
	case 0:
		h.Fragment = 0x2000 // first
	case 1:
		h.Fragment = uint16(1+g.Rand.IntN(0x1fff)) | pick(g, uint16(0), 0x2000)
	case 2, 3:
		h.Fragment = pick(g, uint16(0x4000), 0x8000)
	}
	return h.Frame(segment)
}

// options draws IPv4 options, mostly well formed, source routes among them.
func (g *Generator) options() []byte {
	var out []byte
	for range 1 + g.Rand.IntN(4) {
		switch g.Rand.IntN(6) {
		case 0:
			out = append(out, 1)
		case 1, 2: // a source route: its pointer moves on by 4 a hop
			hops := g.Rand.IntN(4)
			o := make([]byte, 3+4*hops)
			o[0], o[1], o[2] = pick(g, byte(131), 137), byte(len(o)), byte(4+4*g.Rand.IntN(hops+2))
			out = append(out, o...)
		case 3: // anything at all
			out = append(out, g.bytes(6)...)
		default:
			o := append([]byte{pick(g, byte(7), 68, 148, 130), 0}, g.bytes(8)...)
			o[1] = byte(len(o))
			out = append(out, o...)
		}
	}
	if g.in(4) {
		out = append(out, 0)
	}
	return out[:min(len(out), 40)]
}

func (g *Generator) ipv6() []byte {
	src, dst := pick(g, g.V6...), pick(g, g.V6...)
	if g.in(40) { // such an address must not be taken for IPv4
		dst = netip.AddrFrom16(pick(g, g.V4...).As16())
	}
	proto, segment := g.segment(src, dst)
	h := IPv6{Src: src, Dst: dst, Proto: proto, HopLimit: uint8(1 + g.Rand.IntN(255))}
	if g.in(2) {
		count := g.Rand.IntN(4)
		if g.in(5) {
			count = 7 + g.Rand.IntN(4) // around the limit of the reader
		}
		for range count {
			h.Extensions = append(h.Extensions, g.extension(pick(g, uint8(HopByHop), Routing, FragmentHdr, AH, Destination, Mobility, HIP, Shim6)))
		}
	}
	return h.Frame(segment)
}

func (g *Generator) extension(kind uint8) Extension {
	switch kind {
	case Routing:
		return RoutingHeader(pick(g, uint8(0), 2, 3, 4), pick(g, uint8(0), 0, 1, 2), g.V6[:g.Rand.IntN(3)]...)
	case FragmentHdr:
		offset := pick(g, 0, 0, 0, 8*(1+g.Rand.IntN(0x1fff)))
		x := FragmentHeader(offset, g.in(2), uint32(g.Rand.IntN(4)))
		x.Body[0] = byte(g.Rand.Uint32()) // reserved: not a length
		return x
	case AH:
		return AuthHeader(pick(g, uint8(0), 1, 4, 5))
	}
	n := pick(g, uint8(0), 0, 1, 3)
	if g.in(10) {
		n = pick(g, uint8(40), 100, 126, 127, 255) // up to and over what the reader reads
	}
	return Options(kind, n)
}

// segment draws a transport header with data.
func (g *Generator) segment(src, dst netip.Addr) (proto uint8, segment []byte) {
	switch g.Rand.IntN(12) {
	case 0, 1, 2:
		segment = TCPSegment(src, dst, g.port(), g.port(), uint8(g.Rand.Uint32()), g.bytes(60))
		segment[12] = byte(5+g.Rand.IntN(11)) << 4 // options are data that may not be there
		if !g.in(4) {
			segment[12] = 5 << 4
		}
		return TCPProto, segment
	case 3, 4, 5:
		return UDPProto, UDPDatagram(src, dst, g.port(), g.port(), g.bytes(60))
	case 6:
		return SCTPProto, SCTPPacket(g.port(), g.port(), g.bytes(30))
	case 7, 8:
		kind := pick(g, uint8(0), 8, 8, 13, uint8(g.Rand.Uint32()))
		if !src.Is4() {
			kind = pick(g, uint8(128), 129, 128, uint8(g.Rand.Uint32()))
		}
		return g.icmpProto(src), ICMPMessage(src, dst, kind, uint8(g.Rand.IntN(16)), uint32(g.port())<<16, g.bytes(30))
	case 9:
		return g.icmpProto(src), g.icmpError(src, dst)
	}
	return pick(g, uint8(GRE), ESP, NoNext, 4, 41, 2, AH, 0, uint8(g.Rand.Uint32())), g.bytes(60)
}

// icmpProto is ICMP's number in the family of the address; now and then the
// other family's, which nothing keeps from a wire.
func (g *Generator) icmpProto(a netip.Addr) uint8 {
	if a.Is4() != g.in(30) {
		return ICMP
	}
	return ICMPv6
}

// icmpError draws an error about a packet that dst sent, quoted in part.
func (g *Generator) icmpError(src, dst netip.Addr) []byte {
	proto, segment := uint8(UDPProto), UDPDatagram(dst, src, g.port(), g.port(), g.bytes(8))
	if g.in(2) {
		proto, segment = TCPProto, TCPSegment(dst, src, g.port(), g.port(), 2, nil)
	}
	if g.in(4) {
		proto, segment = ICMP, ICMPMessage(dst, src, 8, 0, uint32(g.port())<<16, nil)
	}
	var quoted []byte
	kind := pick(g, uint8(3), 4, 5, 11, 12)
	if dst.Is4() {
		h := IPv4{Src: dst, Dst: src, Proto: proto}
		if g.in(4) {
			h.Options = g.options()
		}
		quoted = h.Packet(segment)
	} else {
		kind = uint8(1 + g.Rand.IntN(4))
		if proto == ICMP {
			proto, segment = ICMPv6, ICMPMessage(dst, src, 128, 0, uint32(g.port())<<16, nil)
		}
		quoted = IPv6{Src: dst, Dst: src, Proto: proto}.Packet(segment)
	}
	if g.in(4) {
		quoted = quoted[:g.Rand.IntN(len(quoted)+1)]
	}
	return ICMPMessage(src, dst, kind, uint8(g.Rand.IntN(4)), 0, quoted)
}

// damage contradicts the frame in one way: a length, a version, a byte, its end.
func (g *Generator) damage(f []byte) []byte {
	ip := f[14:]
	small := func(v uint16) uint16 { return v + uint16(g.Rand.IntN(81)) - 40 }
	if len(ip) < 20 {
		return f[:MinFrame+g.Rand.IntN(len(ip)+1)]
	}
	length, transport := 2, int(ip[0]&15)*4
	if ip[0]>>4 == 6 {
		length, transport = 4, 40
	}
	switch g.Rand.IntN(9) {
	case 0: // the end missing
		return f[:MinFrame+g.Rand.IntN(len(ip)+1)]
	case 1: // headers only, cut closely
		return f[:MinFrame+g.Rand.IntN(min(len(ip), 70)+1)]
	case 2:
		binary.BigEndian.PutUint16(ip[length:], small(binary.BigEndian.Uint16(ip[length:])))
	case 3:
		binary.BigEndian.PutUint16(ip[length:], pick(g, uint16(0), 1, 20, 40, 0xffff, uint16(g.Rand.Uint32())))
	case 4:
		ip[0] = byte(g.Rand.Uint32())
	case 5:
		ip[0] = ip[0]&0xf0 | byte(g.Rand.IntN(16))
	case 6: // the length in UDP's header, the data offset in TCP's
		if len(ip) >= transport+14 {
			binary.BigEndian.PutUint16(ip[transport+4:], uint16(g.Rand.IntN(80)))
			ip[transport+12] = byte(g.Rand.Uint32())
		}
	default: // any byte of the headers
		ip[g.Rand.IntN(min(len(ip), 120))] = byte(g.Rand.Uint32())
	}
	return f
}

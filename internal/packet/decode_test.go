package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"egate/internal/ipset"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// The packets of the tables below go from a to b, TCP and UDP from 1111 to 443.
var (
	a4, b4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

const (
	addresses = HaveSrc | HaveDst
	header    = addresses | HaveProto
	all       = header | HaveTransport
)

// decodeCase says what Decode makes of a frame: what it can read and why not
// the rest. check looks at the values.
type decodeCase struct {
	name    string
	frame   []byte
	in      FrameInfo
	have    Have
	problem verdict.Reason
	check   func(k *Key) bool
}

func runDecode(t *testing.T, cases []decodeCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			k := Decode(c.frame, c.in)
			if !k.IP || k.Have != c.have || k.Problem != c.problem {
				t.Errorf("IP %v, Have %04b, problem %v; want IP, %04b, %v: %s", k.IP, k.Have, k.Problem, c.have, c.problem, &k)
			}
			if c.check != nil && !c.check(&k) {
				t.Errorf("unexpected values: %+v", k)
			}
			checkInvariants(t, &k)
		})
	}
}

// edit gives a copy of the frame, changed.
func edit(frame []byte, change func(f []byte)) []byte {
	f := slices.Clone(frame)
	change(f)
	return f
}

func put16(f []byte, at int, v uint16) { binary.BigEndian.PutUint16(f[at:], v) }

// cut gives the frame's first n bytes with an IP length that knows: the packet
// is short, not cut.
func cut(frame []byte, n int) []byte {
	f := slices.Clone(frame[:n])
	if f[12] == 0x08 {
		put16(f, 16, uint16(n-14))
	} else {
		put16(f, 18, uint16(n-54))
	}
	return f
}

// tcp4 and tcp6 are the plain packets that the tables change.
func tcp4() []byte { return frames.TCP(a4, b4, 1111, 443, FlagSYN|FlagACK, nil) }
func tcp6() []byte { return frames.TCP(a6, b6, 1111, 443, FlagSYN|FlagACK, nil) }

func hasTCP(k *Key) bool {
	return k.Proto == ProtoTCP && k.SourcePort == 1111 && k.Selector == 443 && k.TCPFlags == FlagSYN|FlagACK
}

func TestDecodeWellFormed(t *testing.T) {
	endpoints := func(family uint8, src, dst netip.Addr) func(*Key) bool {
		etherType := map[uint8]uint16{4: 0x0800, 6: 0x86dd}[family]
		return func(k *Key) bool {
			return hasTCP(k) && k.Family == family && k.EtherType == etherType && k.HopLimit == 64 &&
				k.Src == ipset.FromNetip(src) && k.Dst == ipset.FromNetip(dst) && k.Fragment == NotFragment && k.FragmentID == 0
		}
	}
	runDecode(t, []decodeCase{
		{"tcp4", tcp4(), FrameInfo{}, all, 0, endpoints(4, a4, b4)},
		{"tcp6", tcp6(), FrameInfo{}, all, 0, endpoints(6, a6, b6)},
		{"padding behind the packet", append(tcp4(), 0, 0, 0, 0, 0, 0), FrameInfo{}, all, 0, endpoints(4, a4, b4)},
		{"padding behind the IPv6 packet", append(tcp6(), 0, 0, 0, 0, 0, 0), FrameInfo{}, all, 0, endpoints(6, a6, b6)},
		{"ingress", tcp4(), FrameInfo{Direction: verdict.Ingress}, all, 0, func(k *Key) bool { return k.Direction == verdict.Ingress }},
		{"udp", frames.UDP(a4, b4, 1111, 443, []byte("x")), FrameInfo{}, all, 0, func(k *Key) bool {
			return k.Proto == ProtoUDP && k.SourcePort == 1111 && k.Selector == 443 && k.TCPFlags == 0 && k.HasPorts()
		}},
		{"sctp", frames.SCTP(a6, b6, 1111, 443, nil), FrameInfo{}, all, 0, func(k *Key) bool {
			return k.Proto == ProtoSCTP && k.SourcePort == 1111 && k.Selector == 443 && k.HasPorts()
		}},
		{"echo request", frames.ICMPEcho(a4, b4, false, 77, 1, nil), FrameInfo{}, all, 0, func(k *Key) bool {
			return k.Proto == ProtoICMP && k.Selector == 8<<8 && k.SourcePort == 77 && k.HasICMP()
		}},
		{"echo reply", frames.ICMPEcho(a4, b4, true, 77, 1, nil), FrameInfo{}, all, 0, func(k *Key) bool { return k.Selector == 0 && k.SourcePort == 77 }},
		{"echo request 6", frames.ICMPEcho(a6, b6, false, 77, 1, nil), FrameInfo{}, all, 0, func(k *Key) bool {
			return k.Proto == ProtoICMPv6 && k.Selector == 128<<8 && k.SourcePort == 77 && k.HasICMP()
		}},
		{"echo reply 6", frames.ICMPEcho(a6, b6, true, 77, 1, nil), FrameInfo{}, all, 0, func(k *Key) bool { return k.Selector == 129<<8 && k.SourcePort == 77 }},
		{"icmp without identifier", frames.ICMPFrame(a4, b4, 13, 2, 0xffffffff, nil), FrameInfo{}, all, 0, func(k *Key) bool { return k.Selector == 13<<8|2 && k.SourcePort == 0 }},
		{"icmp of the other family's echo", frames.ICMPFrame(a4, b4, 128, 0, 0xffffffff, nil), FrameInfo{}, all, 0, func(k *Key) bool { return k.SourcePort == 0 }},
		{"icmp in ipv6", frames.IPv6{Src: a6, Dst: b6, Proto: ProtoICMP}.Frame(frames.ICMPMessage(a4, b4, 8, 0, 5<<16, nil)), FrameInfo{}, all, 0, func(k *Key) bool {
			return k.Proto == ProtoICMP && k.Selector == 8<<8 && k.SourcePort == 5
		}},
		{"neighbour solicitation", frames.ICMPFrame(a6, b6, 135, 0, 0, nil), FrameInfo{}, all, 0, func(k *Key) bool { return k.HopLimit == 255 && k.Selector == 135<<8 }},
		{"gre has no transport header", frames.IPv4{Src: a4, Dst: b4, Proto: 47}.Frame(make([]byte, 40)), FrameInfo{}, header, 0, func(k *Key) bool {
			return k.Proto == 47 && k.Selector == 0 && k.SourcePort == 0 && !k.HasPorts() && !k.HasICMP()
		}},
		{"empty gre", frames.IPv4{Src: a4, Dst: b4, Proto: 47}.Frame(nil), FrameInfo{}, header, 0, nil},
		{"esp", frames.IPv6{Src: a6, Dst: b6, Proto: 50}.Frame(make([]byte, 40)), FrameInfo{}, header, 0, func(k *Key) bool { return k.Proto == 50 }},
		{"no next header", frames.IPv6{Src: a6, Dst: b6, Proto: 59}.Frame(nil), FrameInfo{}, header, 0, func(k *Key) bool { return k.Proto == 59 }},
		{"udplite has ports that are not read", frames.IPv4{Src: a4, Dst: b4, Proto: 136}.Frame(make([]byte, 40)), FrameInfo{}, header, 0, nil},
		{"ah in ipv4 is read past", frames.IPv4{Src: a4, Dst: b4, Proto: 51}.Frame(append([]byte{47, 1}, make([]byte, 38)...)), FrameInfo{}, header, 0, func(k *Key) bool { return k.Proto == 47 }},
	})
}

func TestDecodeLinkLayer(t *testing.T) {
	tags := func(frame []byte, types ...uint16) []byte {
		for _, etherType := range types {
			frame = frames.VLAN(frame, etherType, 7)
		}
		return frame
	}
	unknown := func(k *Key) bool { return *k == Key{IP: true, Problem: k.Problem} }
	two := tags(tcp6(), 0x8100, 0x9100)
	runDecode(t, []decodeCase{
		{"no bytes", nil, FrameInfo{}, 0, verdict.ReasonTruncated, unknown},
		{"13 bytes", tcp4()[:13], FrameInfo{}, 0, verdict.ReasonTruncated, unknown},
		{"14 bytes of ipv4", tcp4()[:14], FrameInfo{}, 0, verdict.ReasonTruncated, func(k *Key) bool { return k.EtherType == 0x0800 && k.Family == 4 }},
		{"14 bytes of ipv6", tcp6()[:14], FrameInfo{}, 0, verdict.ReasonTruncated, func(k *Key) bool { return k.EtherType == 0x86dd && k.Family == 6 }},
		{"14 bytes with a tag", two[:14], FrameInfo{}, 0, verdict.ReasonTruncated, unknown},
		{"tag of 3 bytes", two[:17], FrameInfo{}, 0, verdict.ReasonTruncated, unknown},
		{"second tag of 3 bytes", two[:21], FrameInfo{}, 0, verdict.ReasonTruncated, unknown},
		{"both tags and nothing else", two[:22], FrameInfo{}, 0, verdict.ReasonTruncated, func(k *Key) bool { return k.EtherType == 0x86dd && k.Family == 6 }},
		{"one tag", tags(tcp4(), 0x8100), FrameInfo{}, all, 0, hasTCP},
		{"one service tag", tags(tcp4(), 0x88a8), FrameInfo{}, all, 0, hasTCP},
		{"one old service tag", tags(tcp4(), 0x9100), FrameInfo{}, all, 0, hasTCP},
		{"two tags", two, FrameInfo{}, all, 0, hasTCP},
		{"three tags", tags(tcp4(), 0x8100, 0x8100, 0x8100), FrameInfo{}, 0, verdict.ReasonVLANDepth, unknown},
		{"three tags, the third without its bytes", tags(tcp4(), 0x8100, 0x8100, 0x8100)[:22], FrameInfo{}, 0, verdict.ReasonVLANDepth, unknown},
		{"no link layer 4", frames.NoLink(tcp4()), FrameInfo{Link: NoLink}, all, 0, func(k *Key) bool { return hasTCP(k) && k.Family == 4 && k.EtherType == 0 }},
		{"no link layer 6", frames.NoLink(tcp6()), FrameInfo{Link: NoLink}, all, 0, func(k *Key) bool { return hasTCP(k) && k.Family == 6 && k.EtherType == 0 }},
		{"no link layer, one byte", []byte{0x45}, FrameInfo{Link: NoLink}, 0, verdict.ReasonTruncated, func(k *Key) bool { return k.Family == 4 }},
	})
}

func TestDecodeNotIP(t *testing.T) {
	cases := []struct {
		name      string
		frame     []byte
		link      LinkLayer
		etherType uint16
		control   bool
	}{
		{"arp", frames.Ethernet(0x0806, make([]byte, 28)), Ethernet, 0x0806, true},
		{"arp with a tag", frames.VLAN(frames.Ethernet(0x0806, nil), 0x8100, 1), Ethernet, 0x0806, true},
		{"rarp", frames.Ethernet(0x8035, nil), Ethernet, 0x8035, true},
		{"slow protocols", frames.Ethernet(0x8809, nil), Ethernet, 0x8809, true},
		{"eapol", frames.Ethernet(0x888e, nil), Ethernet, 0x888e, true},
		{"pre-authentication", frames.Ethernet(0x88c7, nil), Ethernet, 0x88c7, true},
		{"lldp", frames.Ethernet(0x88cc, nil), Ethernet, 0x88cc, true},
		{"ptp", frames.Ethernet(0x88f7, nil), Ethernet, 0x88f7, true},
		{"cfm", frames.Ethernet(0x8902, nil), Ethernet, 0x8902, true},
		{"mpls", frames.Ethernet(0x8847, make([]byte, 40)), Ethernet, 0x8847, false},
		{"pppoe", frames.Ethernet(0x8864, make([]byte, 40)), Ethernet, 0x8864, false},
		{"stp", frames.Ethernet(38, []byte{0x42, 0x42, 3}), Ethernet, 38, true},
		{"stp with a tag", frames.VLAN(frames.Ethernet(38, []byte{0x42, 0x42, 3}), 0x8100, 1), Ethernet, 38, true},
		{"is-is", frames.Ethernet(0x5ff, []byte{0xfe, 0xfe, 3}), Ethernet, 0x5ff, true},
		{"802.3 of another protocol", frames.Ethernet(38, []byte{0xaa, 0x42, 3}), Ethernet, 38, false},
		{"802.3 without a byte", frames.Ethernet(0, nil), Ethernet, 0, false},
		{"0x600 is a type", frames.Ethernet(0x600, []byte{0x42, 0x42, 3}), Ethernet, 0x600, false},
		{"no link layer, not ip", []byte{0x50, 0, 0}, NoLink, 0, false},
		{"no link layer, arp's bytes", frames.Ethernet(0x0806, nil), NoLink, 0, false},
		{"no link layer, no byte", nil, NoLink, 0, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want := Key{EtherType: c.etherType, Control: c.control}
			if k := Decode(c.frame, FrameInfo{Link: c.link}); k != want {
				t.Errorf("%+v, want %+v", k, want)
			}
		})
	}
}

func TestDecodeIPv4Header(t *testing.T) {
	withOptions := func(options ...byte) []byte {
		return frames.IPv4{Src: a4, Dst: b4, Proto: ProtoTCP, Options: options}.Frame(frames.TCPSegment(a4, b4, 1111, 443, FlagSYN|FlagACK, nil))
	}
	byteAt := func(at int, v byte) []byte { return edit(tcp4(), func(f []byte) { f[14+at] = v }) }
	total := func(n uint16) []byte { return edit(tcp4(), func(f []byte) { put16(f, 16, n) }) }
	routed := func(k *Key) bool { return hasTCP(k) && k.Dst == ipset.Addr{} && k.Src == ipset.FromNetip(a4) }
	bare := func(k *Key) bool {
		return *k == Key{IP: true, EtherType: 0x0800, Family: 4, Problem: k.Problem}
	}
	const short, bad, length, route = verdict.ReasonTruncated, verdict.ReasonBadIPHeader, verdict.ReasonBadLength, verdict.ReasonSourceRoute
	runDecode(t, []decodeCase{
		{"19 bytes", tcp4()[:33], FrameInfo{}, 0, short, bare},
		{"19 bytes come before the version", byteAt(0, 0x65)[:33], FrameInfo{}, 0, short, bare},
		{"20 bytes", cut(frames.IPv4{Src: a4, Dst: b4, Proto: 47}.Frame(nil), 34), FrameInfo{}, header, 0, nil},
		{"version 6", byteAt(0, 0x65), FrameInfo{}, 0, bad, bare},
		{"version 0", byteAt(0, 0x05), FrameInfo{}, 0, bad, bare},
		{"header of 16 bytes", byteAt(0, 0x44), FrameInfo{}, 0, bad, bare},
		{"header of 60 bytes in a packet of 40", byteAt(0, 0x4f), FrameInfo{}, 0, short, bare},
		{"header as long as the packet", frames.IPv4{Src: a4, Dst: b4, Proto: ProtoTCP, Options: slices.Repeat([]byte{1}, 20)}.Frame(nil), FrameInfo{}, header, short, nil},
		{"total length below the header", total(19), FrameInfo{}, 0, length, bare},
		{"total length is the header", total(20), FrameInfo{}, header, short, nil},
		{"total length of 39", total(39), FrameInfo{}, header, short, nil},
		{"total length of 40", total(40), FrameInfo{}, all, 0, hasTCP},
		{"total length over the frame", total(41), FrameInfo{}, 0, length, bare},
		{"total length 0", total(0), FrameInfo{}, 0, length, bare},
		{"total length 0, gso", total(0), FrameInfo{GSO: true}, all, 0, hasTCP},
		{"total length over the frame, gso", total(41), FrameInfo{GSO: true}, 0, length, bare},
		{"total length below the header, gso", total(19), FrameInfo{GSO: true}, 0, length, bare},
		{"total length below a header with options", edit(withOptions(1, 1, 1, 1), func(f []byte) { put16(f, 16, 23) }), FrameInfo{}, 0, length, bare},
		{"length in a cut capture", tcp4()[:50], FrameInfo{Length: 54}, header, short, nil},
		{"long frame in a cut capture", edit(tcp4(), func(f []byte) { put16(f, 16, 1500) }), FrameInfo{Length: 1514}, all, 0, hasTCP},
		{"length over a cut capture's frame", edit(tcp4(), func(f []byte) { put16(f, 16, 1501) }), FrameInfo{Length: 1514}, 0, length, bare},
		{"bytes behind the frame's length", append(total(41), 0), FrameInfo{Length: 54}, 0, length, bare},

		{"no-operation and end", withOptions(1, 1, 0, 99), FrameInfo{}, all, 0, hasTCP},
		{"unknown option", withOptions(200, 4, 0, 0), FrameInfo{}, all, 0, hasTCP},
		{"option of 2 bytes", withOptions(200, 2, 1, 1), FrameInfo{}, all, 0, hasTCP},
		{"option of 1 byte", withOptions(200, 1, 1, 1), FrameInfo{}, 0, bad, bare},
		{"option of 0 bytes", withOptions(200, 0, 1, 1), FrameInfo{}, 0, bad, bare},
		{"option up to the header's end", withOptions(1, 200, 3, 9), FrameInfo{}, all, 0, hasTCP},
		{"option over the header's end", withOptions(1, 200, 4, 9), FrameInfo{}, 0, bad, bare},
		{"option without a length", withOptions(1, 1, 1, 200), FrameInfo{}, 0, bad, bare},
		{"40 bytes of options", withOptions(slices.Repeat([]byte{1}, 40)...), FrameInfo{}, all, 0, hasTCP},
		{"loose route, one hop to come", withOptions(131, 7, 4, 9, 9, 9, 9), FrameInfo{}, all &^ HaveDst, route, routed},
		{"strict route, one hop to come", withOptions(137, 7, 4, 9, 9, 9, 9), FrameInfo{}, all &^ HaveDst, route, routed},
		{"route's pointer at its last byte", withOptions(131, 7, 7, 9, 9, 9, 9), FrameInfo{}, all &^ HaveDst, route, routed},
		{"route used up", withOptions(131, 7, 8, 9, 9, 9, 9), FrameInfo{}, all, 0, hasTCP},
		{"record route", withOptions(7, 7, 4, 9, 9, 9, 9), FrameInfo{}, all, 0, hasTCP},
		{"empty route", withOptions(131, 3, 4), FrameInfo{}, all, 0, hasTCP},
		{"empty route, pointer in it", withOptions(131, 3, 3), FrameInfo{}, all &^ HaveDst, route, routed},
		{"route without a pointer", withOptions(131, 2, 1, 1), FrameInfo{}, 0, bad, bare},
		{"route behind no-operations", withOptions(1, 137, 7, 4, 9, 9, 9, 9), FrameInfo{}, all &^ HaveDst, route, routed},
		{"route behind the end", withOptions(0, 131, 7, 4), FrameInfo{}, all, 0, hasTCP},
		{"second route not used up", withOptions(131, 3, 4, 137, 3, 2), FrameInfo{}, all &^ HaveDst, route, routed},
		{"first route not used up", withOptions(131, 3, 2, 137, 3, 4), FrameInfo{}, all &^ HaveDst, route, routed},
		{"bad option behind a route", withOptions(131, 3, 2, 200, 9), FrameInfo{}, 0, bad, bare},
		{"length before options", edit(withOptions(200, 0, 1, 1), func(f []byte) { put16(f, 16, 1) }), FrameInfo{}, 0, length, bare},
		{"route keeps its reason", cut(withOptions(131, 3, 2, 1), 57), FrameInfo{}, HaveSrc | HaveProto, route, nil},
	})
}

func TestDecodeIPv4Fragments(t *testing.T) {
	fragment := func(field uint16) []byte {
		return frames.IPv4{Src: a4, Dst: b4, Proto: ProtoUDP, ID: 9, Fragment: field}.Frame(frames.UDPDatagram(a4, b4, 1111, 443, make([]byte, 16)))
	}
	is := func(f Fragment, id uint32) func(*Key) bool {
		return func(k *Key) bool { return k.Fragment == f && k.FragmentID == id && k.Proto == ProtoUDP }
	}
	runDecode(t, []decodeCase{
		{"don't fragment", fragment(0x4000), FrameInfo{}, all, 0, is(NotFragment, 0)},
		{"reserved bit", fragment(0x8000), FrameInfo{}, all, 0, is(NotFragment, 0)},
		{"first", fragment(0x2000), FrameInfo{}, all, 0, is(FirstFragment, 9)},
		{"middle", fragment(0x2001), FrameInfo{}, header, 0, is(LaterFragment, 9)},
		{"last", fragment(0x0001), FrameInfo{}, header, 0, is(LaterFragment, 9)},
		{"last possible offset", fragment(0x1fff), FrameInfo{}, header, 0, is(LaterFragment, 9)},
		{"first without its transport header", cut(fragment(0x2000), 14+20+7), FrameInfo{}, header, verdict.ReasonTruncated, is(FirstFragment, 9)},
		{"later without a byte", cut(fragment(0x0001), 14+20), FrameInfo{}, header, 0, is(LaterFragment, 9)},
		{"udp length is the datagram's", edit(fragment(0x2000), func(f []byte) { put16(f, 14+20+4, 5000) }), FrameInfo{}, all, 0, is(FirstFragment, 9)},
		{"udp length below 8", edit(fragment(0x2000), func(f []byte) { put16(f, 14+20+4, 7) }), FrameInfo{}, header, verdict.ReasonBadTransport, is(FirstFragment, 9)},
	})
}

func TestDecodeTransport(t *testing.T) {
	for _, c := range []struct {
		name          string
		need          int
		frame, frame6 []byte
	}{
		{"tcp", 20, tcp4(), tcp6()},
		{"udp", 8, frames.UDP(a4, b4, 1, 2, nil), frames.UDP(a6, b6, 1, 2, nil)},
		{"sctp", 12, frames.SCTP(a4, b4, 1, 2, nil), frames.SCTP(a6, b6, 1, 2, nil)},
		{"icmp", 8, frames.ICMPEcho(a4, b4, false, 1, 2, nil), frames.ICMPEcho(a6, b6, false, 1, 2, nil)},
	} {
		at4, at6 := 14+20, 14+40
		runDecode(t, []decodeCase{
			{c.name + " 4 whole", cut(c.frame, at4+c.need), FrameInfo{}, all, 0, nil},
			{c.name + " 4 one byte short", cut(c.frame, at4+c.need-1), FrameInfo{}, header, verdict.ReasonTruncated, nil},
			{c.name + " 4 absent", cut(c.frame, at4), FrameInfo{}, header, verdict.ReasonTruncated, nil},
			{c.name + " 6 whole", cut(c.frame6, at6+c.need), FrameInfo{}, all, 0, nil},
			{c.name + " 6 one byte short", cut(c.frame6, at6+c.need-1), FrameInfo{}, header, verdict.ReasonTruncated, nil},
			{c.name + " 6 absent", cut(c.frame6, at6), FrameInfo{}, header, verdict.ReasonTruncated, nil},
		})
	}

	dataOffset := func(words byte, payload int) []byte {
		f := frames.TCP(a4, b4, 1111, 443, FlagSYN|FlagACK, make([]byte, payload))
		f[14+20+12] = words << 4
		return f
	}
	udpLength := func(n uint16) []byte {
		return edit(frames.UDP(a4, b4, 1111, 443, make([]byte, 8)), func(f []byte) { put16(f, 14+20+4, n) })
	}
	bad := verdict.ReasonBadTransport
	runDecode(t, []decodeCase{
		{"tcp data offset 4", dataOffset(4, 8), FrameInfo{}, header, bad, func(k *Key) bool { return k.TCPFlags == 0 && k.Selector == 0 }},
		{"tcp options whole", dataOffset(15, 40), FrameInfo{}, all, 0, hasTCP},
		{"tcp options one byte short", dataOffset(15, 39), FrameInfo{}, header, bad, nil},
		{"tcp options only in the padding", append(dataOffset(6, 0), 0, 0, 0, 0), FrameInfo{}, header, bad, nil},
		{"tcp options beyond a first fragment", edit(dataOffset(6, 0), func(f []byte) { f[20] = 0x20 }), FrameInfo{}, header, bad, nil},
		{"udp length 7", udpLength(7), FrameInfo{}, header, bad, nil},
		{"udp length 8", udpLength(8), FrameInfo{}, all, 0, nil},
		{"udp length exact", udpLength(16), FrameInfo{}, all, 0, nil},
		{"udp length over", udpLength(17), FrameInfo{}, header, bad, nil},
		{"udp length over, gso", udpLength(17), FrameInfo{GSO: true}, all, 0, nil},
		{"udp length 7, gso", udpLength(7), FrameInfo{GSO: true}, header, bad, nil},
		{"udp length only in the padding", append(udpLength(17), 0, 0), FrameInfo{}, header, bad, nil},
	})
}

package packet

import (
	"net/netip"
	"testing"

	"egate/internal/ipset"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// ext6 is TCP behind extension headers.
func ext6(headers ...frames.Extension) []byte {
	return frames.IPv6{Src: a6, Dst: b6, Proto: ProtoTCP, Extensions: headers}.
		Frame(frames.TCPSegment(a6, b6, 1111, 443, FlagSYN|FlagACK, nil))
}

func repeat(n int, x frames.Extension) (out []frames.Extension) {
	for range n {
		out = append(out, x)
	}
	return out
}

func TestDecodeIPv6Header(t *testing.T) {
	payload := func(n uint16) []byte { return edit(tcp6(), func(f []byte) { put16(f, 18, n) }) }
	address := func(at int, a string) []byte {
		return edit(tcp6(), func(f []byte) {
			b := netip.MustParseAddr(a).As16()
			copy(f[14+at:], b[:])
		})
	}
	bare := func(k *Key) bool { return *k == Key{IP: true, EtherType: 0x86dd, Family: 6, Problem: k.Problem} }
	const short, bad, length = verdict.ReasonTruncated, verdict.ReasonBadIPHeader, verdict.ReasonBadLength
	runDecode(t, []decodeCase{
		{"39 bytes", tcp6()[:14+39], FrameInfo{}, 0, short, bare},
		{"40 bytes", frames.IPv6{Src: a6, Dst: b6, Proto: 59}.Frame(nil), FrameInfo{}, header, 0, nil},
		{"version 4", edit(tcp6(), func(f []byte) { f[14] = 0x45 }), FrameInfo{}, 0, bad, bare},
		{"payload of 19", payload(19), FrameInfo{}, header, short, nil},
		{"payload over the frame", payload(21), FrameInfo{}, 0, length, bare},
		{"payload over the frame, gso", payload(21), FrameInfo{GSO: true}, 0, length, bare},
		{"payload 0", payload(0), FrameInfo{}, header, short, func(k *Key) bool { return k.Proto == ProtoTCP }},
		{"payload 0, gso", payload(0), FrameInfo{GSO: true}, all, 0, hasTCP},
		{"payload 0 before an extension header", edit(ext6(frames.Options(0, 0)), func(f []byte) { put16(f, 18, 0) }), FrameInfo{}, addresses, short, nil},
		{"payload 0 before an extension header, gso", edit(ext6(frames.Options(0, 0)), func(f []byte) { put16(f, 18, 0) }), FrameInfo{GSO: true}, all, 0, hasTCP},
		{"capture cut in the transport", tcp6()[:60], FrameInfo{Length: 74}, header, short, nil},
		{"v4-mapped destination", address(24, "::ffff:10.0.0.2"), FrameInfo{}, 0, bad, bare},
		{"v4-mapped source", address(8, "::ffff:10.0.0.1"), FrameInfo{}, 0, bad, bare},
		{"v4-compatible address", address(24, "::10.0.0.2"), FrameInfo{}, all, 0, func(k *Key) bool { return k.Dst == ipset.Addr{Lo: 0x0a000002} }},
		{"next to the v4-mapped block", address(24, "::fffe:ffff:ffff"), FrameInfo{}, all, 0, hasTCP},
	})
}

func TestDecodeExtensionHeaders(t *testing.T) {
	pad := frames.Options(frames.Destination, 0)
	shorten := func(n int, headers ...frames.Extension) []byte { return cut(ext6(headers...), 14+40+n) }
	var cases []decodeCase
	for name, x := range map[string]frames.Extension{
		"hop-by-hop": frames.Options(frames.HopByHop, 0), "destination": frames.Options(frames.Destination, 2),
		"routing": frames.RoutingHeader(4, 0, a6), "ah": frames.AuthHeader(4), "smallest ah": frames.AuthHeader(0),
		"mobility": frames.Options(frames.Mobility, 0), "hip": frames.Options(frames.HIP, 4), "shim6": frames.Options(frames.Shim6, 0),
		"atomic fragment": frames.FragmentHeader(0, false, 7),
	} {
		whole := len(x.Body) + 1
		cases = append(cases,
			decodeCase{name, ext6(x), FrameInfo{}, all, 0, hasTCP},
			decodeCase{name + " twice", ext6(x, x), FrameInfo{}, all, 0, hasTCP},
			decodeCase{name + " one byte short", shorten(whole-1, x), FrameInfo{}, addresses, verdict.ReasonTruncated, func(k *Key) bool { return k.Proto == 0 }},
			decodeCase{name + " and nothing else", shorten(whole, x), FrameInfo{}, header, verdict.ReasonTruncated, func(k *Key) bool { return k.Proto == ProtoTCP }},
			decodeCase{name + " absent", shorten(0, x), FrameInfo{}, addresses, verdict.ReasonTruncated, nil},
		)
	}
	reserved := frames.FragmentHeader(0, false, 7)
	reserved.Body[0], reserved.Body[2] = 255, 6 // reserved bits are neither a length nor an offset

	// 1024 bytes from the IP header on: 40 of its own and a header of 8n bytes.
	fill := func(n uint8, rest ...frames.Extension) []byte {
		return ext6(append([]frames.Extension{frames.Options(frames.Destination, n)}, rest...)...)
	}
	runDecode(t, append(cases, []decodeCase{
		{"seven bytes of a header", shorten(7, pad), FrameInfo{}, addresses, verdict.ReasonTruncated, nil},
		{"reserved bits of a fragment header", ext6(reserved), FrameInfo{}, all, 0, hasTCP},
		{"esp ends the chain", frames.IPv6{Src: a6, Dst: b6, Proto: 50, Extensions: repeat(2, pad)}.Frame(make([]byte, 8)), FrameInfo{}, header, 0, nil},
		{"eight headers", ext6(repeat(8, pad)...), FrameInfo{}, all, 0, hasTCP},
		{"nine headers", ext6(repeat(9, pad)...), FrameInfo{}, addresses, verdict.ReasonExtensionDepth, func(k *Key) bool { return k.Proto == 0 }},
		{"ninth header not there", shorten(64, repeat(9, pad)...), FrameInfo{}, addresses, verdict.ReasonExtensionDepth, nil},
		{"eight headers, then esp", frames.IPv6{Src: a6, Dst: b6, Proto: 50, Extensions: repeat(8, pad)}.Frame(nil), FrameInfo{}, header, 0, nil},
		// 40 + 8*118 + 8*2 + 20 = 1020; the next step of 8 passes 1024
		{"transport up to the limit", fill(117, frames.Options(frames.Destination, 1)), FrameInfo{}, all, 0, hasTCP},
		{"transport over the limit", fill(118, frames.Options(frames.Destination, 1)), FrameInfo{}, header, verdict.ReasonTruncated, func(k *Key) bool { return k.Proto == ProtoTCP }},
		// 40 + 8*122 = 1016: the next header's first 8 bytes end at 1024
		{"extension header at the limit", fill(121, pad), FrameInfo{}, header, verdict.ReasonTruncated, nil},
		{"extension header over the limit", fill(122, pad), FrameInfo{}, addresses, verdict.ReasonTruncated, nil},
		{"udp at the limit", frames.IPv6{Src: a6, Dst: b6, Proto: ProtoUDP, Extensions: []frames.Extension{frames.Options(0, 121)}}.
			Frame(frames.UDPDatagram(a6, b6, 1111, 443, nil)), FrameInfo{}, all, 0, nil},
		{"long header within the limit's reach", frames.IPv6{Src: a6, Dst: b6, Proto: 47, Extensions: []frames.Extension{frames.Options(0, 255)}}.Frame(nil),
			FrameInfo{}, header, 0, func(k *Key) bool { return k.Proto == 47 }},

		{"segments left", ext6(frames.RoutingHeader(0, 1, a6)), FrameInfo{}, all &^ HaveDst, verdict.ReasonSourceRoute, func(k *Key) bool { return hasTCP(k) && k.Dst == ipset.Addr{} }},
		{"segments left in a segment route", ext6(pad, frames.RoutingHeader(4, 2, a6, b6)), FrameInfo{}, all &^ HaveDst, verdict.ReasonSourceRoute, hasTCP},
		{"segments left in the second", ext6(frames.RoutingHeader(2, 0, a6), frames.RoutingHeader(2, 1, a6)), FrameInfo{}, all &^ HaveDst, verdict.ReasonSourceRoute, hasTCP},
		{"segments left in the first", ext6(frames.RoutingHeader(2, 1, a6), frames.RoutingHeader(2, 0, a6)), FrameInfo{}, all &^ HaveDst, verdict.ReasonSourceRoute, hasTCP},
		{"segments left in a header that is not whole", shorten(8, frames.RoutingHeader(0, 1, a6)), FrameInfo{}, addresses, verdict.ReasonTruncated, nil},
		{"route keeps its reason", shorten(24, frames.RoutingHeader(0, 1, a6), pad), FrameInfo{}, HaveSrc, verdict.ReasonSourceRoute, nil},
	}...))
}

func TestDecodeIPv6Fragments(t *testing.T) {
	pad := frames.Options(frames.Destination, 0)
	first, middle, last := frames.FragmentHeader(0, true, 7), frames.FragmentHeader(8, true, 7), frames.FragmentHeader(0xfff8, false, 7)
	is := func(f Fragment, id uint32, proto uint8) func(*Key) bool {
		return func(k *Key) bool { return k.Fragment == f && k.FragmentID == id && k.Proto == proto }
	}
	udp := frames.IPv6{Src: a6, Dst: b6, Proto: ProtoUDP, Extensions: []frames.Extension{first}}.
		Frame(edit(frames.UDPDatagram(a6, b6, 1111, 443, nil), func(b []byte) { put16(b, 4, 4000) }))
	runDecode(t, []decodeCase{
		{"atomic", ext6(frames.FragmentHeader(0, false, 7)), FrameInfo{}, all, 0, is(NotFragment, 0, ProtoTCP)},
		{"first", ext6(first), FrameInfo{}, all, 0, is(FirstFragment, 7, ProtoTCP)},
		{"middle", ext6(middle), FrameInfo{}, header, 0, is(LaterFragment, 7, ProtoTCP)},
		{"last", ext6(pad, last), FrameInfo{}, header, 0, is(LaterFragment, 7, ProtoTCP)},
		{"first, more headers behind", ext6(pad, first, pad), FrameInfo{}, all, 0, is(FirstFragment, 7, ProtoTCP)},
		{"later, more headers behind", ext6(pad, middle, pad), FrameInfo{}, addresses, 0, is(LaterFragment, 7, 0)},
		{"later, ah behind", ext6(middle, frames.AuthHeader(4)), FrameInfo{}, addresses, 0, is(LaterFragment, 7, 0)},
		{"later, esp behind", frames.IPv6{Src: a6, Dst: b6, Proto: 50, Extensions: []frames.Extension{middle}}.Frame(nil), FrameInfo{}, header, 0, is(LaterFragment, 7, 50)},
		{"later as eighth header, one behind", ext6(append(repeat(7, pad), middle, pad)...), FrameInfo{}, addresses, 0, is(LaterFragment, 7, 0)},
		{"later as ninth header", ext6(append(repeat(8, pad), middle)...), FrameInfo{}, addresses, verdict.ReasonExtensionDepth, is(NotFragment, 0, 0)},
		{"first without its transport header", cut(ext6(first), 14+40+8+19), FrameInfo{}, header, verdict.ReasonTruncated, is(FirstFragment, 7, ProtoTCP)},
		{"first without its other headers", cut(ext6(first, pad), 14+40+8), FrameInfo{}, addresses, verdict.ReasonTruncated, is(FirstFragment, 7, 0)},
		{"later without a byte", cut(ext6(middle), 14+40+8), FrameInfo{}, header, 0, is(LaterFragment, 7, ProtoTCP)},
		{"later of seven bytes", cut(ext6(middle), 14+40+7), FrameInfo{}, addresses, verdict.ReasonTruncated, is(NotFragment, 0, 0)},
		{"udp length is the datagram's", udp, FrameInfo{}, all, 0, is(FirstFragment, 7, ProtoUDP)},
		{"first in a first", ext6(first, frames.FragmentHeader(0, true, 8)), FrameInfo{}, all, 0, is(FirstFragment, 8, ProtoTCP)},
		{"later in a first", ext6(first, frames.FragmentHeader(8, true, 8)), FrameInfo{}, header, 0, is(LaterFragment, 8, ProtoTCP)},
		{"atomic in a first", ext6(first, frames.FragmentHeader(0, false, 8)), FrameInfo{}, all, 0, is(FirstFragment, 7, ProtoTCP)},
		{"later and a route", ext6(frames.RoutingHeader(0, 1, a6), middle), FrameInfo{}, HaveSrc | HaveProto, verdict.ReasonSourceRoute, is(LaterFragment, 7, ProtoTCP)},
	})
}

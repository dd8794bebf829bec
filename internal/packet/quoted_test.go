package packet

import (
	"testing"

	"egate/internal/ipset"
	"egate/internal/testutil/frames"
)

// TestQuoted reads errors that b sends to a about a packet from a to b.
func TestQuoted(t *testing.T) {
	tcp := frames.NoLink(frames.TCP(a4, b4, 1111, 443, FlagSYN, nil))
	tcp6 := frames.NoLink(frames.TCP(a6, b6, 1111, 443, FlagSYN, nil))
	options := frames.IPv4{Src: a4, Dst: b4, Proto: ProtoTCP, Options: []byte{7, 7, 4, 0, 0, 0, 0}}.Packet(tcp[20:])
	later := frames.IPv4{Src: a4, Dst: b4, Proto: ProtoTCP, Fragment: 1}.Packet(tcp[20:])
	error4 := func(kind uint8, quoted []byte) []byte { return frames.ICMPFrame(b4, a4, kind, 1, 0, quoted) }
	error6 := func(kind uint8, quoted []byte) []byte { return frames.ICMPFrame(b6, a6, kind, 1, 0, quoted) }
	change := func(at int, v byte) []byte { return edit(tcp, func(p []byte) { p[at] = v }) }
	v4 := func(proto uint8, src, dst uint16) QuotedFlow {
		return QuotedFlow{ipset.FromNetip(a4), ipset.FromNetip(b4), proto, src, dst}
	}
	v6 := func(proto uint8, src, dst uint16) QuotedFlow {
		return QuotedFlow{ipset.FromNetip(a6), ipset.FromNetip(b6), proto, src, dst}
	}
	none := QuotedFlow{}
	cases := []struct {
		name  string
		frame []byte
		want  QuotedFlow // zero: none is readable
	}{
		{"tcp", error4(3, tcp), v4(ProtoTCP, 1111, 443)},
		{"tcp, 8 bytes of it", error4(3, tcp[:28]), v4(ProtoTCP, 1111, 443)},
		{"tcp, 7 bytes of it", error4(3, tcp[:27]), none},
		{"udp", error4(3, frames.NoLink(frames.UDP(a4, b4, 53, 54, nil))), v4(ProtoUDP, 53, 54)},
		{"sctp", error4(3, frames.NoLink(frames.SCTP(a4, b4, 53, 54, nil))[:28]), v4(ProtoSCTP, 53, 54)},
		{"echo request", error4(3, frames.NoLink(frames.ICMPEcho(a4, b4, false, 77, 1, nil))), v4(ProtoICMP, 77, 0)},
		{"echo reply", error4(3, frames.NoLink(frames.ICMPEcho(a4, b4, true, 77, 1, nil))), v4(ProtoICMP, 77, 0)},
		{"timestamp", error4(3, frames.NoLink(frames.ICMPFrame(a4, b4, 13, 0, 77<<16, nil))), none},
		{"error", error4(3, frames.NoLink(error4(3, tcp))), none},
		{"gre without a byte", error4(3, frames.IPv4{Src: a4, Dst: b4, Proto: 47}.Packet(nil)), v4(47, 0, 0)},
		{"options", error4(11, options), v4(ProtoTCP, 1111, 443)},
		{"options, cut", error4(11, options[:35]), none},
		{"header cut", error4(3, tcp[:19]), none},
		{"header of 16 bytes", error4(3, change(0, 0x44)), none},
		{"wrong version", error4(3, change(0, 0x65)), none},
		{"ipv6 in icmp", error4(3, tcp6), none},
		{"later fragment", error4(3, later), none},
		{"first fragment", error4(3, change(6, 0x20)), v4(ProtoTCP, 1111, 443)},
		{"length that is not looked at", error4(3, change(2, 0xff)), v4(ProtoTCP, 1111, 443)},
		{"source quench", error4(4, tcp), v4(ProtoTCP, 1111, 443)},
		{"redirect", error4(5, tcp), v4(ProtoTCP, 1111, 443)},
		{"parameter problem", error4(12, tcp), v4(ProtoTCP, 1111, 443)},
		{"no error: echo", error4(8, tcp), none},
		{"no error: timestamp", error4(13, tcp), none},
		{"no error: tcp", frames.TCP(b4, a4, 1, 2, 0, tcp), none},
		{"only in the padding", append(cut(error4(3, tcp), 14+20+8+27), 0, 0, 0), none},
		{"in a first fragment", edit(error4(3, tcp), func(f []byte) { f[20] = 0x20 }), v4(ProtoTCP, 1111, 443)},

		{"tcp 6", error6(1, tcp6), v6(ProtoTCP, 1111, 443)},
		{"packet too big", error6(2, tcp6), v6(ProtoTCP, 1111, 443)},
		{"time exceeded 6", error6(3, tcp6), v6(ProtoTCP, 1111, 443)},
		{"parameter problem 6", error6(4, tcp6), v6(ProtoTCP, 1111, 443)},
		{"no error: type 0", error6(0, tcp6), none},
		{"no error: type 5", error6(5, tcp6), none},
		{"no error: redirect 6", error6(137, tcp6), none},
		{"tcp 6, 8 bytes of it", error6(1, tcp6[:48]), v6(ProtoTCP, 1111, 443)},
		{"tcp 6, 7 bytes of it", error6(1, tcp6[:47]), none},
		{"header cut 6", error6(1, tcp6[:39]), none},
		{"wrong version 6", error6(1, edit(tcp6, func(p []byte) { p[0] = 0x45 })), none},
		{"echo 6", error6(1, frames.NoLink(frames.ICMPEcho(a6, b6, false, 77, 1, nil))), v6(ProtoICMPv6, 77, 0)},
		{"extension headers", error6(1, frames.NoLink(ext6(frames.Options(0, 0)))), none},
		{"v4-mapped", error6(1, edit(tcp6, func(p []byte) { copy(p[24:], make([]byte, 10)); p[34], p[35] = 0xff, 0xff })), none},
		{"behind extension headers", frames.IPv6{Src: b6, Dst: a6, Proto: ProtoICMPv6, Extensions: repeat(3, frames.Options(0, 0))}.
			Frame(frames.ICMPMessage(b6, a6, 1, 0, 0, tcp6)), v6(ProtoTCP, 1111, 443)},
		// 40 + 8*116 of headers, 8 of the error, 40 + 8 quoted: 1024
		{"at the limit", frames.IPv6{Src: b6, Dst: a6, Proto: ProtoICMPv6, Extensions: repeat(1, frames.Options(0, 115))}.
			Frame(frames.ICMPMessage(b6, a6, 1, 0, 0, tcp6)), v6(ProtoTCP, 1111, 443)},
		{"over the limit", frames.IPv6{Src: b6, Dst: a6, Proto: ProtoICMPv6, Extensions: repeat(1, frames.Options(0, 116))}.
			Frame(frames.ICMPMessage(b6, a6, 1, 0, 0, tcp6)), none},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := FrameInfo{}
			k := Decode(c.frame, in)
			got, ok := Quoted(c.frame, in, &k)
			if got != c.want || ok != (c.want != none) {
				t.Errorf("%+v, %v; want %+v", got, ok, c.want)
			}
		})
	}

	t.Run("key of another frame", func(t *testing.T) {
		k := Decode(error4(3, tcp), FrameInfo{})
		if got, ok := Quoted(error6(1, tcp6), FrameInfo{}, &k); ok {
			t.Errorf("%+v, want none", got)
		}
	})
}

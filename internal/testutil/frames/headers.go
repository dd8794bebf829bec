// Package frames stands beside the stages: it makes the frames that tests send
// through the packet reader, the BPF programs and the wire. Its functions build
// sound packets with right checksums; Generator draws random ones, sound and
// damaged. Nothing here needs a privilege.
package frames

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// EtherTypes that tests name.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100
	TypeQinQ = 0x88a8
	TypeIPv6 = 0x86dd
	TypeLLDP = 0x88cc
)

// IP protocols and extension headers that tests name.
const (
	HopByHop    = 0
	ICMP        = 1
	TCPProto    = 6
	UDPProto    = 17
	Routing     = 43
	FragmentHdr = 44
	GRE         = 47
	ESP         = 50
	AH          = 51
	ICMPv6      = 58
	NoNext      = 59
	Destination = 60
	SCTPProto   = 132
	Mobility    = 135
	HIP         = 139
	Shim6       = 140
)

// Ethernet puts a header with fixed addresses before the payload.
func Ethernet(etherType uint16, payload []byte) []byte {
	frame := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0}
	binary.BigEndian.PutUint16(frame[12:], etherType)
	return append(frame, payload...)
}

// VLAN puts a tag into the frame, outside of those it has.
func VLAN(frame []byte, etherType, id uint16) []byte {
	tag := binary.BigEndian.AppendUint16(nil, etherType)
	tag = binary.BigEndian.AppendUint16(tag, id)
	out := append([]byte{}, frame[:12]...)
	out = append(out, tag...)
	return append(out, frame[12:]...)
}

// NoLink takes off the link header: what tun, wireguard and ipip carry.
func NoLink(frame []byte) []byte { return frame[linkLength(frame):] }

// linkLength is where the IP header of a frame with any number of tags starts.
func linkLength(frame []byte) int {
	n := 14
	for isTag(binary.BigEndian.Uint16(frame[n-2:])) && n+4 <= len(frame) {
		n += 4
	}
	return n
}

func isTag(etherType uint16) bool {
	return etherType == TypeVLAN || etherType == TypeQinQ || etherType == 0x9100
}

// IPv4 is an IPv4 header; zero fields get what is usual.
type IPv4 struct {
	Src, Dst netip.Addr
	Proto    uint8
	TTL      uint8 // 0: 64
	ID       uint16
	Fragment uint16 // flags and offset as they stand in the header
	Options  []byte // padded with zeros to whole words; at most 40 bytes
}

// Packet is the header and what it carries.
func (h IPv4) Packet(payload []byte) []byte {
	header := 20 + (len(h.Options)+3)/4*4
	p := make([]byte, header, header+len(payload))
	p[0] = 4<<4 | byte(header/4)
	binary.BigEndian.PutUint16(p[2:], uint16(header+len(payload)))
	binary.BigEndian.PutUint16(p[4:], h.ID)
	binary.BigEndian.PutUint16(p[6:], h.Fragment)
	p[8], p[9] = h.TTL, h.Proto
	if h.TTL == 0 {
		p[8] = 64
	}
	copy(p[12:], h.Src.AsSlice())
	copy(p[16:], h.Dst.AsSlice())
	copy(p[20:], h.Options)
	binary.BigEndian.PutUint16(p[10:], checksum(0, p))
	return append(p, payload...)
}

// Frame is the packet in an Ethernet frame.
func (h IPv4) Frame(payload []byte) []byte { return Ethernet(TypeIPv4, h.Packet(payload)) }

// IPv6 is an IPv6 header with its extension headers.
type IPv6 struct {
	Src, Dst   netip.Addr
	Proto      uint8 // behind the extension headers
	HopLimit   uint8 // 0: 64
	Extensions []Extension
}

// Extension is one extension header; Body is all behind its next-header byte.
type Extension struct {
	Kind uint8
	Body []byte
}

// Packet is the headers and what they carry.
func (h IPv6) Packet(payload []byte) []byte {
	p := make([]byte, 40)
	p[0], p[7] = 6<<4, h.HopLimit
	if h.HopLimit == 0 {
		p[7] = 64
	}
	copy(p[8:], h.Src.AsSlice())
	copy(p[24:], h.Dst.AsSlice())
	next := 6
	for _, x := range h.Extensions {
		p[next] = x.Kind
		next = len(p)
		p = append(append(p, 0), x.Body...)
	}
	p[next] = h.Proto
	p = append(p, payload...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return p
}

// Frame is the packet in an Ethernet frame.
func (h IPv6) Frame(payload []byte) []byte { return Ethernet(TypeIPv6, h.Packet(payload)) }

// Options is a hop-by-hop, destination options, mobility, HIP or shim6 header
// of (n+1)*8 bytes, filled with padding.
func Options(kind, n uint8) Extension {
	body := make([]byte, (int(n)+1)*8-1)
	body[0] = n
	for at := 1; at < len(body); { // PadN options of at most 2+255 bytes
		length := min(len(body)-at, 257)
		if length == 1 {
			break // one Pad1, which is 0
		}
		body[at], body[at+1] = 1, byte(length-2)
		at += length
	}
	return Extension{kind, body}
}

// RoutingHeader is a routing header of a type with hops, of which segmentsLeft
// are still to come.
func RoutingHeader(kind, segmentsLeft uint8, hops ...netip.Addr) Extension {
	body := []byte{byte(2 * len(hops)), kind, segmentsLeft, 0, 0, 0, 0}
	for _, hop := range hops {
		body = append(body, hop.AsSlice()...)
	}
	return Extension{Routing, body}
}

// FragmentHeader is a fragment header; offset is in bytes, a multiple of 8.
func FragmentHeader(offset int, more bool, id uint32) Extension {
	body := make([]byte, 7)
	field := uint16(offset)
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(body[1:], field)
	binary.BigEndian.PutUint32(body[3:], id)
	return Extension{FragmentHdr, body}
}

// AuthHeader is an authentication header of (n+2)*4 bytes, n > 0.
func AuthHeader(n uint8) Extension {
	body := make([]byte, (int(n)+2)*4-1)
	body[0] = n
	return Extension{AH, body}
}

// checksum is RFC 1071's over b, on top of an unfolded sum.
func checksum(sum uint32, b []byte) uint16 {
	sum = add(sum, b)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// transportSum is the sum over the pseudo header.
func transportSum(src, dst netip.Addr, proto uint8, length int) uint32 {
	return add(add(uint32(proto)+uint32(length), src.AsSlice()), dst.AsSlice())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

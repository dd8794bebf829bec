package frames

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Of carries a transport header with its data from src to dst in a plain frame
// of their family.
func Of(src, dst netip.Addr, proto uint8, segment []byte) []byte {
	if src.Is4() {
		return IPv4{Src: src, Dst: dst, Proto: proto}.Frame(segment)
	}
	return IPv6{Src: src, Dst: dst, Proto: proto}.Frame(segment)
}

// TCP is a frame with a TCP segment; flags are those of the header's byte 13.
func TCP(src, dst netip.Addr, srcPort, dstPort uint16, flags uint8, payload []byte) []byte {
	return Of(src, dst, TCPProto, TCPSegment(src, dst, srcPort, dstPort, flags, payload))
}

// UDP is a frame with a UDP datagram.
func UDP(src, dst netip.Addr, srcPort, dstPort uint16, payload []byte) []byte {
	return Of(src, dst, UDPProto, UDPDatagram(src, dst, srcPort, dstPort, payload))
}

// SCTP is a frame with an SCTP packet.
func SCTP(src, dst netip.Addr, srcPort, dstPort uint16, chunks []byte) []byte {
	return Of(src, dst, SCTPProto, SCTPPacket(srcPort, dstPort, chunks))
}

// ICMPEcho is a frame with an echo request or reply of the addresses' family.
func ICMPEcho(src, dst netip.Addr, reply bool, id, seq uint16, payload []byte) []byte {
	kind := uint8(8)
	switch {
	case src.Is4() && reply:
		kind = 0
	case !src.Is4() && reply:
		kind = 129
	case !src.Is4():
		kind = 128
	}
	return ICMPFrame(src, dst, kind, 0, uint32(id)<<16|uint32(seq), payload)
}

// ICMPFrame is a frame with an ICMP or ICMPv6 message, by the addresses' family;
// rest is its second word. Neighbour discovery gets its hop limit of 255.
func ICMPFrame(src, dst netip.Addr, kind, code uint8, rest uint32, body []byte) []byte {
	message := ICMPMessage(src, dst, kind, code, rest, body)
	if src.Is4() {
		return IPv4{Src: src, Dst: dst, Proto: ICMP}.Frame(message)
	}
	h := IPv6{Src: src, Dst: dst, Proto: ICMPv6}
	if kind >= 133 && kind <= 137 {
		h.HopLimit = 255
	}
	return h.Frame(message)
}

// TCPSegment is a TCP header of 20 bytes and its payload.
func TCPSegment(src, dst netip.Addr, srcPort, dstPort uint16, flags uint8, payload []byte) []byte {
	b := ports(20, srcPort, dstPort)
	binary.BigEndian.PutUint32(b[4:], 1000)
	binary.BigEndian.PutUint32(b[8:], 2000)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[16:], checksum(transportSum(src, dst, TCPProto, len(b)), b))
	return b
}

// UDPDatagram is a UDP header and its payload.
func UDPDatagram(src, dst netip.Addr, srcPort, dstPort uint16, payload []byte) []byte {
	b := append(ports(8, srcPort, dstPort), payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	sum := checksum(transportSum(src, dst, UDPProto, len(b)), b)
	if sum == 0 {
		sum = 0xffff // 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// SCTPPacket is an SCTP common header and its chunks.
func SCTPPacket(srcPort, dstPort uint16, chunks []byte) []byte {
	b := ports(12, srcPort, dstPort)
	binary.BigEndian.PutUint32(b[4:], 0x1234)
	b = append(b, chunks...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// ICMPMessage is an ICMP or ICMPv6 message, by the addresses' family.
func ICMPMessage(src, dst netip.Addr, kind, code uint8, rest uint32, body []byte) []byte {
	b := make([]byte, 8, 8+len(body))
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint32(b[4:], rest)
	b = append(b, body...)
	sum := uint32(0)
	if !src.Is4() {
		sum = transportSum(src, dst, ICMPv6, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], checksum(sum, b))
	return b
}

func ports(size int, srcPort, dstPort uint16) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint16(b, srcPort)
	binary.BigEndian.PutUint16(b[2:], dstPort)
	return b
}

// Fragment cuts the frame of an unfragmented IP packet, without IPv6 extension
// headers, into fragments that carry at most size bytes each, a multiple of 8.
func Fragment(frame []byte, size int, id uint32) [][]byte {
	link := linkLength(frame)
	ip := frame[link:]
	v6 := ip[0]>>4 == 6
	header := 40
	if !v6 {
		header = int(ip[0]&15) * 4
	}
	var out [][]byte
	for at := header; at < len(ip); at += size {
		part := ip[at:min(at+size, len(ip))]
		offset, more := at-header, at+size < len(ip)
		f := append([]byte{}, frame[:link+header]...)
		h := f[link:]
		if v6 {
			next := h[6]
			h[6] = FragmentHdr
			binary.BigEndian.PutUint16(h[4:], uint16(8+len(part)))
			f = append(append(f, next), FragmentHeader(offset, more, id).Body...)
		} else {
			binary.BigEndian.PutUint16(h[2:], uint16(header+len(part)))
			binary.BigEndian.PutUint16(h[4:], uint16(id))
			field := uint16(offset / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(h[6:], field)
			binary.BigEndian.PutUint16(h[10:], 0)
			binary.BigEndian.PutUint16(h[10:], checksum(0, h[:header]))
		}
		out = append(out, append(f, part...))
	}
	return out
}

package packet

import "egate/internal/ipset"

// QuotedFlow is the packet that an ICMP error is about, as the error quotes
// it: Src is who sent that packet.
type QuotedFlow struct {
	Src, Dst   ipset.Addr
	Proto      uint8
	SourcePort uint16 // TCP, UDP, SCTP; for echo the identifier, else 0
	DestPort   uint16 // TCP, UDP, SCTP, else 0
}

// Quoted reads the packet quoted by an ICMP or ICMPv6 error as rule 8 of the
// package comment says. ok is false where k, which Decode made of the same
// frame, is no such error or the quotation cannot be read.
func Quoted(frame []byte, in FrameInfo, k *Key) (q QuotedFlow, ok bool) {
	if !k.HasICMP() || !isError(k.Proto, uint8(k.Selector>>8)) {
		return q, false
	}
	r := read(frame, in)
	if r.key != *k {
		return q, false // not the same frame: the offsets would mean nothing
	}
	at := r.transport + 8
	var behind int
	if k.Proto == ProtoICMP {
		behind, ok = r.quotedIPv4(at, &q)
	} else {
		behind, ok = r.quotedIPv6(at, &q)
	}
	if !ok {
		return QuotedFlow{}, false
	}
	switch q.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoICMP, ProtoICMPv6:
	default:
		return q, true
	}
	if !r.within(behind, 8) {
		return QuotedFlow{}, false
	}
	switch {
	case q.Proto != ProtoICMP && q.Proto != ProtoICMPv6:
		q.SourcePort, q.DestPort = r.be16(behind), r.be16(behind+2)
	case isEcho(q.Proto, r.data[behind]):
		q.SourcePort = r.be16(behind + 4)
	default:
		return QuotedFlow{}, false // no other ICMP message belongs to a flow
	}
	return q, true
}

// isError tells the ICMP messages that quote a packet.
func isError(proto, icmpType uint8) bool {
	if proto == ProtoICMP {
		switch icmpType {
		case 3, 4, 5, 11, 12:
			return true
		}
		return false
	}
	return icmpType >= 1 && icmpType <= 4
}

func (r *reader) quotedIPv4(at int, q *QuotedFlow) (behind int, ok bool) {
	if !r.within(at, 20) || r.data[at]>>4 != 4 {
		return 0, false
	}
	header := int(r.data[at]&15) * 4
	later := r.be16(at+6)&0x1fff != 0
	if header < 20 || !r.within(at, header) || later {
		return 0, false
	}
	q.Proto, q.Src, q.Dst = r.data[at+9], addr4(r.data[at+12:]), addr4(r.data[at+16:])
	return at + header, true
}

func (r *reader) quotedIPv6(at int, q *QuotedFlow) (behind int, ok bool) {
	if !r.within(at, 40) || r.data[at]>>4 != 6 || IsExtension(r.data[at+6]) {
		return 0, false
	}
	q.Proto, q.Src, q.Dst = r.data[at+6], addr6(r.data[at+8:]), addr6(r.data[at+24:])
	return at + 40, !q.Src.Is4() && !q.Dst.Is4()
}

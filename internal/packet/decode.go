package packet

import (
	"encoding/binary"

	"egate/internal/verdict"
)

// FrameInfo is what a frame's bytes do not tell.
type FrameInfo struct {
	Direction verdict.Direction
	Link      LinkLayer
	GSO       bool // a super-packet that is still to be cut up
	Length    int  // of the whole frame in bytes, for captures that cut frames short; 0 = len(frame)
}

// EtherTypes that the reader tells apart.
const (
	etherIPv4    = 0x0800
	etherIPv6    = 0x86dd
	etherMinimum = 0x0600 // below: an 802.3 length

	linkBytes = 14
	tagBytes  = 4
)

// Decode reads one frame. It takes any bytes and never panics.
func Decode(frame []byte, in FrameInfo) Key {
	return read(frame, in).key
}

// reader walks one frame. Offsets count from the frame's first byte.
type reader struct {
	data      []byte // the bytes there are, never more than length
	length    int    // of the whole frame
	gso       bool
	ip        int // where the IP header starts
	end       int // where the IP packet ends by its own length
	transport int // where the transport header starts; valid with HaveTransport
	key       Key
}

func read(frame []byte, in FrameInfo) reader {
	r := reader{length: in.Length, gso: in.GSO, key: Key{Direction: in.Direction}}
	if r.length <= 0 {
		r.length = len(frame)
	}
	r.data = frame[:min(r.length, len(frame))]
	if in.Link == NoLink {
		r.readFamily()
	} else {
		r.readLink()
	}
	switch {
	case !r.key.IP || r.key.Problem != verdict.ReasonRule:
	case r.key.Family == 4:
		r.readIPv4()
	default:
		r.readIPv6()
	}
	return r
}

func (r *reader) has(off, n int) bool { return off+n <= len(r.data) }
func (r *reader) be16(off int) uint16 { return binary.BigEndian.Uint16(r.data[off:]) }
func (r *reader) be32(off int) uint32 { return binary.BigEndian.Uint32(r.data[off:]) }

// problem keeps the first problem.
func (r *reader) problem(p verdict.Reason) {
	if r.key.Problem == verdict.ReasonRule {
		r.key.Problem = p
	}
}

// readFamily reads what stands in for a link layer where there is none.
func (r *reader) readFamily() {
	if !r.has(0, 1) {
		return
	}
	if family := r.data[0] >> 4; family == 4 || family == 6 {
		r.key.IP, r.key.Family = true, family
	}
}

// readLink reads the Ethernet header and its VLAN tags.
func (r *reader) readLink() {
	r.key.IP = true // what cannot be read may be IP
	if !r.has(0, linkBytes) {
		r.problem(verdict.ReasonTruncated)
		return
	}
	r.ip = linkBytes
	etherType := r.be16(r.ip - 2)
	for tags := 0; isVLAN(etherType); tags++ {
		if tags == MaxVLANTags {
			r.problem(verdict.ReasonVLANDepth)
			return
		}
		if !r.has(r.ip, tagBytes) {
			r.problem(verdict.ReasonTruncated)
			return
		}
		r.ip += tagBytes
		etherType = r.be16(r.ip - 2)
	}
	r.key.EtherType = etherType
	switch etherType {
	case etherIPv4:
		r.key.Family = 4
	case etherIPv6:
		r.key.Family = 6
	default:
		r.key.IP, r.key.Control = false, r.isControl(etherType)
	}
}

func isVLAN(etherType uint16) bool {
	return etherType == 0x8100 || etherType == 0x88a8 || etherType == 0x9100
}

// isControl tells the frames that keep a link alive.
func (r *reader) isControl(etherType uint16) bool {
	if etherType < etherMinimum { // the first byte behind an 802.3 length is the DSAP
		return r.has(r.ip, 1) && (r.data[r.ip] == dsapSTP || r.data[r.ip] == dsapISIS)
	}
	_, ok := controlName(etherType)
	return ok
}

// readIPv4 reads the header and, where it is sound, goes on behind it.
func (r *reader) readIPv4() {
	if !r.has(r.ip, 20) {
		r.problem(verdict.ReasonTruncated)
		return
	}
	header := int(r.data[r.ip]&15) * 4
	if r.data[r.ip]>>4 != 4 || header < 20 {
		r.problem(verdict.ReasonBadIPHeader)
		return
	}
	if !r.has(r.ip, header) {
		r.problem(verdict.ReasonTruncated)
		return
	}
	total := int(r.be16(r.ip + 2))
	if total == 0 && r.gso {
		total = r.length - r.ip
	}
	if r.end = r.ip + total; total < header || r.end > r.length {
		r.problem(verdict.ReasonBadLength)
		return
	}
	sourceRoute, ok := readOptions(r.data[r.ip+20 : r.ip+header])
	if !ok {
		r.problem(verdict.ReasonBadIPHeader)
		return
	}

	k := &r.key
	k.HopLimit = r.data[r.ip+8]
	k.Src, k.Dst = addr4(r.data[r.ip+12:]), addr4(r.data[r.ip+16:])
	k.Have = HaveSrc | HaveDst
	if sourceRoute {
		r.hideDestination()
	}
	const moreFragments, offsetMask = 0x2000, 0x1fff
	switch field := r.be16(r.ip + 6); {
	case field&offsetMask != 0:
		k.Fragment = LaterFragment
	case field&moreFragments != 0:
		k.Fragment = FirstFragment
	}
	if k.Fragment != NotFragment {
		k.FragmentID = uint32(r.be16(r.ip + 4))
	}
	proto := r.data[r.ip+9]
	if k.Fragment == LaterFragment {
		r.setProto(proto)
	} else if off, ok := r.readExtensions(proto, r.ip+header); ok {
		r.readTransport(off)
	}
}

// readOptions walks IPv4 options. ok is false where they are malformed;
// sourceRoute tells whether one of them still names hops to come.
func readOptions(opts []byte) (sourceRoute, ok bool) {
	const end, noOperation, looseRoute, strictRoute = 0, 1, 131, 137
	for len(opts) > 0 && opts[0] != end {
		if opts[0] == noOperation {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return false, false
		}
		if opts[0] == looseRoute || opts[0] == strictRoute {
			if opts[1] < 3 {
				return false, false // no room for its pointer
			}
			sourceRoute = sourceRoute || opts[2] <= opts[1]
		}
		opts = opts[opts[1]:]
	}
	return sourceRoute, true
}

// hideDestination is for packets that a router on the way readdresses.
func (r *reader) hideDestination() {
	r.key.Have &^= HaveDst
	r.key.Dst = Key{}.Dst
	r.problem(verdict.ReasonSourceRoute)
}

// readTransport reads the header at off, for the protocols that have one.
func (r *reader) readTransport(off int) {
	k := &r.key
	var need int
	switch k.Proto {
	case ProtoTCP:
		need = 20
	case ProtoSCTP:
		need = 12
	case ProtoUDP, ProtoICMP, ProtoICMPv6:
		need = 8
	default:
		return
	}
	if !r.within(off, need) {
		r.problem(verdict.ReasonTruncated)
		return
	}
	switch k.Proto {
	case ProtoTCP:
		if header := int(r.data[off+12]>>4) * 4; header < 20 || off+header > r.end {
			r.problem(verdict.ReasonBadTransport)
			return
		}
		k.TCPFlags = r.data[off+13]
	case ProtoUDP:
		length := int(r.be16(off + 4))
		comparable := k.Fragment == NotFragment && !r.gso
		if length < 8 || comparable && off+length > r.end {
			r.problem(verdict.ReasonBadTransport)
			return
		}
	}
	if k.Proto == ProtoICMP || k.Proto == ProtoICMPv6 {
		k.Selector = r.be16(off)
		if isEcho(k.Proto, r.data[off]) {
			k.SourcePort = r.be16(off + 4)
		}
	} else {
		k.SourcePort, k.Selector = r.be16(off), r.be16(off+2)
	}
	k.Have |= HaveTransport
	r.transport = off
}

// within tells whether n bytes at off are there, belong to the IP packet and
// lie within the reach of the kernel's reader.
func (r *reader) within(off, n int) bool {
	return off+n <= r.end && r.has(off, n) && off+n-r.ip <= MaxHeaderBytes
}

// isEcho tells the ICMP messages whose identifier stands for a port.
func isEcho(proto, icmpType uint8) bool {
	if proto == ProtoICMP {
		return icmpType == 8 || icmpType == 0
	}
	return proto == ProtoICMPv6 && (icmpType == 128 || icmpType == 129)
}

package packet

import (
	"encoding/binary"

	"egate/internal/ipset"
	"egate/internal/verdict"
)

// Numbers of the extension headers that are read past, in both families: of
// them IPv4 uses only AH, but a rule must mean the same for both.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAH          = 51
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim6       = 140
)

// IsExtension tells whether a protocol number is that of an extension header,
// which the reader reads past: no packet has it as its protocol.
func IsExtension(next uint8) bool {
	switch next {
	case extHopByHop, extRouting, extFragment, extAH, extDestination, extMobility, extHIP, extShim6:
		return true
	}
	return false
}

// readIPv6 reads the fixed header and, where it is sound, goes on behind it.
func (r *reader) readIPv6() {
	if !r.has(r.ip, 40) {
		r.problem(verdict.ReasonTruncated)
		return
	}
	src, dst := addr6(r.data[r.ip+8:]), addr6(r.data[r.ip+24:])
	if r.data[r.ip]>>4 != 6 || src.Is4() || dst.Is4() {
		r.problem(verdict.ReasonBadIPHeader)
		return
	}
	r.end = r.ip + 40 + int(r.be16(r.ip+4))
	if r.end == r.ip+40 && r.gso {
		r.end = r.length
	}
	if r.end > r.length {
		r.problem(verdict.ReasonBadLength)
		return
	}

	k := &r.key
	k.HopLimit, k.Src, k.Dst = r.data[r.ip+7], src, dst
	k.Have = HaveSrc | HaveDst
	if off, ok := r.readExtensions(r.data[r.ip+6], r.ip+40); ok {
		r.readTransport(off)
	}
}

// readExtensions walks the extension headers from next at off and sets the
// protocol behind them. It gives the place of the transport header; ok is
// false where that is not readable.
func (r *reader) readExtensions(next uint8, off int) (transport int, ok bool) {
	k := &r.key
	for count := 0; IsExtension(next); count++ {
		if count == MaxExtensionHeaders {
			r.problem(verdict.ReasonExtensionDepth)
			return 0, false
		}
		if !r.within(off, 8) || off+extensionBytes(next, r.data[off+1]) > r.end {
			r.problem(verdict.ReasonTruncated)
			return 0, false
		}
		behind := r.data[off]
		switch next {
		case extRouting:
			if segmentsLeft := r.data[off+3]; segmentsLeft > 0 {
				r.hideDestination()
			}
		case extFragment:
			if r.readFragment(off); k.Fragment == LaterFragment {
				r.setProto(behind)
				return 0, false
			}
		}
		off += extensionBytes(next, r.data[off+1])
		next = behind
	}
	r.setProto(next)
	return off, true
}

// setProto notes the protocol of a packet, unless it is an extension header:
// then what stands behind that is not known.
func (r *reader) setProto(proto uint8) {
	if !IsExtension(proto) {
		r.key.Proto = proto
		r.key.Have |= HaveProto
	}
}

// extensionBytes is the whole length of an extension header of this kind whose
// length field holds n.
func extensionBytes(kind, n uint8) int {
	switch kind {
	case extFragment:
		return 8
	case extAH:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}

// readFragment reads the fragment header at off; an atomic one says nothing.
func (r *reader) readFragment(off int) {
	k := &r.key
	const offsetMask, moreFragments = 0xfff8, 1
	switch field := r.be16(off + 2); {
	case field&offsetMask != 0:
		k.Fragment = LaterFragment
	case field&moreFragments != 0:
		k.Fragment = FirstFragment
	default:
		return
	}
	k.FragmentID = r.be32(off + 4)
}

// addr4 and addr6 read an address in network order.
func addr4(b []byte) ipset.Addr { return ipset.From4(binary.BigEndian.Uint32(b)) }
func addr6(b []byte) ipset.Addr { return ipset.From16([16]byte(b[:16])) }

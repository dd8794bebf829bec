// Package packet reads one packet into a Key: what the tables classify. It
// stands between a frame and stage 3 and is the Go twin of bpf/include/parse.h;
// tests hold the two together on millions of frames. explain, the naive walk
// of the tests and the tests of the kernel side all read packets through it.
//
// # What is read, and what is not
//
// The rules below are the contract of both readers. "Nothing readable" means
// that none of the Have bits is set; of the other fields only IP, EtherType,
// Family and Problem count then. The first problem met is the one kept; where
// a header breaks two rules, the one named first below is the problem. "The
// frame" is the skb as TC sees it; of a frame that a capture cut short, lengths
// are compared with the whole, and a byte that is not there is truncated.
//
//  1. Link layer Ethernet: 14 bytes, or truncated. Then up to MaxVLANTags tags
//     in the frame (0x8100, 0x88a8, 0x9100), each 4 bytes, or truncated; the
//     type of one more is vlan-depth. These problems leave IP true, since it
//     may be IP, and EtherType and Family 0. The tag in skb metadata is not
//     counted. A type below 0x600 is an 802.3 length and stands in EtherType.
//  2. Link layer none (tun, wireguard, ipip): the first nibble tells the
//     family, 4 or 6; anything else, and a frame without a byte, is not IP.
//  3. A type other than 0x0800 and 0x86dd is not IP: no rule can match it. It
//     is link control if it is one of ARP 0x0806, RARP 0x8035, slow protocols
//     0x8809, EAPOL 0x888e, its pre-authentication 0x88c7, LLDP 0x88cc, PTP
//     0x88f7, CFM 0x8902, or an 802.3 length with STP 0x42 or IS-IS 0xfe in the
//     byte behind it. Family is what the type, or the nibble, says, whatever
//     the IP header does.
//  4. IPv4: 20 bytes or truncated; version 4 and header length >= 20, or
//     bad-ip-header; header within the frame, or truncated; total length
//     (0 in a GSO packet: the frame's) >= header length and within the frame,
//     or bad-length; options well formed, or bad-ip-header. All of these leave
//     nothing readable. Options: type 0 ends them, type 1 is one byte, any
//     other has a length byte, is at least 2 bytes long (a source route 3, for
//     its pointer) and lies within the header. A source route (types 131, 137)
//     not yet used up, its pointer <= its length, hides the destination:
//     source-route, HaveDst is off, reading goes on.
//  5. IPv6: 40 bytes or truncated; version 6 and neither address v4-mapped
//     (::ffff:0:0/96, which here stands for IPv4 and never is on a wire), or
//     bad-ip-header; payload length (0 in a GSO packet: the frame's) within the
//     frame, or bad-length; nothing readable. A payload length of 0 without GSO
//     is an empty payload.
//     Then, in both families, up to MaxExtensionHeaders of hop-by-hop 0,
//     routing 43, fragment 44, AH 51, destination options 60, mobility 135, HIP
//     139 and shim6 140; one more is extension-depth; each whole within the IP
//     length, with its first 8 bytes within MaxHeaderBytes from the IP header
//     on, or truncated; both leave the protocol unknown but the addresses
//     readable. A fragment header is 8 bytes, AH (n+2)*4, any other (n+1)*8. A
//     routing header of any type with segments left (byte 3) hides the
//     destination as above.
//  6. Fragments: offset > 0 is a later fragment; reading ends there. Its
//     protocol is known unless an extension header follows the fragment header,
//     which is no problem; its transport header is never readable. Offset 0
//     with more to come is a first fragment. An IPv6 fragment header with
//     neither (an atomic fragment) changes nothing; of several others the last
//     one read counts. FragmentID is 0 in what is no fragment.
//  7. TCP 20 bytes, UDP 8, SCTP 12, ICMP and ICMPv6 8, within the IP length and
//     MaxHeaderBytes, or truncated; TCP data offset >= 5 and within the IP
//     length, UDP length >= 8 and (unless a fragment or a GSO packet) within, or
//     bad-transport. Both leave addresses and protocol readable, the rest not.
//     The number alone tells the protocol: ICMP in IPv6 is read as ICMP. Any
//     other protocol has no transport header to read, which is no problem.
//  8. ICMP errors (3, 4, 5, 11, 12; ICMPv6 1 to 4) quote a packet behind their
//     8 bytes: an IPv4 header with its options in ICMP, an IPv6 header without
//     extension headers in ICMPv6, of the right version, and for the protocols
//     of rule 7 the 8 bytes behind it, all within the error's IP length and
//     MaxHeaderBytes. Its lengths and options are not looked at; a later
//     fragment, v4-mapped IPv6 addresses and ICMP that is no echo are not read.
package packet

import (
	"egate/internal/ipset"
	"egate/internal/verdict"
)

// Limits of both readers; bpf/include/abi.h has the same numbers.
const (
	MaxVLANTags         = 2
	MaxExtensionHeaders = 8
	MaxHeaderBytes      = 1024
)

// IP protocol numbers that egate reads into.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// LinkLayer is what stands before the IP header.
type LinkLayer uint8

const (
	Ethernet LinkLayer = 0
	NoLink   LinkLayer = 1 // tun, wireguard, ipip: the packet starts with IP
)

// Have tells which fields of a Key could be read.
type Have uint8

const (
	HaveSrc       Have = 1 << iota
	HaveDst            // off for a source-routed packet: the header's destination is not the last one
	HaveProto          // Proto holds the protocol behind all extension headers
	HaveTransport      // Selector, SourcePort, TCPFlags
)

// Fragment is a packet's part in a fragmented datagram.
type Fragment uint8

const (
	NotFragment Fragment = iota
	FirstFragment
	LaterFragment
)

// TCP flag bits of Key.TCPFlags.
const (
	FlagFIN = 0x01
	FlagSYN = 0x02
	FlagRST = 0x04
	FlagACK = 0x10
)

// Key is what was read of one packet. Numbers are in host order.
type Key struct {
	Direction verdict.Direction
	IP        bool   // false: not IP; then only EtherType and Control count
	Control   bool   // a known link-control frame: ARP, RARP, LLDP, EAPOL, slow protocols, PTP, CFM, STP, IS-IS
	EtherType uint16 // behind all VLAN tags, or the 802.3 length there; 0 where it could not be read or there is no link header

	Have       Have
	Src, Dst   ipset.Addr
	Family     uint8 // 4 or 6; 0 where unknown
	HopLimit   uint8 // IPv4 TTL or IPv6 hop limit
	Proto      uint8
	Selector   uint16 // destination port; for ICMP and ICMPv6 type<<8 | code
	SourcePort uint16 // TCP, UDP, SCTP; for ICMP and ICMPv6 echo the identifier, else 0
	TCPFlags   uint8

	Fragment   Fragment
	FragmentID uint32

	// Problem is why something could not be read, or verdict.ReasonRule (0)
	// where all was.
	Problem verdict.Reason
}

// Has tells whether all of the bits are set.
func (k *Key) Has(h Have) bool { return k.Have&h == h }

// HasPorts tells whether the protocol has ports and they were read.
func (k *Key) HasPorts() bool {
	return k.Has(HaveProto|HaveTransport) && (k.Proto == ProtoTCP || k.Proto == ProtoUDP || k.Proto == ProtoSCTP)
}

// HasICMP tells whether Selector holds an ICMP or ICMPv6 type and code.
func (k *Key) HasICMP() bool {
	return k.Has(HaveProto|HaveTransport) && (k.Proto == ProtoICMP || k.Proto == ProtoICMPv6)
}

package packet

import (
	"slices"
	"strconv"
)

// protoNames is the project's one table of IP protocol names (IANA's keywords
// in lower case). The first name of a number is the one printed.
var protoNames = []struct {
	name   string
	number uint8
}{
	{"icmp", ProtoICMP},
	{"igmp", 2},
	{"ipip", 4},
	{"tcp", ProtoTCP},
	{"egp", 8},
	{"igp", 9},
	{"udp", ProtoUDP},
	{"dccp", 33},
	{"ipv6", 41},
	{"rsvp", 46},
	{"gre", 47},
	{"esp", 50},
	{"ah", 51},
	{"icmpv6", ProtoICMPv6},
	{"eigrp", 88},
	{"ospf", 89},
	{"etherip", 97},
	{"pim", 103},
	{"ipcomp", 108},
	{"vrrp", 112},
	{"l2tp", 115},
	{"sctp", ProtoSCTP},
	{"udplite", 136},
	{"mpls-in-ip", 137},
}

// ProtoNumber finds a protocol by its name.
func ProtoNumber(name string) (number uint8, ok bool) {
	for _, p := range protoNames {
		if p.name == name {
			return p.number, true
		}
	}
	return 0, false
}

// ProtoName is the protocol's name, or its number where it has none.
func ProtoName(number uint8) string {
	for _, p := range protoNames {
		if p.number == number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// ProtoNames lists all protocol names, in the order of their numbers.
func ProtoNames() []string {
	names := make([]string, len(protoNames))
	for i, p := range protoNames {
		names[i] = p.name
	}
	return names
}

// AnyCode is an ICMPMessage's Code where every code of the type is meant.
const AnyCode = -1

// ICMPMessage is one kind of ICMP or ICMPv6 message.
type ICMPMessage struct {
	Proto uint8 // ProtoICMP or ProtoICMPv6
	Type  uint8
	Code  int // 0 to 255, or AnyCode
}

// Selectors is the inclusive range of Key.Selector that the message has.
func (m ICMPMessage) Selectors() (first, last uint16) {
	first = uint16(m.Type) << 8
	if m.Code == AnyCode {
		return first, first | 255
	}
	return first | uint16(m.Code), first | uint16(m.Code)
}

// icmpNames is the project's one table of ICMP names (IANA's registries of ICMP
// and ICMPv6 parameters). A name covers what has the same meaning in both, so
// that a policy which blocks ping blocks it on IPv6 too. The first name of a
// message is the one printed.
var icmpNames = []struct {
	name     string
	messages []ICMPMessage // at most one of each family
}{
	{"echo-request", []ICMPMessage{{ProtoICMP, 8, AnyCode}, {ProtoICMPv6, 128, AnyCode}}},
	{"echo-reply", []ICMPMessage{{ProtoICMP, 0, AnyCode}, {ProtoICMPv6, 129, AnyCode}}},
	{"destination-unreachable", []ICMPMessage{{ProtoICMP, 3, AnyCode}, {ProtoICMPv6, 1, AnyCode}}},
	{"net-unreachable", []ICMPMessage{{ProtoICMP, 3, 0}, {ProtoICMPv6, 1, 0}}},
	{"host-unreachable", []ICMPMessage{{ProtoICMP, 3, 1}, {ProtoICMPv6, 1, 3}}},
	{"protocol-unreachable", []ICMPMessage{{ProtoICMP, 3, 2}, {ProtoICMPv6, 4, 1}}},
	{"port-unreachable", []ICMPMessage{{ProtoICMP, 3, 3}, {ProtoICMPv6, 1, 4}}},
	{"source-route-failed", []ICMPMessage{{ProtoICMP, 3, 5}, {ProtoICMPv6, 1, 7}}},
	{"admin-prohibited", []ICMPMessage{{ProtoICMP, 3, 13}, {ProtoICMPv6, 1, 1}}},
	{"packet-too-big", []ICMPMessage{{ProtoICMP, 3, 4}, {ProtoICMPv6, 2, AnyCode}}},
	{"time-exceeded", []ICMPMessage{{ProtoICMP, 11, AnyCode}, {ProtoICMPv6, 3, AnyCode}}},
	{"hop-limit-exceeded", []ICMPMessage{{ProtoICMP, 11, 0}, {ProtoICMPv6, 3, 0}}},
	{"reassembly-time-exceeded", []ICMPMessage{{ProtoICMP, 11, 1}, {ProtoICMPv6, 3, 1}}},
	{"parameter-problem", []ICMPMessage{{ProtoICMP, 12, AnyCode}, {ProtoICMPv6, 4, AnyCode}}},
	{"redirect", []ICMPMessage{{ProtoICMP, 5, AnyCode}, {ProtoICMPv6, 137, AnyCode}}},
	{"router-solicitation", []ICMPMessage{{ProtoICMP, 10, AnyCode}, {ProtoICMPv6, 133, AnyCode}}},
	{"router-advertisement", []ICMPMessage{{ProtoICMP, 9, AnyCode}, {ProtoICMPv6, 134, AnyCode}}},
	{"source-quench", []ICMPMessage{{ProtoICMP, 4, AnyCode}}},
	{"timestamp-request", []ICMPMessage{{ProtoICMP, 13, AnyCode}}},
	{"timestamp-reply", []ICMPMessage{{ProtoICMP, 14, AnyCode}}},
	{"address-mask-request", []ICMPMessage{{ProtoICMP, 17, AnyCode}}},
	{"address-mask-reply", []ICMPMessage{{ProtoICMP, 18, AnyCode}}},
	{"extended-echo-request", []ICMPMessage{{ProtoICMP, 42, AnyCode}, {ProtoICMPv6, 160, AnyCode}}},
	{"extended-echo-reply", []ICMPMessage{{ProtoICMP, 43, AnyCode}, {ProtoICMPv6, 161, AnyCode}}},
	{"neighbour-solicitation", []ICMPMessage{{ProtoICMPv6, 135, AnyCode}}},
	{"neighbor-solicitation", []ICMPMessage{{ProtoICMPv6, 135, AnyCode}}},
	{"neighbour-advertisement", []ICMPMessage{{ProtoICMPv6, 136, AnyCode}}},
	{"neighbor-advertisement", []ICMPMessage{{ProtoICMPv6, 136, AnyCode}}},
	{"mld-query", []ICMPMessage{{ProtoICMPv6, 130, AnyCode}}},
	{"mld-report", []ICMPMessage{{ProtoICMPv6, 131, AnyCode}}},
	{"mld-done", []ICMPMessage{{ProtoICMPv6, 132, AnyCode}}},
	{"mld2-report", []ICMPMessage{{ProtoICMPv6, 143, AnyCode}}},
}

// ICMPMessages finds the messages that a name stands for, one of each family
// that has it. The caller owns the result.
func ICMPMessages(name string) (messages []ICMPMessage, ok bool) {
	for _, n := range icmpNames {
		if n.name == name {
			return slices.Clone(n.messages), true
		}
	}
	return nil, false
}

// ICMPName names a message by its type and code; it prefers the name that
// tells the code. ok is false where there is none.
func ICMPName(proto uint8, selector uint16) (name string, ok bool) {
	for _, n := range icmpNames {
		for _, m := range n.messages {
			first, last := m.Selectors()
			if m.Proto != proto || selector < first || selector > last {
				continue
			}
			if m.Code != AnyCode {
				return n.name, true
			}
			if !ok {
				name, ok = n.name, true
			}
		}
	}
	return name, ok
}

// ICMPNames lists all ICMP names.
func ICMPNames() []string {
	names := make([]string, len(icmpNames))
	for i, n := range icmpNames {
		names[i] = n.name
	}
	return names
}

// controlNames is the link-control frames that an EtherType tells.
var controlNames = []struct {
	name      string
	etherType uint16
}{
	{"arp", 0x0806},
	{"rarp", 0x8035},
	{"slow-protocols", 0x8809},
	{"eapol", 0x888e},
	{"preauth", 0x88c7},
	{"lldp", 0x88cc},
	{"ptp", 0x88f7},
	{"cfm", 0x8902},
}

// Link-control protocols that an 802.2 destination service access point tells.
const (
	dsapSTP  = 0x42
	dsapISIS = 0xfe
)

func controlName(etherType uint16) (name string, ok bool) {
	for _, c := range controlNames {
		if c.etherType == etherType {
			return c.name, true
		}
	}
	return "", false
}

func controlEtherType(name string) (etherType uint16, ok bool) {
	for _, c := range controlNames {
		if c.name == name {
			return c.etherType, true
		}
	}
	return 0, false
}

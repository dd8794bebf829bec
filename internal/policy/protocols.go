package policy

import "egate/internal/packet"

// protocols gives the numbers of the names that `protocols` takes, as IANA
// assigns them.
var protocols = []struct {
	name   string
	number uint8
}{
	{"icmp", packet.ProtoICMP},
	{"igmp", 2},
	{"ipip", 4},
	{"tcp", packet.ProtoTCP},
	{"egp", 8},
	{"igp", 9},
	{"udp", packet.ProtoUDP},
	{"dccp", 33},
	{"ipv6", 41},
	{"rsvp", 46},
	{"gre", 47},
	{"esp", 50},
	{"ah", 51},
	{"icmpv6", packet.ProtoICMPv6},
	{"eigrp", 88},
	{"ospf", 89},
	{"etherip", 97},
	{"pim", 103},
	{"ipcomp", 108},
	{"vrrp", 112},
	{"l2tp", 115},
	{"sctp", packet.ProtoSCTP},
	{"udplite", 136},
	{"mpls-in-ip", 137},
}

func protocolNames() []string {
	out := make([]string, len(protocols))
	for i, p := range protocols {
		out[i] = p.name
	}
	return out
}

// extensionHeaders are protocol numbers that the packet reader reads past in
// IPv6: no IPv6 packet has them as its protocol.
var extensionHeaders = [256]bool{0: true, 43: true, 44: true, 51: true, 60: true, 135: true, 139: true, 140: true}

// none stands for a family that has no such message.
const (
	none    = -1
	anyCode = -1
)

// icmpMessage is a name of `icmp` and what it is in each family.
type icmpMessage struct {
	name         string
	type4, code4 int
	type6, code6 int
}

// icmpMessages follows the IANA registries of ICMP and ICMPv6 parameters. A
// name covers what has the same meaning in both.
var icmpMessages = []icmpMessage{
	{"echo-request", 8, anyCode, 128, anyCode},
	{"echo-reply", 0, anyCode, 129, anyCode},
	{"destination-unreachable", 3, anyCode, 1, anyCode},
	{"net-unreachable", 3, 0, 1, 0},
	{"host-unreachable", 3, 1, 1, 3},
	{"protocol-unreachable", 3, 2, 4, 1},
	{"port-unreachable", 3, 3, 1, 4},
	{"source-route-failed", 3, 5, 1, 7},
	{"admin-prohibited", 3, 13, 1, 1},
	{"packet-too-big", 3, 4, 2, anyCode},
	{"time-exceeded", 11, anyCode, 3, anyCode},
	{"hop-limit-exceeded", 11, 0, 3, 0},
	{"reassembly-time-exceeded", 11, 1, 3, 1},
	{"parameter-problem", 12, anyCode, 4, anyCode},
	{"redirect", 5, anyCode, 137, anyCode},
	{"router-solicitation", 10, anyCode, 133, anyCode},
	{"router-advertisement", 9, anyCode, 134, anyCode},
	{"source-quench", 4, anyCode, none, anyCode},
	{"timestamp-request", 13, anyCode, none, anyCode},
	{"timestamp-reply", 14, anyCode, none, anyCode},
	{"address-mask-request", 17, anyCode, none, anyCode},
	{"address-mask-reply", 18, anyCode, none, anyCode},
	{"extended-echo-request", 42, anyCode, 160, anyCode},
	{"extended-echo-reply", 43, anyCode, 161, anyCode},
	{"neighbour-solicitation", none, anyCode, 135, anyCode},
	{"neighbor-solicitation", none, anyCode, 135, anyCode},
	{"neighbour-advertisement", none, anyCode, 136, anyCode},
	{"neighbor-advertisement", none, anyCode, 136, anyCode},
	{"mld-query", none, anyCode, 130, anyCode},
	{"mld-report", none, anyCode, 131, anyCode},
	{"mld-done", none, anyCode, 132, anyCode},
	{"mld2-report", none, anyCode, 143, anyCode},
}

func icmpNames() []string {
	out := make([]string, len(icmpMessages))
	for i, m := range icmpMessages {
		out[i] = m.name
	}
	return out
}

// services gives what the name stands for.
func (m icmpMessage) services() (out []Service) {
	if m.type4 != none {
		out = append(out, icmpService(packet.ProtoICMP, m.type4, m.code4))
	}
	if m.type6 != none {
		out = append(out, icmpService(packet.ProtoICMPv6, m.type6, m.code6))
	}
	return out
}

// icmpService is a type, with one code or any.
func icmpService(proto uint8, typ, code int) Service {
	first := uint16(typ) << 8
	if code == anyCode {
		return Service{Proto: proto, First: first, Last: first | 0xff}
	}
	return Service{Proto: proto, First: first | uint16(code), Last: first | uint16(code)}
}

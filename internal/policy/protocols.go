package policy

import "egate/internal/packet"

// protocol is a name that `protocols` takes.
type protocol struct {
	name   string
	number uint8
}

// protocols and icmpMessages are package packet's names, in its order.
var (
	protocols    = readProtocols()
	icmpMessages = readICMPMessages()
)

func readProtocols() (out []protocol) {
	for _, name := range packet.ProtoNames() {
		number, _ := packet.ProtoNumber(name)
		out = append(out, protocol{name, number})
	}
	return out
}

func protocolNames() []string {
	out := make([]string, len(protocols))
	for i, p := range protocols {
		out[i] = p.name
	}
	return out
}

// none stands for a family that has no such message.
const (
	none    = -1
	anyCode = packet.AnyCode
)

// icmpMessage is a name of `icmp` and what it is in each family.
type icmpMessage struct {
	name         string
	type4, code4 int
	type6, code6 int
}

func readICMPMessages() (out []icmpMessage) {
	for _, name := range packet.ICMPNames() {
		n := icmpMessage{name, none, anyCode, none, anyCode}
		messages, _ := packet.ICMPMessages(name)
		for _, m := range messages {
			if m.Proto == packet.ProtoICMP {
				n.type4, n.code4 = int(m.Type), m.Code
			} else {
				n.type6, n.code6 = int(m.Type), m.Code
			}
		}
		out = append(out, n)
	}
	return out
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

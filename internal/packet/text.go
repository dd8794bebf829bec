package packet

import (
	"fmt"
	"strings"

	"egate/internal/ipset"
	"egate/internal/verdict"
)

// Words of the packet text that ParseText reads and Key.String writes.
const (
	unreadable = "*"
	nonIP      = "non-ip"
)

var fragmentNames = [...]string{FirstFragment: "first", LaterFragment: "later"}

// flagLetters stand for the bits of Key.TCPFlags, lowest first: FIN, SYN, RST,
// PSH, ACK, URG, ECE, CWR.
const flagLetters = "FSRPAUEC"

// textReasons is the problems a packet's text can name: those Decode finds.
var textReasons = [...]verdict.Reason{
	verdict.ReasonTruncated, verdict.ReasonBadIPHeader, verdict.ReasonBadLength, verdict.ReasonVLANDepth,
	verdict.ReasonExtensionDepth, verdict.ReasonSourceRoute, verdict.ReasonBadTransport,
}

// String writes the packet as ParseText reads it: ParseText gives the same Key
// back for every Key that Decode or ParseText made.
func (k *Key) String() string {
	var b strings.Builder
	if k.IP {
		k.writeIP(&b)
	} else {
		k.writeNonIP(&b)
	}
	return b.String()
}

func (k *Key) writeNonIP(b *strings.Builder) {
	if name, ok := controlName(k.EtherType); ok {
		b.WriteString(name)
	} else {
		fmt.Fprintf(b, "%s type=0x%04x", nonIP, k.EtherType)
		if k.Control {
			b.WriteString(" control")
		}
	}
	k.writeDirection(b)
}

func (k *Key) writeDirection(b *strings.Builder) {
	if k.Direction == verdict.Ingress {
		b.WriteString(" in")
	}
}

func (k *Key) writeIP(b *strings.Builder) {
	proto := unreadable
	if k.Has(HaveProto) {
		proto = ProtoName(k.Proto)
		if nameFamily(k.Proto) != k.Family && nameFamily(k.Proto) != 0 && k.Family != 0 {
			proto = fmt.Sprint(k.Proto)
		}
	}
	hidden := !k.Has(HaveTransport) && k.Has(HaveProto) && k.Fragment != LaterFragment

	src, dst := k.endpoint(HaveSrc, k.Src), k.endpoint(HaveDst, k.Dst)
	switch {
	case k.HasPorts():
		if k.SourcePort != 0 {
			src += fmt.Sprint(":", k.SourcePort)
		}
		dst += fmt.Sprint(":", k.Selector)
	case hidden && hasPorts(k.Proto):
		dst += ":" + unreadable
	}
	fmt.Fprintf(b, "%s %s -> %s", proto, src, dst)

	switch {
	case k.HasICMP():
		b.WriteString(" " + icmpText(k.Proto, k.Selector))
		if k.SourcePort != 0 {
			fmt.Fprintf(b, " id=%d", k.SourcePort)
		}
	case hidden && isICMP(k.Proto):
		b.WriteString(" type=" + unreadable)
	case k.HasPorts() && k.Proto == ProtoTCP && k.TCPFlags != FlagSYN:
		b.WriteString(" flags=" + flagsText(k.TCPFlags))
	}
	k.writeDirection(b)
	if k.Fragment != NotFragment {
		fmt.Fprintf(b, " fragment=%s", fragmentNames[k.Fragment])
		if k.FragmentID != 0 {
			fmt.Fprintf(b, " fragment-id=%d", k.FragmentID)
		}
	}
	if k.HopLimit != k.usualHopLimit() {
		fmt.Fprintf(b, " ttl=%d", k.HopLimit)
	}
	if !k.Has(HaveSrc) && !k.Has(HaveDst) && k.Family != 0 {
		fmt.Fprintf(b, " ipv%d", k.Family)
	}
	if k.Family != 0 && k.EtherType == 0 {
		b.WriteString(" no-link")
	}
	if k.Problem != verdict.ReasonRule {
		fmt.Fprintf(b, " problem=%s", k.Problem)
	}
}

// endpoint writes an address so that a port can follow.
func (k *Key) endpoint(have Have, a ipset.Addr) string {
	switch {
	case !k.Has(have):
		return unreadable
	case !a.Is4() && k.HasPorts(), !a.Is4() && k.Has(HaveProto) && hasPorts(k.Proto):
		return "[" + a.String() + "]"
	}
	return a.String()
}

// usualHopLimit is what a text means that gives none: what senders put there.
func (k *Key) usualHopLimit() uint8 {
	if k.Have == 0 {
		return 0
	}
	if k.HasICMP() && k.Proto == ProtoICMPv6 {
		switch k.Selector >> 8 {
		case 133, 134, 135, 136, 137:
			return 255
		case 130, 131, 132, 143:
			return 1
		}
	}
	return 64
}

func hasPorts(proto uint8) bool {
	return proto == ProtoTCP || proto == ProtoUDP || proto == ProtoSCTP
}

func isICMP(proto uint8) bool { return proto == ProtoICMP || proto == ProtoICMPv6 }

// nameFamily is the family that the names icmp and icmpv6 speak of, 0 for others.
func nameFamily(proto uint8) uint8 {
	switch proto {
	case ProtoICMP:
		return 4
	case ProtoICMPv6:
		return 6
	}
	return 0
}

// icmpText names a message, or gives its numbers where no name tells its code.
func icmpText(proto uint8, selector uint16) string {
	if name, ok := ICMPName(proto, selector); ok {
		if named, _ := namedSelector(proto, name); named == selector {
			return name
		}
	}
	return fmt.Sprintf("type=%d code=%d", selector>>8, selector&255)
}

// namedSelector is the selector a name stands for in a packet's text: code 0
// where the name leaves the code open.
func namedSelector(proto uint8, name string) (selector uint16, ok bool) {
	messages, _ := ICMPMessages(name)
	for _, m := range messages {
		if m.Proto == proto {
			first, _ := m.Selectors()
			return first, true
		}
	}
	return 0, false
}

// tellsCode tells whether the name stands for one code of its type alone.
func tellsCode(proto uint8, name string) bool {
	messages, _ := ICMPMessages(name)
	for _, m := range messages {
		if m.Proto == proto {
			return m.Code != AnyCode
		}
	}
	return false
}

func flagsText(flags uint8) string {
	if flags == 0 {
		return "none"
	}
	var b strings.Builder
	for i := range flagLetters {
		if flags&(1<<i) != 0 {
			b.WriteByte(flagLetters[i])
		}
	}
	return b.String()
}

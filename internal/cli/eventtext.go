package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"egate/internal/cli/table"
	"egate/internal/events"
	"egate/internal/packet"
	"egate/internal/verdict"
)

const eventHead = "TIME          WAY      IFACE     VERDICT   RULE              PACKET"

// eventLine writes an event for people, in columns of fixed widths because
// what comes next is not known. The packet stands last and is never cut: it is
// what one looks for.
func eventLine(e *events.Event) string {
	action := e.Action.String()
	if e.Audit && e.Action != verdict.Allow {
		action = "(" + action + ")" // it passed all the same
	}
	iface := e.Interface
	if iface == "" {
		iface = fmt.Sprintf("#%d", e.Ifindex)
	}
	rule := e.Rule
	if e.Reason != verdict.ReasonRule && rule == "default" {
		rule = defaultRule
	}
	return fmt.Sprintf("%s  %-7s  %-8s  %-8s  %-16s  %s", e.Time.Format("15:04:05.000"), e.Direction,
		table.Cut(table.Clean(iface), 8), action, table.Cut(table.Clean(rule), 16), packetText(e))
}

// packetText is what an event tells of its packet, much as explain takes it.
func packetText(e *events.Event) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case e.Family == 0 && e.EtherType != 0:
		add("non-ip type=0x%04x", e.EtherType)
	case e.Family == 0:
		add("unreadable")
	default:
		proto := "*"
		if e.HasProto {
			proto = packet.ProtoName(e.Proto)
		}
		source, destination := endpoint(e, e.Source, e.SourcePort), endpoint(e, e.Destination, e.DestinationPort)
		if name := eventName(e); e.Direction == verdict.Egress || e.HasPorts && e.SourcePort == dnsPort {
			destination += name
		} else {
			source += name // that of the other side
		}
		add("%s %s -> %s", proto, source, destination)
	}
	if e.HasICMP {
		selector := uint16(e.ICMPType)<<8 | uint16(e.ICMPCode)
		if name, ok := packet.ICMPName(e.Proto, selector); ok {
			add("%s", name)
		} else {
			add("type=%d code=%d", e.ICMPType, e.ICMPCode)
		}
	}
	switch e.Fragment {
	case packet.FirstFragment:
		add("fragment=first")
	case packet.LaterFragment:
		add("fragment=later")
	}
	if e.Segments > 1 {
		add("(%d segments)", e.Segments)
	}
	if e.Reason != verdict.ReasonRule && e.Reason != verdict.ReasonDefault {
		add("(%v)", e.Reason)
	}
	return strings.Join(words, " ")
}

const dnsPort = 53

// eventName is what an event tells of names: that of a DNS message stands
// behind the packet, the other side's behind its address.
func eventName(e *events.Event) string {
	name := table.Clean(e.Name)
	switch {
	case name == "":
		return ""
	case e.HasPorts && e.Direction == verdict.Egress && e.DestinationPort == dnsPort:
		return " asks for " + name
	case e.HasPorts && e.Direction == verdict.Ingress && e.SourcePort == dnsPort:
		return " answers for " + name
	case e.Reason == verdict.ReasonNameMismatch:
		return " says " + name // which is not one of the address's
	}
	return " (" + name + ")"
}

func endpoint(e *events.Event, a netip.Addr, port uint16) string {
	switch {
	case !a.IsValid():
		return "*"
	case e.HasPorts:
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

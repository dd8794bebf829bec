package policy

import (
	"fmt"

	"egate/internal/verdict"
)

// Exemptions lists, one clause each, what passes in a direction although no
// rule decides it and the default would not let it: what a host needs to have
// a network at all. A rule that matches goes first. It is nil where the
// default is allow.
func (p *Policy) Exemptions(d verdict.Direction) []string {
	c := &p.Chains[d]
	if c.Default == verdict.Allow {
		return nil
	}
	dhcp, opener := "DHCP and DHCPv6 of a client to its server (udp port 68 to 67, 546 to 547)", "the other side"
	if d == verdict.Ingress {
		dhcp, opener = "DHCP and DHCPv6 of a server to its client (udp port 67 to 68, 547 to 546)", "this side"
	}
	out := []string{
		"link-control frames that are not IP: ARP, RARP, LLDP, EAPOL, slow protocols, PTP, CFM, STP, IS-IS",
		"IPv6 neighbour discovery (icmpv6/133 to icmpv6/137 with hop limit 255)",
		"IPv6 multicast listener messages (icmpv6/130 to icmpv6/132 and icmpv6/143 with hop limit 1)",
		dhcp,
	}
	if d == verdict.Egress && p.ReadsDNS() {
		out = append(out, "DNS (udp and tcp port 53) to "+p.DNS.servers())
	}
	if c.Replies {
		out = append(out, "replies: packets of connections that "+opener+" opened, and ICMP errors about them")
	}
	return out
}

// servers says in words whose answers open names.
func (d *DNS) servers() string {
	if d.Servers == nil {
		return "the resolvers that this host uses"
	}
	text := "the resolvers of dns:"
	for i, a := range d.Servers {
		if i == 8 {
			return fmt.Sprintf("%s and %d more", text, len(d.Servers)-i)
		}
		if i > 0 {
			text += ","
		}
		text += " " + a.String()
	}
	return text
}

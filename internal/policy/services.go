package policy

import (
	"cmp"
	"slices"
	"strings"

	"egate/internal/packet"
)

// portProtocols are the protocols that have ports.
var portProtocols = []struct {
	name   string
	number uint8
}{{"tcp", packet.ProtoTCP}, {"udp", packet.ProtoUDP}, {"sctp", packet.ProtoSCTP}}

// services reads protocols, ports and icmp of `to` and combines them: a packet
// must meet each key that is given.
func (r *reader) services(v values) []Service {
	errorsBefore := r.errors
	protocols, ports, icmp := r.protocolList(v), r.portList(v), r.icmpList(v)
	if ports != nil && icmp != nil {
		r.errorAt(v.value[later(v, toKeys.apart)], "the rule can never match: no packet has both ports and an ICMP type")
		return nil
	}
	selectors := slices.Concat(ports, icmp)
	switch {
	case protocols == nil:
		return selectors
	case selectors == nil || r.errors > errorsBefore:
		return protocols
	}
	kept := keepProtocols(selectors, protocolsOf(protocols))
	if len(kept) == 0 {
		which := later(v, []string{"protocols", "ports", "icmp"})
		r.errorAt(v.value[which], "the rule can never match: protocols and %s have no protocol in common", given(v, "ports", "icmp"))
		return nil
	}
	r.warnNoEffect(v, protocols, selectors)
	return kept
}

// given is the first of the keys that is given.
func given(v values, names ...string) string {
	for _, name := range names {
		if v.value[name] != nil {
			return name
		}
	}
	return ""
}

// later is that of the keys whose value stands last in the file.
func later(v values, names []string) string {
	last := ""
	for _, name := range names {
		n, before := v.value[name], v.value[last]
		if n != nil && (before == nil || cmp.Or(cmp.Compare(n.Line, before.Line), cmp.Compare(n.Column, before.Column)) > 0) {
			last = name
		}
	}
	return last
}

// warnNoEffect reports elements that the combination with another key makes void.
func (r *reader) warnNoEffect(v values, protocols, selectors []Service) {
	other := given(v, "ports", "icmp")
	has := protocolsOf(selectors)
	for _, n := range v.list["protocols"] {
		if s, _ := parseProtocol(n.Value); !has[s.Proto] {
			r.warnAt(n, "%s has no effect: %s asks for other protocols", n.Value, other)
		}
	}
	has = protocolsOf(protocols)
	parse := parsePorts
	if other == "icmp" {
		parse = parseICMP
	}
	for _, n := range v.list[other] {
		if s, _ := parse(n.Value); len(keepProtocols(s, has)) == 0 {
			r.warnAt(n, "%s has no effect: its protocol is not in protocols", n.Value)
		}
	}
}

// protocolList reads `protocols`.
func (r *reader) protocolList(v values) []Service {
	var out []Service
	for _, n := range v.list["protocols"] {
		s, problem := parseProtocol(n.Value)
		if problem != "" {
			r.errorAt(n, "%s %s%s", quote(n.Value), problem, cmp.Or(meantProtocol(n.Value), r.near(n.Value, protocolNames())))
			continue
		}
		if packet.IsExtension(s.Proto) {
			r.warnAt(n, "%s is an extension header, which egate reads past: no packet matches it", n.Value)
		}
		out = append(out, s)
	}
	return mergeServices(out)
}

// portList reads `ports`.
func (r *reader) portList(v values) []Service {
	var out []Service
	for _, n := range v.list["ports"] {
		s, problem := parsePorts(n.Value)
		if problem != "" {
			r.errorAt(n, "%s %s%s", quote(n.Value), problem, meantPorts(n.Value))
		}
		out = append(out, s...)
	}
	return mergeServices(out)
}

// icmpList reads `icmp`.
func (r *reader) icmpList(v values) []Service {
	var out []Service
	for _, n := range v.list["icmp"] {
		s, problem := parseICMP(n.Value)
		if problem != "" {
			r.errorAt(n, "%s %s%s", quote(n.Value), problem, cmp.Or(meantICMP(n.Value), r.near(n.Value, icmpNames())))
		}
		out = append(out, s...)
	}
	return mergeServices(out)
}

// parseProtocol reads a name or number. A problem is a clause that follows the
// element's text, as in the readers below.
func parseProtocol(text string) (s Service, problem string) {
	for _, p := range protocols {
		if p.name == text {
			return Service{Proto: p.number, Whole: true}, ""
		}
	}
	if n, ok := decimal(text, 255); ok {
		return Service{Proto: uint8(n), Whole: true}, ""
	}
	if strings.Trim(text, "0123456789") == "" && text != "" {
		return s, "is not a protocol number from 0 to 255"
	}
	return s, "is not a protocol that egate knows by name; a number from 0 to 255 also is"
}

// parsePorts reads a port or range, of one protocol or of all that have ports.
func parsePorts(text string) (out []Service, problem string) {
	ports, whose := text, portProtocols
	if name, rest, ok := strings.Cut(text, "/"); ok {
		i := slices.IndexFunc(whose, func(p struct {
			name   string
			number uint8
		}) bool {
			return p.name == name
		})
		if i < 0 {
			return nil, "does not begin with tcp/, udp/ or sctp/, the protocols with ports"
		}
		ports, whose = rest, whose[i:i+1]
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	first, ok1 := decimal(low, 65535)
	last, ok2 := decimal(high, 65535)
	switch {
	case !ok1 || !ok2:
		return nil, "is not a port or range of ports; ports are whole numbers from 0 to 65535"
	case last < first:
		return nil, "is a range that ends before it begins"
	}
	for _, p := range whose {
		out = append(out, Service{Proto: p.number, First: uint16(first), Last: uint16(last)})
	}
	return out, ""
}

// parseICMP reads a name, or a family's type and code.
func parseICMP(text string) (out []Service, problem string) {
	for _, m := range icmpMessages {
		if m.name == text {
			return m.services(), ""
		}
	}
	family, rest, ok := strings.Cut(text, "/")
	proto := uint8(packet.ProtoICMP)
	switch {
	case !ok && strings.Trim(text, "0123456789") == "":
		return nil, "does not say which family it is of, and ICMP and ICMPv6 number their types differently; write icmp/" + text + " or icmpv6/" + text + ", or a name"
	case ok && family == "icmpv6":
		proto = packet.ProtoICMPv6
	case !ok || family != "icmp":
		return nil, "is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are"
	}
	typeText, codeText, hasCode := strings.Cut(rest, "/")
	typ, ok := decimal(typeText, 255)
	code, okCode := anyCode, true
	if hasCode {
		code, okCode = decimal(codeText, 255)
	}
	if !ok || !okCode {
		return nil, "is not an ICMP message; types and codes are whole numbers from 0 to 255"
	}
	return []Service{icmpService(proto, typ, code)}, ""
}

// mergeServices sorts, and joins what overlaps or touches.
func mergeServices(in []Service) []Service {
	slices.SortFunc(in, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var out []Service
	for _, s := range in {
		if n := len(out); n > 0 && out[n-1].Proto == s.Proto && (s.Whole || int(s.First) <= int(out[n-1].Last)+1) {
			out[n-1].Last = max(out[n-1].Last, s.Last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// protocolsOf marks the protocols of a list.
func protocolsOf(services []Service) (has [256]bool) {
	for _, s := range services {
		has[s.Proto] = true
	}
	return has
}

// keepProtocols gives the services whose protocol is marked.
func keepProtocols(services []Service, keep [256]bool) (out []Service) {
	for _, s := range services {
		if keep[s.Proto] {
			out = append(out, s)
		}
	}
	return out
}

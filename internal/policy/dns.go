package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"egate/internal/domain"
	"egate/internal/verdict"
)

// dns reads the section `dns`; n is nil where the file does not have it.
func (r *reader) dns(n *yaml.Node) (DNS, values) {
	d := DNS{MaxLabel: domain.MaxLabel}
	if n == nil {
		return d, values{}
	}
	v := r.read(n, dnsKeys, "dns")
	names := r.word(v, dnsKeys, "names")
	d.Given = true
	d.Servers = r.servers(v)
	d.ListedOnly = names == "listed"
	d.NXDomain = r.word(v, dnsKeys, "refuse") == "nxdomain"
	if refuse := v.value["refuse"]; refuse != nil && (names == "any" || v.value["names"] == nil) {
		r.errorAt(refuse, "refuse says how questions for names that no rule lists are answered; without names: listed they are asked")
	}
	d.Types = r.questionTypes(v)
	if most, ok := r.number(v, dnsKeys, "max_label"); ok {
		d.MaxLabel = uint8(most)
	}
	if n := v.value["rate"]; n != nil {
		rate, ok := parseRate(n.Value)
		if !ok {
			r.errorAt(n, "rate wants a number a second, minute or hour such as 50/s, 5/m or 1/h, from 1 to %d, found %s", maxEvents, quote(n.Value))
		}
		d.Rate = rate
	}
	d.Elsewhere = action(r.word(v, dnsKeys, "elsewhere"))
	return d, v
}

// servers reads `servers`, sorted.
func (r *reader) servers(v values) (out []netip.Addr) {
	if len(v.list["servers"]) > MaxServers {
		r.errorAt(v.value["servers"], "dns has more than %d servers", MaxServers)
		return nil
	}
	for _, n := range v.list["servers"] {
		a, err := netip.ParseAddr(n.Value)
		a = a.Unmap()
		switch {
		case err != nil:
			r.errorAt(n, "%s is not an address%s", quote(n.Value), meantServer(n.Value))
		case a.Zone() != "":
			r.errorAt(n, "%s has a zone; write the address without it", quote(n.Value))
		case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			r.errorAt(n, "%s is not the address of a server", quote(n.Value))
		case slices.Contains(out, a):
			r.warnAt(n, "server %v is listed twice", a)
		default:
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// meantServer says how a server is written here, or "".
func meantServer(text string) string {
	address, _, found := strings.Cut(text, "/")
	if _, err := netip.ParseAddr(address); found && err == nil {
		return "; a server is a single one"
	}
	if _, err := netip.ParseAddrPort(text); err == nil {
		return "; servers are asked at port 53, write the address alone"
	}
	if _, err := domain.ParseName(text); err == nil && strings.Contains(text, ".") {
		return "; names are looked up at these servers, write the address"
	}
	return ""
}

// questionTypes reads `types`, sorted.
func (r *reader) questionTypes(v values) (out []uint16) {
	for _, n := range v.list["types"] {
		t, ok := parseType(n.Value)
		switch {
		case ok && slices.Contains(out, t):
			r.warnAt(n, "type %s is listed twice", n.Value)
		case ok:
			out = append(out, t)
		default:
			r.errorAt(n, "%s is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are%s", quote(n.Value), r.meantType(n.Value))
		}
	}
	slices.Sort(out)
	return out
}

func (r *reader) meantType(text string) string {
	if slices.Contains(everything, text) {
		return "; leave types out to mean every type"
	}
	if upper := strings.ToUpper(text); slices.Contains(typeNames(), upper) {
		return fmt.Sprintf("; did you mean %q?", upper)
	}
	if t, ok := decimal(text, 65535); ok && t > 0 {
		return fmt.Sprintf("; write TYPE%d", t)
	}
	if len(text) < 2 {
		return "" // every short name is near
	}
	return r.near(text, typeNames())
}

// warnDNS reports what the section and the rules make of each other.
func (r *reader) warnDNS(p *Policy, v values) {
	if r.errors > 0 {
		return // a rule that could not be read may be the one
	}
	named, longest := false, ""
	for i := range p.Chains[verdict.Egress].Rules {
		rule := &p.Chains[verdict.Egress].Rules[i]
		if rule.Domains == nil {
			continue
		}
		named = true
		if rule.Action == verdict.Allow && longest == "" && p.DNS.MaxLabel < domain.MaxLabel {
			longest = longerLabel(rule.Domains, int(p.DNS.MaxLabel))
		}
	}
	if longest != "" {
		r.warnAt(v.value["max_label"], "a question for %s will be refused, although a rule allows it", quote(longest))
	}
	tells := func(t uint16) bool { return t == typeA || t == typeAAAA || t == typeSVCB || t == typeHTTPS }
	if named && p.DNS.Types != nil && !slices.ContainsFunc(p.DNS.Types, tells) {
		r.warnAt(v.value["types"], "no rule with domains can match: none of these types tells addresses, as A and AAAA do")
	}
	for _, n := range v.list["types"] {
		if t, _ := parseType(n.Value); t >= sharedTypes {
			r.warnAt(n, "types from %d on are not told apart: with %s all of them may be asked", sharedTypes, n.Value)
			break
		}
	}
}

// longerLabel is a name of the set with a label longer than most bytes, or "".
func longerLabel(s *domain.Set, most int) string {
	for _, p := range s.Patterns() {
		for label := range strings.SplitSeq(p.Name, ".") {
			if len(label) > most {
				return p.String()
			}
		}
	}
	return ""
}

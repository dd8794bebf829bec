package policy

import (
	"slices"

	"egate/internal/ipset"
	"egate/internal/packet"
)

// Matches tells whether a packet meets all that the rule asks for. names is
// what its destination is known as.
func (r *Rule) Matches(k *packet.Key, names []string) bool {
	return (r.Domains == nil || slices.ContainsFunc(names, r.Domains.Matches)) &&
		holdsAddress(r.To, k.Has(packet.HaveDst), k.Dst) &&
		holdsAddress(r.From, k.Has(packet.HaveSrc), k.Src) &&
		holdsService(r.Services, k, k.Selector) &&
		holdsService(r.SourcePorts, k, k.SourcePort)
}

func holdsAddress(s *ipset.Set, readable bool, a ipset.Addr) bool {
	return s == nil || readable && s.Contains(a)
}

func holdsService(list []Service, k *packet.Key, selector uint16) bool {
	if list == nil {
		return true
	}
	if !k.Has(packet.HaveProto) {
		return false
	}
	for _, s := range list {
		if s.Proto == k.Proto && (s.Whole || k.Has(packet.HaveTransport) && s.First <= selector && selector <= s.Last) {
			return true
		}
	}
	return false
}

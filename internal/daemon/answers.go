package daemon

import (
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"egate/internal/datapath"
)

// addressesOf gives the addresses that an answer tells of a name, by the rules
// of the programs' own reader (bpf/include/dns.h): records are read in order, a
// chain of aliases begins with the name and each CNAME of its present name leads
// it on, and addresses live no longer than the chain that leads to them.
func addressesOf(m *dns.Msg, name string, asked uint16) []datapath.AddressTTL {
	var found []datapath.AddressTTL
	present := dns.CanonicalName(name)
	shortest := uint32(1<<32 - 1)
	for _, r := range m.Answer {
		h := r.Header()
		if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != present {
			continue
		}
		ttl := h.Ttl
		if ttl>>31 != 0 {
			ttl = 0 // RFC 2181, 8
		}
		ttl = min(ttl, shortest)
		switch r := r.(type) {
		case *dns.A:
			found = appendAddress(found, r.A, ttl)
		case *dns.AAAA:
			found = appendAddress(found, r.AAAA, ttl)
		case *dns.CNAME:
			shortest, present = ttl, dns.CanonicalName(r.Target)
		case *dns.SVCB:
			found = appendHints(found, r, asked, ttl)
		case *dns.HTTPS:
			found = appendHints(found, &r.SVCB, asked, ttl)
		}
	}
	return found
}

func appendAddress(found []datapath.AddressTTL, ip net.IP, ttl uint32) []datapath.AddressTTL {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return found
	}
	return append(found, datapath.AddressTTL{Address: a.Unmap(), TTL: time.Duration(ttl) * time.Second})
}

// appendHints takes the address hints of a record in ServiceMode (RFC 9460), if
// such records were asked for.
func appendHints(found []datapath.AddressTTL, r *dns.SVCB, asked uint16, ttl uint32) []datapath.AddressTTL {
	if asked != dns.TypeSVCB && asked != dns.TypeHTTPS || r.Priority == 0 {
		return found
	}
	for _, param := range r.Value {
		var hints []net.IP
		switch p := param.(type) {
		case *dns.SVCBIPv4Hint:
			hints = p.Hint
		case *dns.SVCBIPv6Hint:
			hints = p.Hint
		}
		for _, ip := range hints {
			found = appendAddress(found, ip, ttl)
		}
	}
	return found
}

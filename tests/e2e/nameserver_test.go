package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// nameserver answers for every name below test. The first label aN says the
// number of its addresses, see numbered; the second one may ask for a
// peculiarity:
//
//	aN.n.test         A, AAAA: the addresses of number N
//	aN.cnameK.n.test  K aliases before them, the last ones below cdn.test
//	aN.manyK.n.test   K addresses, of the numbers N to N+K-1
//	aN.tc.n.test      over UDP nothing but the bit that says: ask over TCP
//	aN.ttlK.n.test    a lifetime of K seconds, otherwise 300
//	aN.hint.n.test    HTTPS with hints; no A, no AAAA
//	nx.n.test         does not exist
type nameserver struct {
	// forge, if not nil, may take a question: it tells whether it has answered.
	forge func(w dns.ResponseWriter, question *dns.Msg) bool

	mu    sync.Mutex
	asked map[string]int // by name, in lower case
}

// serveNames answers at port 53 of these addresses, over UDP and TCP, until the
// test ends.
func serveNames(t *testing.T, in *testutil.Netns, addrs ...netip.Addr) *nameserver {
	t.Helper()
	s := &nameserver{asked: map[string]int{}}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, 53).String()
		udp := &dns.Server{Handler: s, UDPSize: 4096}
		tcp := &dns.Server{Handler: s, MaxTCPQueries: -1}
		var err error
		in.Run(func() {
			shared := net.ListenConfig{Control: shareAddress}
			if udp.PacketConn, err = shared.ListenPacket(t.Context(), "udp", at); err == nil {
				tcp.Listener, err = net.Listen("tcp", at)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []*dns.Server{udp, tcp} {
			started := make(chan struct{})
			d.NotifyStartedFunc = func() { close(started) }
			go d.ActivateAndServe()
			<-started
			t.Cleanup(func() { d.Shutdown() })
		}
	}
	return s
}

// times tells how often a name was asked for.
func (s *nameserver) times(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[dns.CanonicalName(name)]
}

// setForge lets f take questions from now on.
func (s *nameserver) setForge(f func(w dns.ResponseWriter, question *dns.Msg) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forge = f
}

// ServeDNS is part of dns.Handler.
func (s *nameserver) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	if len(question.Question) != 1 {
		return
	}
	q := question.Question[0]
	s.mu.Lock()
	s.asked[dns.CanonicalName(q.Name)]++
	forge := s.forge
	s.mu.Unlock()
	if forge != nil && forge(w, question) {
		return
	}
	_, stream := w.RemoteAddr().(*net.TCPAddr)
	// A client that has gone is no error of the server.
	_ = w.WriteMsg(answerFor(question, stream))
}

// answerFor is the honest answer.
func answerFor(question *dns.Msg, stream bool) *dns.Msg {
	q := question.Question[0]
	out := new(dns.Msg).SetReply(question)
	out.Authoritative, out.RecursionAvailable, out.Compress = true, true, true
	size := uint16(dns.MinMsgSize)
	if edns := question.IsEdns0(); edns != nil {
		size = max(size, edns.UDPSize())
		out.SetEdns0(4096, false)
	}
	n, kind, argument, ok := peculiarity(q.Name)
	switch {
	case !ok:
		out.Rcode = dns.RcodeNameError
		return out
	case kind == "tc" && !stream:
		out.Truncated = true
		return out
	}
	ttl, count, owner := uint32(300), 1, q.Name
	switch kind {
	case "ttl":
		ttl = uint32(argument)
	case "many":
		count = argument
	case "cname", "c":
		for k := argument; k > 0; k-- {
			target := fmt.Sprintf("a%d.c%d.cdn.test.", n, k-1)
			out.Answer = append(out.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME, ttl), Target: target})
			owner = target
		}
	}
	for i := range count {
		v4, v6 := numbered(n + i)
		switch {
		case kind == "hint" && q.Qtype == dns.TypeHTTPS:
			out.Answer = append(out.Answer, &dns.HTTPS{SVCB: dns.SVCB{
				Hdr: header(owner, dns.TypeHTTPS, ttl), Priority: 1, Target: ".",
				Value: []dns.SVCBKeyValue{
					&dns.SVCBAlpn{Alpn: []string{"h2", "http/1.1"}},
					&dns.SVCBIPv4Hint{Hint: []net.IP{v4.AsSlice()}},
					&dns.SVCBIPv6Hint{Hint: []net.IP{v6.AsSlice()}},
				},
			}})
		case kind == "hint":
		case q.Qtype == dns.TypeA:
			out.Answer = append(out.Answer, &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: v4.AsSlice()})
		case q.Qtype == dns.TypeAAAA:
			out.Answer = append(out.Answer, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: v6.AsSlice()})
		}
	}
	if !stream {
		out.Truncate(int(size))
	}
	return out
}

// answerFrom is the answer of a server that knows some names.
func answerFrom(names map[string][]netip.Addr, question *dns.Msg) *dns.Msg {
	q := question.Question[0]
	out := new(dns.Msg).SetReply(question)
	addrs, ok := names[dns.CanonicalName(q.Name)]
	if !ok {
		out.Rcode = dns.RcodeNameError
	}
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Qtype == dns.TypeA:
			out.Answer = append(out.Answer, &dns.A{Hdr: header(q.Name, dns.TypeA, 300), A: a.AsSlice()})
		case a.Is6() && q.Qtype == dns.TypeAAAA:
			out.Answer = append(out.Answer, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA, 300), AAAA: a.AsSlice()})
		}
	}
	return out
}

func header(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// peculiarity reads what a name asks for: its number, and the letters and the
// number of its second label.
func peculiarity(name string) (n int, kind string, argument int, ok bool) {
	labels := dns.SplitDomainName(strings.ToLower(name))
	if len(labels) < 3 || labels[len(labels)-1] != "test" || labels[0][0] != 'a' {
		return 0, "", 0, false
	}
	n, err := strconv.Atoi(labels[0][1:])
	if err != nil || n < 0 || n > 0x1ffff {
		return 0, "", 0, false
	}
	kind = strings.TrimRight(labels[1], "0123456789")
	if digits := labels[1][len(kind):]; digits != "" {
		if argument, err = strconv.Atoi(digits); err != nil {
			return 0, "", 0, false
		}
	}
	return n, kind, argument, true
}

package readers

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// The messages of tests: answered() packs what servers send, wireMessage writes
// what none would.

// answered is a server's answer to a question for name, its records in zone-file
// form, names compressed.
func answered(name string, askedType uint16, records ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), askedType)
	m.Id, m.Response, m.RecursionAvailable, m.Compress = 0x1234, true, true, true
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", text, err))
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func packed(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("%v: %v", m, err))
	}
	return b
}

func manyA(name string, n int) (records []string) {
	for i := range n {
		records = append(records, fmt.Sprintf("%s 60 IN A 198.51.%d.%d", name, i>>8, i&255))
	}
	return records
}

// serverMessages are what resolvers send and clients ask, by what is special
// about them.
func serverMessages() map[string][]byte {
	m := map[string][]byte{}
	add := func(what string, msg *dns.Msg, change ...func(*dns.Msg)) {
		for _, f := range change {
			f(msg)
		}
		m[what] = packed(msg)
	}
	edns := func(msg *dns.Msg) {
		msg.SetEdns0(1232, true)
		o := msg.IsEdns0()
		o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556aabbccddeeff0011"},
			&dns.EDNS0_PADDING{Padding: make([]byte, 31)})
	}
	uncompressed := func(msg *dns.Msg) { msg.Compress = false }
	question := func(msg *dns.Msg) { msg.Response, msg.RecursionAvailable = false, false }

	add("question", answered("www.example.com", dns.TypeA), question)
	add("question with EDNS", answered("www.example.com", dns.TypeAAAA), question, edns)
	add("one address", answered("example.com", dns.TypeA, "example.com. 300 IN A 192.0.2.1"))
	add("both families", answered("example.com", dns.TypeA, "example.com. 300 IN A 192.0.2.1", "example.com. 400 IN AAAA 2001:db8::1"))
	add("chain", answered("www.example.com", dns.TypeA, "www.example.com. 300 IN CNAME www.example.com.cdn.example.net.",
		"www.example.com.cdn.example.net. 20 IN A 192.0.2.1", "www.example.com.cdn.example.net. 60 IN A 192.0.2.2"))
	add("chain of three, eight addresses", answered("login.example.com", dns.TypeA, append([]string{
		"login.example.com. 300 IN CNAME login.example.net.", "login.example.net. 30 IN CNAME edge.login.example.net.",
		"edge.login.example.net. 3000 IN CNAME x7.edge.example.org."}, manyA("x7.edge.example.org.", 8)...)...))
	add("chain without compression", answered("www.example.com", dns.TypeA, "www.example.com. 300 IN CNAME a.example.net.",
		"a.example.net. 20 IN A 192.0.2.1"), uncompressed)
	add("chain to the name's own suffix", answered("www.example.com", dns.TypeAAAA, "www.example.com. 5 IN CNAME example.com.",
		"example.com. 20 IN AAAA 2001:db8::2"))
	add("0x20", answered("wWw.eXaMpLe.CoM", dns.TypeA, "www.example.com. 300 IN CNAME A.Example.NET.", "a.eXample.net. 20 IN A 192.0.2.1"), uncompressed)
	add("EDNS behind", answered("example.com", dns.TypeA, "example.com. 300 IN A 192.0.2.1"), edns)
	add("signed", answered("example.com", dns.TypeA, "example.com. 300 IN A 192.0.2.1",
		"example.com. 300 IN RRSIG A 13 2 300 20300101000000 20200101000000 34505 example.com. c2lnbmF0dXJlIG9mIHNpeHR5LWZvdXIgYnl0ZXMhIHNpZ25hdHVyZSBvZiBzaXh0eQ=="), edns)
	add("DNAME", answered("a.old.example", dns.TypeA, "old.example. 300 IN DNAME new.example.", "a.old.example. 0 IN CNAME a.new.example.",
		"a.new.example. 60 IN A 192.0.2.7"))
	add("chain that is cut", answered("a.example", dns.TypeA, "a.example. 60 IN CNAME b.example."))
	add("chain out of order", answered("a.example", dns.TypeA, "b.example. 60 IN A 192.0.2.7", "a.example. 60 IN CNAME b.example."))
	add("chain in a circle", answered("a.example", dns.TypeA, "a.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME a.example.",
		"a.example. 90 IN A 192.0.2.7"))
	add("someone else's address", answered("a.example", dns.TypeA, "b.example. 60 IN A 192.0.2.66", "a.example. 60 IN A 192.0.2.7",
		"xa.example. 60 IN A 192.0.2.67", "example. 60 IN A 192.0.2.68"))
	add("two chains", answered("a.example", dns.TypeA, "a.example. 60 IN CNAME b.example.", "a.example. 60 IN CNAME c.example.",
		"c.example. 60 IN A 192.0.2.66", "b.example. 60 IN A 192.0.2.7"))
	add("other class", answered("a.example", dns.TypeA, "a.example. 60 CH A 192.0.2.66", "a.example. 60 IN A 192.0.2.7"))
	add("no such name", answered("nothing.example.com", dns.TypeA), func(msg *dns.Msg) {
		msg.Rcode = dns.RcodeNameError
		soa, _ := dns.NewRR("example.com. 900 IN SOA ns.example.com. root.example.com. 1 2 3 4 5")
		msg.Ns = append(msg.Ns, soa)
	})
	add("truncated", answered("example.com", dns.TypeA), func(msg *dns.Msg) { msg.Truncated = true })
	add("refused", answered("example.com", dns.TypeA), func(msg *dns.Msg) { msg.Rcode = dns.RcodeRefused })
	add("service", answered("example.com", dns.TypeHTTPS,
		`example.com. 300 IN HTTPS 1 . alpn="h3,h2" port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech="AEX+DQBBEQAgACDxuz4=" ipv6hint=2001:db8::1,2001:db8::2`))
	add("two services", answered("_8443._https.example.com", dns.TypeSVCB,
		"_8443._https.example.com. 300 IN SVCB 1 svc.example.net. ipv4hint=192.0.2.1",
		"_8443._https.example.com. 200 IN SVCB 2 svc2.example.net. ipv6hint=2001:db8::7 key667=hello"))
	add("service alias", answered("example.com", dns.TypeHTTPS, "example.com. 300 IN HTTPS 0 svc.example.net.",
		"example.com. 300 IN HTTPS 0 svc.example.net. ipv4hint=192.0.2.66"))
	add("service behind a chain", answered("www.example.com", dns.TypeHTTPS, "www.example.com. 100 IN CNAME a.example.net.",
		"a.example.net. 300 IN HTTPS 1 . ipv4hint=192.0.2.1", "www.example.com. 300 IN HTTPS 1 . ipv4hint=192.0.2.66"))
	add("service that nobody asked for", answered("example.com", dns.TypeA, "example.com. 300 IN A 192.0.2.1",
		"example.com. 300 IN HTTPS 1 . ipv4hint=192.0.2.66"))
	add("text", answered("example.com", dns.TypeTXT, `example.com. 300 IN TXT "v=spf1 -all" "second"`))
	add("root", answered(".", dns.TypeNS, ". 518400 IN NS a.root-servers.net.", ". 5 IN A 192.0.2.9"))
	add("ip6.arpa", answered(strings.Repeat("1.2.3.4.5.6.7.8.", 4)+"ip6.arpa", dns.TypePTR))
	longest := strings.Repeat("a.", 126) + "b" // 255 bytes with the root
	add("127 labels", answered(longest, dns.TypeA, longest+". 60 IN A 192.0.2.7"))
	wide := strings.Repeat(strings.Repeat("w", 63)+".", 3) + strings.Repeat("v", 61)
	add("widest labels", answered(wide, dns.TypeA, wide+". 60 IN A 192.0.2.7"))
	add("odd bytes", answered(`a\.b\000c\255.ex\032ample`, dns.TypeA, `A\.B\000C\255.ex\032ample. 60 IN A 192.0.2.7`), uncompressed)
	add("300 addresses", answered("many.example.com", dns.TypeA, manyA("many.example.com.", 300)...))
	add("1000 addresses", answered("many.example.com", dns.TypeA, manyA("many.example.com.", 1000)...))
	add("300 addresses without compression", answered("many.example.com", dns.TypeA, manyA("many.example.com.", 300)...), uncompressed)
	var chain []string
	for i := range 60 {
		chain = append(chain, fmt.Sprintf("n%d.example.com. %d IN CNAME n%d.example.com.", i, 1000-i, i+1))
	}
	add("chain of 60", answered("n0.example.com", dns.TypeA, append(chain, "n60.example.com. 5000 IN A 192.0.2.7")...))
	return m
}

// wireMessage is a message written byte by byte.
type wireMessage []byte

// message begins an answer with its question.
func message(question []byte, askedType, answers uint16) wireMessage {
	m := wireMessage{0x12, 0x34, 0x81, 0x80, 0, 1}
	m = binary.BigEndian.AppendUint16(m, answers)
	m = append(m, 0, 0, 0, 0)
	m = append(m, question...)
	m = binary.BigEndian.AppendUint16(m, askedType)
	return append(m, 0, 1)
}

// record adds a record of class IN.
func (m wireMessage) record(owner []byte, recordType uint16, ttl uint32, data ...byte) wireMessage {
	return m.recordOf(owner, recordType, ttl, len(data), data...)
}

// recordOf adds a record whose length field says something of its own.
func (m wireMessage) recordOf(owner []byte, recordType uint16, ttl uint32, length int, data ...byte) wireMessage {
	m = append(m, owner...)
	m = binary.BigEndian.AppendUint16(m, recordType)
	m = append(m, 0, 1)
	m = binary.BigEndian.AppendUint32(m, ttl)
	m = binary.BigEndian.AppendUint16(m, uint16(length))
	return append(m, data...)
}

// name writes a name without compression.
func name(s string) []byte { return append(labels(s), 0) }

// labels writes labels without the root's.
func labels(s string) (b []byte) {
	if s == "" {
		return nil
	}
	for l := range strings.SplitSeq(s, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return b
}

func pointer(to int) []byte { return []byte{0xc0 | byte(to>>8), byte(to)} }

func address(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// param writes an SVCB parameter.
func param(key uint16, value ...byte) []byte { return paramOf(key, len(value), value...) }

func paramOf(key uint16, length int, value ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, key)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return append(b, value...)
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

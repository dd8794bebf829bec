package datapath

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/packet"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

const (
	verifyNamed = "name: named, action: allow, to: {domains: [a.example, \"*.b.example\"], ports: [tcp/443, tcp/80, tcp/9, udp/443]}"
	echKind     = 0xfe0d // encrypted_client_hello (RFC 9849)
)

func refusedFor(reason verdict.Reason, name string) decided {
	return decided{verdict.Reject, reason, name}
}

// TestRequestsNameTheirConnections: the name in a connection's first request
// must be the rule's.
func TestRequestsNameTheirConnections(t *testing.T) {
	allow := byRule("a.example")
	pending := byRule("a.example")
	good, evil := hello("a.example"), hello("evil.example")
	get := func(host string) []byte { return fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host) }
	type segment struct {
		offset int
		data   []byte
		want   decided
	}
	for _, c := range []struct {
		name string
		rule string
		port uint16
		sent []segment
	}{
		{"tls", "", 443, []segment{{0, good, allow}, {len(good), []byte("more"), byRule("a.example")}}},
		{"tls in two segments", "", 443, []segment{{0, good[:100], pending}, {100, good[100:], allow}}},
		{"tls with a gap", "", 443, []segment{{0, good[:100], pending}, {150, good[150:], decided{verdict.Drop, verdict.ReasonNameUnreadable, "a.example"}}, {100, good[100:], allow}}},
		{"other name", "", 443, []segment{{0, evil, refusedFor(verdict.ReasonNameMismatch, "evil.example")}}},
		{"other name in two segments", "", 443, []segment{{0, evil[:100], pending}, {100, evil[100:], refusedFor(verdict.ReasonNameMismatch, "evil.example")}}},
		{"another listed name", "", 443, []segment{{0, hello("x.b.example"), byRule("x.b.example")}}},
		{"capitals", "", 443, []segment{{0, hello("A.Example"), allow}}},
		{"no name", "", 443, []segment{{0, hello("192.0.2.80"), refusedFor(verdict.ReasonNameMismatch, "")}}},
		{"no request", "", 443, []segment{{0, []byte("SSH-2.0-OpenSSH_9.9\r\n"), refusedFor(verdict.ReasonNameUnreadable, "a.example")}}},
		{"http", "", 80, []segment{{0, get("a.example"), allow}}},
		{"http with a port", "", 80, []segment{{0, get("a.example:80"), allow}}},
		{"http to another", "", 80, []segment{{0, get("evil.example"), refusedFor(verdict.ReasonNameMismatch, "evil.example")}}},
		{"http without host", "", 80, []segment{{0, []byte("GET / HTTP/1.0\r\n\r\n"), refusedFor(verdict.ReasonNameMismatch, "")}}},
		{"no well-known port", "", 9, []segment{{0, evil, allow}}},
		{"every port", ", verify: sni", 9, []segment{{0, evil, refusedFor(verdict.ReasonNameMismatch, "evil.example")}}},
		{"no verification", ", verify: none", 443, []segment{{0, evil, allow}}},
		{"ech", "", 443, []segment{{0, withExtension(good, echKind), allow}}},
		{"ech dropped", ", ech: drop", 443, []segment{{0, withExtension(good, echKind), refusedFor(verdict.ReasonECH, "a.example")}}},
		{"no ech", ", ech: drop", 443, []segment{{0, good, allow}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newNamesBench(t, "", verifyNamed+c.rule)
			b.learn("a.example", site4)
			conn := connect(site4, 50000, c.port)
			b.expect("syn", conn.syn(), verdict.Egress, byRule("a.example"))
			for i, s := range c.sent {
				got, _ := b.judge(conn.data(s.offset, s.data), verdict.Egress)
				if got.action != s.want.action || got.reason != s.want.reason || got.name != s.want.name {
					t.Errorf("segment %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// TestDataWithoutABeginning: a connection whose SYN the gate did not see can't
// be verified.
func TestDataWithoutABeginning(t *testing.T) {
	b := newNamesBench(t, "", verifyNamed)
	b.learn("a.example", site4)
	b.expect("data", connect(site4, 50000, 443).data(0, hello("a.example")), verdict.Egress, refusedFor(verdict.ReasonNameUnreadable, "a.example"))
}

// TestVerifiedPortsAreVerifiedAgain: who has verified a connection can't begin
// another one unseen from the same port.
func TestVerifiedPortsAreVerifiedAgain(t *testing.T) {
	b := newNamesBench(t, "", verifyNamed)
	b.learn("a.example", site4)
	conn := connect(site4, 50000, 443)
	good := hello("a.example")
	for range 2 {
		b.expect("syn", conn.syn(), verdict.Egress, byRule("a.example"))
		b.expect("hello", conn.data(0, good), verdict.Egress, byRule("a.example"))
		b.judge(conn.data(len(good), []byte("x")), verdict.Egress)
	}
	b.expect("syn", conn.syn(), verdict.Egress, byRule("a.example"))
	b.expect("other hello", conn.data(0, hello("evil.example")), verdict.Egress, refusedFor(verdict.ReasonNameMismatch, "evil.example"))
}

// TestDropRulesKnowTheNameInTheRequest: before it they act on the address.
func TestDropRulesKnowTheNameInTheRequest(t *testing.T) {
	b := newNamesBench(t, "", "name: bad, action: drop, to: {domains: [bad.example]}", "name: rest, action: allow, to: {domains: [\"*.example\"], ports: [tcp/443]}")
	b.learn("good.example", site4)
	conn := connect(site4, 50000, 443)
	b.expect("syn", conn.syn(), verdict.Egress, byRule("good.example"))
	b.expect("bad name", conn.data(0, hello("bad.example")), verdict.Egress, refusedFor(verdict.ReasonNameMismatch, "bad.example"))
	b.learn("bad.example", site6)
	b.expect("bad address", connect(site6, 50000, 443).syn(), verdict.Egress, decided{verdict.Drop, verdict.ReasonRule, ""})
}

// TestReasonsOfNames meets each reason that names and DNS brought.
func TestReasonsOfNames(t *testing.T) {
	question := func(name string, kind uint16) []byte { return ask(name, kind).question() }
	garbled := frames.UDP(here4, server4, 40000, 53, []byte("0123456789abcdef"))
	answer := ask("a.example", dns.TypeA)
	asked := func(b *namesBench) { b.judge(answer.question(), verdict.Egress) }
	known := func(b *namesBench) { b.learn("a.example", site4) }
	begun := func(b *namesBench) { known(b); b.judge(connect(site4, 50000, 443).syn(), verdict.Egress) }
	for _, c := range []struct {
		dns, rule string
		before    func(*namesBench)
		frame     []byte
		dir       verdict.Direction
		want      decided
	}{
		{"", "", nil, question("a.example", dns.TypeA), verdict.Egress, decided{verdict.Allow, verdict.ReasonDNS, "a.example"}},
		{", elsewhere: drop", "", nil, frames.UDP(here4, other4, 40000, 53, nil), verdict.Egress, decided{verdict.Drop, verdict.ReasonDNSElsewhere, ""}},
		{", elsewhere: reject", "", nil, frames.TCP(here4, server4, 40000, 853, packet.FlagSYN, nil), verdict.Egress, refusedFor(verdict.ReasonDNSElsewhere, "")},
		{", names: listed", "", nil, question("evil.example", dns.TypeA), verdict.Egress, refusedFor(verdict.ReasonDNSUnlisted, "evil.example")},
		{", types: [AAAA]", "", nil, question("a.example", dns.TypeA), verdict.Egress, refusedFor(verdict.ReasonDNSType, "a.example")},
		{", max_label: 7", "", nil, question("12345678.b.example", dns.TypeA), verdict.Egress, refusedFor(verdict.ReasonDNSLabel, "12345678.b.example")},
		{", rate: 1/h", "", asked, question("a.example", dns.TypeA), verdict.Egress, decided{verdict.Drop, verdict.ReasonDNSRate, "a.example"}},
		{", names: listed", "", nil, garbled, verdict.Egress, decided{verdict.Drop, verdict.ReasonDNSQuestion, ""}},
		{"", "", asked, truncatedAnswer(answer), verdict.Ingress, decided{verdict.Drop, verdict.ReasonDNSAnswer, "a.example"}},
		{"", "", begun, connect(site4, 50000, 443).data(0, hello("evil.example")), verdict.Egress, refusedFor(verdict.ReasonNameMismatch, "evil.example")},
		{"", "", begun, connect(site4, 50000, 443).data(0, []byte("\x00")), verdict.Egress, refusedFor(verdict.ReasonNameUnreadable, "a.example")},
		{"", ", ech: drop", begun, connect(site4, 50000, 443).data(0, withExtension(hello("a.example"), echKind)), verdict.Egress, refusedFor(verdict.ReasonECH, "a.example")},
		{"", ", quic: drop", known, frames.UDP(here4, site4, 50000, 443, make([]byte, 1200)), verdict.Egress, refusedFor(verdict.ReasonQUIC, "a.example")},
	} {
		t.Run(c.want.reason.String()+strings.ReplaceAll(c.dns, ",", ""), func(t *testing.T) {
			b := newNamesBench(t, c.dns, verifyNamed+c.rule)
			if c.before != nil {
				c.before(b)
			}
			before := b.Totals(t, c.dir).Reason[c.want.reason].Packets
			b.expect("packet", c.frame, c.dir, c.want)
			if n := b.Totals(t, c.dir).Reason[c.want.reason].Packets - before; n != 1 {
				t.Errorf("counted %d times, want once", n)
			}
		})
	}
}

// truncatedAnswer ends within its record, which its counts promise.
func truncatedAnswer(x exchange) []byte {
	message := pack(x.reply(x.name + ". 60 IN A 192.0.2.80"))
	return x.carry(message[:len(message)-2])
}

// TestRefusedQuestionsAreAnswered: what the client gets for a question that must
// not leave.
func TestRefusedQuestionsAreAnswered(t *testing.T) {
	for _, c := range []struct {
		dns   string
		x     exchange
		rcode int
	}{
		{", names: listed", ask("evil.example", dns.TypeA), dns.RcodeRefused},
		{", names: listed, refuse: nxdomain", ask("evil.example", dns.TypeA), dns.RcodeNameError},
		{", types: [A]", ask("a.example", dns.TypeTXT), dns.RcodeSuccess},
		{", names: listed", exchange{here6, server6, 40000, 11, "evil.example", dns.TypeAAAA}, dns.RcodeRefused},
	} {
		b := newNamesBench(t, c.dns, verifyNamed)
		_, out := b.judge(c.x.question(), verdict.Egress)
		payload := udpPayload(out)
		var m dns.Msg
		if err := m.Unpack(payload); err != nil {
			t.Errorf("%s: answer %x: %v", c.dns, out, err)
			continue
		}
		if !m.Response || m.Id != c.x.id || m.Rcode != c.rcode || len(m.Question) != 1 || m.Question[0].Name != dns.Fqdn(c.x.name) || len(m.Answer) != 0 {
			t.Errorf("%s: answered\n%v\nwant %s", c.dns, &m, dns.RcodeToString[c.rcode])
		}
	}
}

func udpPayload(frame []byte) []byte {
	at := 14 + 20
	if frame[12] == 0x86 {
		at = 14 + 40
	}
	if len(frame) < at+8 {
		return nil
	}
	n := int(binary.BigEndian.Uint16(frame[at+4:]))
	return frame[at+8 : min(len(frame), at+max(n, 8))]
}

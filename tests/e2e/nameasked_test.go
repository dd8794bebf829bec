package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// TestQuestions: what a policy says of questions. One that is not allowed is
// answered at once by the gate, and nothing of it leaves.
func TestQuestions(t *testing.T) {
	t.Parallel()
	long, short := strings.Repeat("x", 31), strings.Repeat("x", 30)
	type question struct {
		query  query
		rcode  int
		reason string // why it is stopped; "": it is not
	}
	for _, c := range []struct {
		section   string // of dns
		questions []question
	}{
		{"names: listed", []question{
			{query{name: "a1.n.test"}, dns.RcodeSuccess, ""},
			{query{name: "A2.N.Test", edns: 1232}, dns.RcodeSuccess, ""},
			{query{name: "secret.u.test"}, dns.RcodeRefused, "dns-unlisted"},
			{query{name: "secret.u.test", edns: 1232}, dns.RcodeRefused, "dns-unlisted"},
			{query{name: "secret.u.test", qtype: dns.TypeTXT}, dns.RcodeRefused, "dns-unlisted"},
			{query{name: "n.test"}, dns.RcodeRefused, "dns-unlisted"},
			{query{name: "a1.xn.test"}, dns.RcodeRefused, "dns-unlisted"},
			{query{name: "."}, dns.RcodeRefused, "dns-unlisted"},
		}},
		{"names: listed, refuse: nxdomain", []question{
			{query{name: "secret.u.test"}, dns.RcodeNameError, "dns-unlisted"},
		}},
		{"names: any", []question{{query{name: "a2.u.test"}, dns.RcodeSuccess, ""}}},
		{"types: [A, AAAA, TYPE99]", []question{
			{query{name: "a3.n.test", qtype: dns.TypeAAAA}, dns.RcodeSuccess, ""},
			{query{name: "a4.n.test", qtype: dns.TypeTXT}, dns.RcodeSuccess, "dns-type"},
			{query{name: "a4.n.test", qtype: dns.TypeANY}, dns.RcodeSuccess, "dns-type"},
			{query{name: "a5.n.test", qtype: 99}, dns.RcodeSuccess, ""},
		}},
		{"max_label: 30", []question{
			{query{name: "a6." + short + ".n.test"}, dns.RcodeSuccess, ""},
			{query{name: "a6." + long + ".n.test"}, dns.RcodeRefused, "dns-label"},
		}},
	} {
		t.Run(c.section, func(t *testing.T) {
			t.Parallel()
			w := newNameWorld(t)
			w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection(strings.ReplaceAll(c.section, ", refuse", "\n  refuse")))
			// UDP first, while a connection's end could not be taken for a question.
			for _, network := range []string{"udp", "tcp"} {
				for _, asked := range c.questions {
					for _, server := range w.serverAddr() {
						q := asked.query
						q.network, q.to = network, netip.AddrPortFrom(server, 53)
						if asked.reason == "" {
							w.mustAsk(q)
							continue
						}
						w.refusedAtOnce(q, asked.rcode, asked.reason)
					}
				}
			}
			for _, asked := range c.questions {
				if n := w.names.times(asked.query.name); asked.reason == "" && n != 4 {
					t.Errorf("%d questions for %s reached the server, want 4", n, asked.query.name)
				}
			}
			w.run("off")
		})
	}
}

// refusedAtOnce asks what must not be asked.
func (w *nameWorld) refusedAtOnce(q query, rcode int, reason string) {
	w.t.Helper()
	best, limit := time.Hour, testutil.Patience(atOnce)
	for tries := 0; tries < 10 && best > limit; tries++ {
		before, reasons := readWire(w.t, w.client), countersOf(w.status("host"))
		answer, took, err := w.ask(q)
		switch {
		case q.network == "tcp" && !errors.Is(err, syscall.ECONNRESET):
			w.t.Fatalf("the answer over TCP is %v, %v; want a reset", answer, err)
		case q.network == "tcp":
		case err != nil:
			w.t.Fatalf("no answer from %v: %v", q.to, err)
		case answer.Rcode != rcode || !answer.Response || len(answer.Answer) != 0 || len(answer.Question) != 1 || answer.Question[0].Name != dns.Fqdn(q.name):
			w.t.Fatalf("the answer is %v, want %s", answer, dns.RcodeToString[rcode])
		}
		if got := countersOf(w.status("host"))["egress: "+reason] - reasons["egress: "+reason]; got != 1 {
			w.t.Errorf("%d packets over %s are stopped for %s, want 1", got, q.network, reason)
		}
		if after := readWire(w.t, w.client); q.network != "tcp" && (after.tx != before.tx || after.rx != before.rx) {
			w.t.Errorf("%d packets left and %d came while a question was refused", after.tx-before.tx, after.rx-before.rx)
		}
		best = min(best, took)
	}
	if best > limit {
		w.t.Errorf("a question for %s over %s is refused after %v at best, want %v", q.name, q.network, best, limit)
	}
	if n := w.names.times(q.name); n != 0 {
		w.t.Errorf("the server was asked %d times for %s", n, q.name)
	}
}

// TestRefusalChecksums: the answer to a question is a datagram like any other to
// the one who asked, whoever computes checksums on the interface.
func TestRefusalChecksums(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection("names: listed"))
	for _, offload := range []string{"on", "off"} {
		for _, l := range []testutil.Link{w.client, w.server} {
			l.Netns.Exec("ethtool", "-K", l.Name, "tx", offload, "rx", offload)
		}
		for _, server := range w.serverAddr() {
			wrong := checksumErrors(t, w.client.Netns)
			r := w.client.Netns.Try("dig", "@"+server.String(), "+tries=1", "+time=3", "secret.u.test", "A")
			if r.Code != 0 || !strings.Contains(r.Stdout, "status: REFUSED") {
				t.Errorf("offload %s, dig @%v exits with %d: %s", offload, server, r.Code, r.Stdout)
			}
			if n := checksumErrors(t, w.client.Netns) - wrong; n != 0 {
				t.Errorf("offload %s, %v: %d checksum errors", offload, server, n)
			}
		}
	}
	w.run("off")
}

// checksumErrors are those of UDP over both families.
func checksumErrors(t *testing.T, in *testutil.Netns) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(in.Exec("cat", "/proc/net/snmp6") + in.Exec("cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "Udp6InCsumErrors" {
			var n int
			fmt.Sscan(fields[1], &n)
			total += n
		}
		// Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors ...
		if len(fields) > 7 && fields[0] == "Udp:" && fields[7] != "InCsumErrors" {
			var n int
			fmt.Sscan(fields[7], &n)
			total += n
		}
	}
	return total
}

// TestQuestionRate: questions over the rate are dropped and counted, as a
// server's that has too much to do.
func TestQuestionRate(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection("rate: 10/h"))
	c, err := dial(w.client.Netns, "udp", netip.AddrPortFrom(w.serverAddr()[0], 53), wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const asked = 100
	for i := range asked {
		if err := (&dns.Conn{Conn: c}).WriteMsg(new(dns.Msg).SetQuestion(fmt.Sprintf("a%d.n.test.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	got := countersOf(w.status("host"))
	passed, dropped := got["egress: dns"], got["egress: dns-rate"]
	if passed < 1 || passed > 20 || passed+dropped != asked {
		t.Errorf("%d questions passed, %d were over 10 an hour; want about 10, and %d together", passed, dropped, asked)
	}
	w.run("off")
}

// TestDNSElsewhere: with one key, DNS can be had from the policy's servers only.
func TestDNSElsewhere(t *testing.T) {
	t.Parallel()
	const cloudflare4, cloudflare6 = "1.1.1.1", "2606:4700:4700::1111"
	for _, c := range []struct {
		elsewhere string
		want      outcome
	}{{"drop", silent}, {"reject", refused}, {"allow", passes}} {
		t.Run(c.elsewhere, func(t *testing.T) {
			t.Parallel()
			w := newNameWorld(t)
			for _, a := range []string{cloudflare4 + "/32", cloudflare6 + "/128"} {
				setUp(t, w.server.Netns, "lo", netip.MustParsePrefix(a))
			}
			for i := range resolverAddrs {
				known := netip.MustParseAddr([]string{cloudflare4, cloudflare6}[i])
				serveEchoAt(t, w.server.Netns, netip.AddrPortFrom(resolverAddrs[i].Addr(), 853))
				serveEchoAt(t, w.server.Netns, netip.AddrPortFrom(known, 443))
			}
			serveSink(t, w.server.Netns, 853)
			serveSink(t, w.server.Netns, 443)
			serveSink(t, w.server.Netns, servicePort)
			serveNames(t, w.server.Netns, resolverAddrs[0].Addr(), resolverAddrs[1].Addr(), netip.MustParseAddr(cloudflare4), netip.MustParseAddr(cloudflare6))
			// A rule that allows all of it comes too late.
			w.apply(policyFor("veth0", egress("drop", `name: all, action: allow`)) + dnsSection("elsewhere: "+c.elsewhere))
			digElsewhere := probe{"dig", func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
				t.Helper()
				begin := time.Now()
				w := w.in(t)
				_, _, err := w.askWithin(query{name: "a1.n.test", to: netip.AddrPortFrom(to, 53)}, limit)
				return outcomeOf(err), time.Since(begin)
			}}
			for family, stranger := range []netip.Addr{resolverAddrs[0].Addr(), resolverAddrs[1].Addr()} {
				known := []netip.Addr{netip.MustParseAddr(cloudflare4), netip.MustParseAddr(cloudflare6)}[family]
				trusted := w.serverAddr()[family]
				for _, a := range []struct {
					probe probe
					to    netip.Addr
					want  outcome
				}{
					{digElsewhere, trusted, passes},
					{digElsewhere, stranger, c.want},
					{digElsewhere, known, c.want},
					{connect(53), stranger, c.want},
					{connect(853), stranger, c.want},
					{connect(853), trusted, c.want}, // of any server
					{echo(853, 100), stranger, c.want},
					{connect(443), known, c.want},
					{echo(443, 100), known, c.want},
					{connect(443), stranger, passes},
					{connect(servicePort), known, passes},
				} {
					a.probe.check(t, w.client.Netns, a.to, a.want)
				}
			}
			got := countersOf(w.status("host"))
			if n := got["egress: dns-elsewhere"]; (c.want == passes) != (n == 0) {
				t.Errorf("%d packets are stopped for dns-elsewhere", n)
			}
			w.run("off")
		})
	}
}

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// messages counts DNS messages by what became of them.
func messages(s *datapath.Status) map[string]uint64 {
	all := map[string]uint64{}
	for _, m := range s.Names.Messages {
		all[m.Outcome] = m.Count
	}
	return all
}

// TestAnswerForms: whatever form an answer takes, its addresses are open when it
// is there, and no others.
func TestAnswerForms(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	withoutOffload(t, w.server)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection())
	number := 0
	type form struct {
		about string
		query query // its name with %d in place of the number
		count int   // of addresses
		tcp   bool  // the answer over UDP tells to ask over TCP
	}
	forms := []form{
		{"plain", query{name: "a%d.n.test"}, 1, false},
		{"deep", query{name: "a%d.1.2.3.4.5.6.7.8.9.n.test"}, 1, false},
		{"100 labels", query{name: "a%d." + strings.Repeat("x.", 97) + "n.test"}, 1, false},
		{"the longest name", query{name: "a%d." + strings.Repeat("x", 63) + "." + strings.Repeat("y", 63) + "." + strings.Repeat("z", 63) + "." + strings.Repeat("v", 42) + ".n.test"}, 1, false},
		{"another case", query{name: "A%d.dEEp.N.teST"}, 1, false},
		{"EDNS", query{name: "a%d.n.test", edns: 1232}, 1, false},
		{"20 addresses", query{name: "a%d.many20.n.test", edns: 1232}, 20, false},
		{"hints", query{name: "a%d.hint.n.test", qtype: dns.TypeHTTPS}, 2, false},
		{"hints over TCP", query{name: "a%d.hint.n.test", qtype: dns.TypeHTTPS, network: "tcp"}, 2, false},
		{"truncated", query{name: "a%d.tc.n.test"}, 1, true},
		{"truncated after some", query{name: "a%d.many300.n.test", edns: 1232}, 300, true},
		{"300 addresses over TCP", query{name: "a%d.many300.n.test", qtype: dns.TypeAAAA, network: "tcp"}, 300, false},
	}
	for aliases := 1; aliases <= 8; aliases++ {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			forms = append(forms, form{fmt.Sprintf("%d aliases, %s", aliases, dns.TypeToString[qtype]),
				query{name: fmt.Sprintf("a%%d.cname%d.n.test", aliases), qtype: qtype, edns: 1232}, 1, false})
		}
	}
	for _, f := range forms {
		for _, server := range w.serverAddr() {
			t.Run(fmt.Sprintf("%s from %v", f.about, server), func(t *testing.T) {
				w := w.in(t)
				number += 400 // numbers of its own
				q := f.query
				q.name = fmt.Sprintf(q.name, number)
				q.to = netip.AddrPortFrom(server, 53)
				if f.tcp {
					answer, _, err := w.ask(q)
					if err != nil || !answer.Truncated {
						t.Fatalf("the answer over UDP is %v, %v; want one that is truncated", answer, err)
					}
					q.network = "tcp"
				}
				addrs := w.mustAsk(q)
				if len(addrs) != f.count {
					t.Fatalf("%d addresses in the answer, want %d", len(addrs), f.count)
				}
				w.reachFirstAndLast(addrs)
				// The next number's addresses nobody has told of.
				v4, v6 := numbered(number + f.count)
				w.reach(v4, refused)
				w.reach(v6, refused)
			})
		}
	}
	w.run("off")
}

func (w *nameWorld) reachFirstAndLast(addrs []netip.Addr) {
	w.t.Helper()
	w.reach(addrs[0], passes)
	if len(addrs) > 1 {
		w.reach(addrs[len(addrs)-1], passes)
		w.reach(addrs[len(addrs)/2], passes)
	}
}

// withoutOffload makes a host send TCP segments as a network card would that can
// do nothing for it, so that a long answer is several packets.
func withoutOffload(t *testing.T, l testutil.Link) {
	t.Helper()
	l.Netns.Exec("ethtool", "-K", l.Name, "tso", "off", "gso", "off")
}

// TestLongAnswers: answers over UDP of up to 4,096 bytes are read where they
// arrive in one packet. In fragments they can't be, and then they don't arrive
// at all: what they tell would not be open.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection())

	long := query{name: "a1000.many200.n.test", edns: 4096}
	before := messages(w.status("host"))
	r := w.client.Netns.Try("dig", "@"+w.serverAddr()[0].String(), "+ignore", "+tries=1", "+time=1", "+bufsize=4096", long.name, "A")
	if r.Code != 9 || !strings.Contains(r.Stdout+r.Stderr, "timed out") {
		t.Errorf("dig with an answer in fragments exits with %d: %s", r.Code, r.Stdout)
	}
	s := w.status("host")
	if got := messages(s)["fragmented"] - before["fragmented"]; got == 0 {
		t.Errorf("no fragmented answer is counted: %v", messages(s))
	}
	if got := countersOf(s)["ingress: dns-answer"]; got == 0 {
		t.Errorf("no packet is dropped for reason dns-answer; all counters:\n  %s", countersOf(s))
	}
	first, _ := numbered(1000)
	w.reach(first, refused)
	// Over TCP the same is read.
	q := long
	q.network = "tcp"
	w.reachFirstAndLast(w.mustAsk(q))

	for _, l := range []testutil.Link{w.client, w.server} {
		l.Netns.Exec("ip", "link", "set", l.Name, "mtu", "9000")
	}
	long.name = "a2000.many200.n.test"
	for _, server := range w.serverAddr() {
		long.to = netip.AddrPortFrom(server, 53)
		answer, _, err := w.ask(long)
		if err != nil || answer.Truncated || len(addressesIn(answer)) != 200 {
			t.Fatalf("200 addresses in one packet from %v: %v, %v", server, err, answer)
		}
		w.reachFirstAndLast(addressesIn(answer))
		long.name = "a3000.many200.n.test"
	}
	w.run("off")
}

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// TestNamesOfForwardedHosts: a router that hides the hosts behind it learns from
// the answers to their questions, and holds their requests to what it learned.
func TestNamesOfForwardedHosts(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	inside := quietNetns(t)
	near, far := testutil.VethPair(t,
		testutil.Port{Netns: inside, Name: "veth0", Addrs: testutil.Addrs("192.168.7.2/24", "fd07::2/64")},
		testutil.Port{Netns: w.client.Netns, Name: "inner", Addrs: testutil.Addrs("192.168.7.1/24", "fd07::1/64")})
	for i, every := range []string{"0.0.0.0/0", "::/0"} {
		testutil.Route(t, near, netip.MustParsePrefix(every), far.Addrs[i].Addr())
	}
	w.client.Netns.Sysctl("net.ipv4.ip_forward", "1")
	w.client.Netns.Sysctl("net.ipv6.conf.all.forwarding", "1")
	w.client.Netns.Exec("nft", "add table inet nat; add chain inet nat out { type nat hook postrouting priority srcnat; }; add rule inet nat out oifname veth0 masquerade")
	w.apply(policyFor("veth0", egress("reject", listedRule, webRule)) + dnsSection("names: listed"))

	host := *w
	host.client = near
	for _, to := range host.look("a1.n.test") {
		host.reach(to, passes)
		if got, _ := host.tlsClient(to, "a1.n.test", 0, &tls.Config{RootCAs: ca.pool}); got != passes {
			t.Errorf("%v under its name %s", to, got)
		}
		if got, _ := host.tlsClient(to, "a1.u.test", 0, &tls.Config{RootCAs: ca.pool}); got != reset {
			t.Errorf("%v under another name %s", to, got)
		}
	}
	for _, server := range w.serverAddr() {
		answer, _, err := host.ask(query{name: "secret.u.test", to: netip.AddrPortFrom(server, 53)})
		if err != nil || answer.Rcode != dns.RcodeRefused {
			t.Errorf("a question for a name that is not listed: %v, %v; want REFUSED", answer, err)
		}
	}
	v4, v6 := numbered(2)
	host.reach(v4, refused)
	host.reach(v6, refused)
	w.run("off")
}

// TestNamesOfTwoGates: each of two gates on an interface learns for itself, and
// what one refuses the other does not see as an answer.
func TestNamesOfTwoGates(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("reject", listedRule, webRule))+dnsSection("names: listed"), "--gate", "outer")
	w.apply(policyFor("veth0", egress("drop", `name: fewer, action: allow, to: {domains: [a1.n.test, a2.u.test], protocols: [tcp]}`), ingress("drop"))+dnsSection(), "--gate", "inner")
	for _, to := range w.look("a1.n.test") {
		w.reach(to, passes)
		if got, _ := w.tlsClient(to, "a1.n.test", 0, &tls.Config{RootCAs: ca.pool}); got != passes {
			t.Errorf("%v under its name %s", to, got)
		}
		if got, _ := w.tlsClient(to, "a2.n.test", 0, &tls.Config{RootCAs: ca.pool}); got != reset {
			t.Errorf("%v under a name of one gate only %s", to, got)
		}
	}
	answer, _, err := w.ask(query{name: "a2.u.test"})
	if err != nil || answer.Rcode != dns.RcodeRefused {
		t.Errorf("a question for a name that one gate does not list: %v, %v; want REFUSED", answer, err)
	}
	for _, to := range w.look("a3.n.test") {
		w.reach(to, silent) // "inner" drops it
	}
	w.run("off", "--gate", "outer")
	w.run("off", "--gate", "inner")
}

// TestNamesInAudit: in audit mode all passes, and is counted for what it would
// be stopped for.
func TestNamesInAudit(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	w.apply("mode: audit\n" + policyFor("veth0", egress("reject", webRule+", ech: drop")) + dnsSection("names: listed", "elsewhere: drop"))
	addrs := w.look("a1.n.test")
	w.look("a1.u.test")
	w.mustAsk(query{name: "a4.u.test", network: "tcp"})
	for _, to := range addrs {
		for _, name := range []string{"a1.n.test", "a1.u.test", ""} {
			if got, _ := w.tlsClient(to, name, 0, &tls.Config{RootCAs: ca.pool}); got != passes {
				t.Errorf("%v under %q %s", to, name, got)
			}
		}
		if got, _ := w.tlsClient(to, "a2.u.test", 0, &tls.Config{RootCAs: ca.pool, EncryptedClientHelloConfigList: echConfigs(t, "a1.n.test")}); got != passes {
			t.Errorf("%v with an encrypted ClientHello %s", to, got)
		}
		if got := w.talk(to, 443, "SSH-2.0-x\r\n"); got == reset {
			t.Errorf("what is no TLS %s", got)
		}
	}
	s := w.status("host")
	got := countersOf(s)
	for _, reason := range []string{"dns-unlisted", "name-mismatch", "name-unreadable", "ech"} {
		if got["egress: "+reason] == 0 {
			t.Errorf("nothing is counted for %s; all counters:\n  %s", reason, got)
		}
	}
	if n := w.names.times("a1.u.test"); n != 2 {
		t.Errorf("%d questions for a1.u.test reached the server, want 2", n)
	}
	if s.Names.Unread != (datapath.UnreadTotals{}) {
		t.Errorf("unread %+v, want none", s.Names.Unread)
	}
	w.run("off")
}

// TestLinkLocalServer: the resolver that a router announces is often its
// link-local address.
func TestLinkLocalServer(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	server := netip.MustParseAddr("fe80::53")
	setUp(t, w.server.Netns, "veth0", netip.PrefixFrom(server, 64))
	w.client.Netns.Exec("ip", "neigh", "replace", server.String(), "dev", "veth0", "lladdr", w.server.MAC.String())
	serveNames(t, w.server.Netns, server.WithZone(fmt.Sprint(w.server.Index)))
	w.resolver(server.WithZone("veth0"))
	w.apply(policyFor("veth0", egress("drop", listedRule)))
	v4, _ := numbered(1)
	w.reach(v4, silent)
	w.mustAsk(query{name: "a1.n.test", to: netip.AddrPortFrom(server.WithZone(fmt.Sprint(w.client.Index)), 53)})
	w.reach(v4, passes)
	w.run("off")
}

// TestManyNames: a list of 100,000 names in a file.
func TestManyNames(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	count := 100_000
	if _, vm := testutil.InVM(); vm {
		count = 10_000
	}
	var list strings.Builder
	for i := range count {
		fmt.Fprintf(&list, "a%d.x%d.n.test\n", i, i)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"names.txt": list.String(),
		"policy.yaml": policyFor("veth0", egress("reject", `name: many, action: allow, to: {sets: [many], ports: [tcp/8080]}`)) +
			"sets: {many: {domain_file: names.txt}}\n" + dnsSection("names: listed"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.run("apply", filepath.Join(dir, "policy.yaml"))
	for _, n := range []int{0, 1, count / 2, count - 1} {
		for _, to := range w.look(fmt.Sprintf("a%d.x%d.n.test", n, n)) {
			w.reach(to, passes)
		}
	}
	for _, name := range []string{"a1.x2.n.test", "x1.n.test", "b.a1.x1.n.test", fmt.Sprintf("a%d.x%d.n.test", count, count)} {
		if answer, _, err := w.ask(query{name: name}); err != nil || answer.Rcode != dns.RcodeRefused {
			t.Errorf("a question for %s: %v, %v; want REFUSED", name, answer, err)
		}
	}
	w.run("off")
}

package e2e

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/cli"
	"egate/internal/datapath"
	"egate/internal/testutil"
)

// trial is a probe from a host, to an address behind one of its interfaces or
// of its own.
type trial struct {
	from  string // name of a host: "guarded", or the interface that leads to it
	to    string
	probe probe
	want  outcome
}

// example is a world for one of examples/*.yaml.
type example struct {
	// ports are the guarded host's interfaces, with its addresses.
	ports map[string][]netip.Prefix
	// elsewhere are the addresses of the host behind each interface: the first
	// two on the wire, the others behind it.
	elsewhere map[string][]netip.Prefix
	// uplink is the interface of the default route.
	uplink string
	// names are what the first two addresses behind the uplink, and servers,
	// answer as DNS servers.
	names   map[string][]netip.Addr
	servers []netip.Addr
	trials  []trial
	want    counts // some of the counters
}

var oneUplink = example{
	ports:  map[string][]netip.Prefix{"eth0": testutil.Addrs("10.0.0.2/24", "2001:db8:0:1::2/64")},
	uplink: "eth0",
	elsewhere: map[string][]netip.Prefix{"eth0": testutil.Addrs("10.0.0.53/24", "2001:db8:0:1::53/64",
		"93.184.216.34/32", "2606:2800::34/128", "198.51.100.7/32", "198.51.100.25/32", "2001:db8::53/128",
		"10.20.0.5/32", "10.20.1.5/32", "169.254.169.254/32", "192.0.2.1/32")},
}

// with is the same world with other trials.
func (x example) with(want counts, trials ...trial) example {
	x.trials, x.want = trials, want
	return x
}

// withNames is the same world with DNS servers in it.
func (x example) withNames(names map[string][]netip.Addr, servers ...netip.Addr) example {
	x.names = names
	x.servers = servers
	for _, prefix := range x.elsewhere[x.uplink][:2] {
		x.servers = append(x.servers, prefix.Addr())
	}
	return x
}

const (
	webAddr4 = "93.184.216.34" // any host of the internet
	webAddr6 = "2606:2800::34"
	host4    = "10.0.0.2" // the guarded host
	host6    = "2001:db8:0:1::2"
)

// exampleNames are what the world's DNS servers know.
var exampleNames = map[string][]netip.Addr{
	"packages.example.org.":     {netip.MustParseAddr(webAddr4), netip.MustParseAddr(webAddr6)},
	"registry.example.com.":     {netip.MustParseAddr(webAddr4), netip.MustParseAddr(webAddr6)},
	"git.example.net.":          {netip.MustParseAddr("198.51.100.7")},
	"www.example.edu.":          {netip.MustParseAddr("198.51.100.25")},
	"telemetry.example.com.":    {netip.MustParseAddr("10.20.0.5")},
	"internal.cdn.example.com.": {netip.MustParseAddr("10.20.1.5")},
}

// lookUp asks a server for both addresses of a name.
func lookUp(name string) probe {
	return probe{"question for " + name, func(t *testing.T, from *testutil.Netns, to netip.Addr, limit time.Duration) (outcome, time.Duration) {
		t.Helper()
		begin := time.Now()
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			answer, err := exchangeDNS(from, query{name: name, qtype: qtype, network: "udp", to: netip.AddrPortFrom(to, 53)}, limit)
			if err != nil {
				return outcomeOf(err), time.Since(begin)
			}
			if answer.Rcode == dns.RcodeRefused {
				return refused, time.Since(begin)
			}
		}
		return passes, time.Since(begin)
	}}
}

var examples = map[string]example{
	"no-icmp.yaml": oneUplink.with(
		counts{"egress no-ping rejected": 2, "egress no-icmp dropped": 2, "ingress: own-answer": 2},
		trial{"guarded", webAddr4, ping(1), refused},
		trial{"guarded", webAddr6, ping(1), refused},
		trial{"guarded", webAddr4, curl(80), passes},
		trial{"guarded", webAddr6, curl(80), passes},
		// The host's own echo reply is ICMP that leaves.
		trial{"eth0", host4, ping(1), silent},
		trial{"eth0", host6, ping(1), silent},
	),
	"no-web.yaml": oneUplink.with(
		counts{
			"egress no-http dropped": 2, "egress no-https dropped": 2, "egress no-http3 rejected": 2,
			"egress count-tcp continued": some, "egress count-icmp continued": some,
			"egress count-udp continued": 4, // 2 of HTTP/3, 2 of echo
		},
		trial{"guarded", webAddr4, curl(80), silent},
		trial{"guarded", webAddr6, curl(80), silent},
		trial{"guarded", webAddr4, curl(443), silent},
		trial{"guarded", webAddr6, curl(443), silent},
		trial{"guarded", webAddr4, echo(443, 100), refused},
		trial{"guarded", webAddr6, echo(443, 100), refused},
		trial{"guarded", webAddr4, curl(8080), passes},
		trial{"guarded", webAddr6, ping(1), passes},
		trial{"guarded", "10.0.0.53", echo(7, 100), passes},
		trial{"guarded", "2001:db8:0:1::53", echo(7, 100), passes},
	),
	"from-iptables.yaml": oneUplink.with(
		counts{"egress mail-relay allowed": some, "egress #2-6 dropped": 4, "egress #7-10 rejected": 3},
		trial{"guarded", "198.51.100.7", connect(25), passes},
		trial{"guarded", "198.51.100.7", ping(1), silent},
		trial{"guarded", "198.51.100.7", connect(80), silent},
		trial{"guarded", "2001:db8::53", ping(1), silent},
		trial{"guarded", "2001:db8::53", echo(7, 100), silent},
		trial{"guarded", "198.51.100.25", connect(25), passes}, // behind the last address
		trial{"guarded", "192.0.2.1", connect(80), refused},
		trial{"guarded", "10.20.1.5", connect(443), refused},
		trial{"guarded", "10.20.1.5", connect(80), refused},
		trial{"guarded", "10.20.1.5", connect(8080), passes},
		trial{"guarded", "10.20.0.5", connect(443), passes},
	),
	"audit.yaml": oneUplink.with(
		counts{"egress default dropped": some, "egress web allowed": some, "egress ping allowed": 1},
		trial{"guarded", webAddr4, curl(8080), passes}, // would be dropped
		trial{"guarded", webAddr6, curl(80), passes},
		trial{"guarded", webAddr4, ping(1), passes},
	),
	"blocklist.yaml": oneUplink.with(
		counts{"egress to-threats rejected": 2, "ingress from-threats dropped": 0},
		trial{"guarded", "198.51.100.7", connect(80), refused},
		trial{"guarded", "198.51.100.7", ping(1), refused},
		trial{"guarded", "198.51.100.25", connect(80), passes}, // listed, but excepted
		trial{"guarded", webAddr4, curl(80), passes},
		trial{"eth0", host4, ping(1), passes},
	),
	"ci-runner.yaml": oneUplink.with(
		counts{"egress metadata rejected": 1, "egress internal rejected": 2, "egress registry allowed": some, "egress https allowed": some, "egress default rejected": 2},
		trial{"guarded", "10.20.0.5", connect(443), passes},
		trial{"guarded", webAddr6, connect(443), passes},
		trial{"guarded", "10.0.0.53", echo(53, 100), passes},
		trial{"guarded", "169.254.169.254", connect(80), refused},
		trial{"guarded", "10.20.1.5", connect(443), refused},
		trial{"guarded", "2001:db8:0:1::53", connect(22), refused},
		trial{"guarded", webAddr4, connect(80), refused},
		trial{"guarded", webAddr6, ping(1), refused},
		trial{"eth0", host4, connect(443), silent},
	),
	"web-server.yaml": oneUplink.with(
		counts{"egress default rejected": 3, "egress updates allowed": some, "egress dns allowed": 1, "ingress default dropped": 1, "ingress ping allowed": 2},
		trial{"eth0", host4, curl(80), passes},
		trial{"eth0", host6, curl(443), passes},
		trial{"eth0", host4, ping(1), passes},
		trial{"eth0", host6, ping(1), passes},
		trial{"eth0", host4, connect(8080), silent},
		trial{"guarded", webAddr4, connect(443), passes},
		trial{"guarded", webAddr4, connect(80), refused},
		trial{"guarded", webAddr6, connect(25), refused},
		trial{"guarded", "10.0.0.53", echo(53, 100), passes},
		trial{"guarded", webAddr4, echo(7, 100), refused},
	),
	"names.yaml": oneUplink.withNames(exampleNames).with(
		counts{
			"egress packages allowed": some, "egress packages rejected": 2, "egress code allowed": some, "egress trackers rejected": 1,
			"egress default dropped": 4, "egress: quic": 2, "ingress default dropped": 1,
			"egress: dns": 8, // a question for each family
		},
		trial{"guarded", webAddr4, connect(443), silent}, // nobody has asked for its name yet
		trial{"guarded", "10.0.0.53", lookUp("packages.example.org"), passes},
		trial{"guarded", webAddr4, connect(443), passes},
		trial{"guarded", webAddr6, connect(80), passes},
		trial{"guarded", webAddr4, connect(8080), silent},
		trial{"guarded", webAddr4, echo(443, 1200), refused},
		trial{"guarded", webAddr6, echo(443, 1200), refused},
		trial{"guarded", "2001:db8:0:1::53", lookUp("git.example.net"), passes},
		trial{"guarded", "198.51.100.7", connect(22), passes},
		trial{"guarded", "198.51.100.7", connect(443), silent},
		trial{"guarded", "10.0.0.53", lookUp("www.example.edu"), passes},
		trial{"guarded", "198.51.100.25", connect(443), silent},
		trial{"guarded", "10.0.0.53", lookUp("telemetry.example.com"), passes},
		trial{"guarded", "10.20.0.5", connect(443), refused},
		trial{"eth0", host4, connect(443), silent},
	),
	"sandbox-names.yaml": oneUplink.withNames(exampleNames, netip.MustParseAddr("2001:db8::53")).with(
		counts{
			"egress packages allowed": some,
			"egress default rejected": 5,                            // 3 questions, 2 connections
			"egress: dns":             4, "egress: dns-unlisted": 2, // a question for each family, or the first only
			"egress: dns-elsewhere": 1, "ingress default dropped": 1,
		},
		trial{"guarded", "10.0.0.53", lookUp("registry.example.com"), passes},
		trial{"guarded", webAddr4, connect(443), passes},
		trial{"guarded", webAddr6, connect(443), passes},
		trial{"guarded", webAddr6, connect(80), refused},
		trial{"guarded", "10.0.0.53", lookUp("www.example.edu"), refused},
		trial{"guarded", "2001:db8::53", lookUp("secret.example.org"), refused},
		trial{"guarded", "2001:db8:0:1::53", lookUp("registry.example.com"), refused}, // another server
		trial{"guarded", "2001:db8::53", lookUp("internal.cdn.example.com"), passes},
		trial{"guarded", "10.20.1.5", connect(443), refused}, // listed, but a private address
		trial{"eth0", host4, connect(443), silent},
	),
	"router.yaml": {
		ports: map[string][]netip.Prefix{
			"lan0":   testutil.Addrs("192.168.1.1/24", "2001:db8:1:1::1/64"),
			"guest0": testutil.Addrs("192.168.2.1/24", "2001:db8:1:2::1/64"),
			"wan0":   testutil.Addrs("203.0.113.2/24", "2001:db8:f::2/64"),
		},
		uplink: "wan0",
		elsewhere: map[string][]netip.Prefix{
			"lan0":   testutil.Addrs("192.168.1.7/24", "2001:db8:1:1::7/64"),
			"guest0": testutil.Addrs("192.168.2.7/24", "2001:db8:1:2::7/64"),
			"wan0":   testutil.Addrs("203.0.113.1/24", "2001:db8:f::1/64", "93.184.216.34/32", "2606:2800::34/128"),
		},
		trials: []trial{
			{"lan0", webAddr4, curl(8080), passes},
			{"lan0", webAddr6, curl(80), passes},
			{"lan0", webAddr4, connect(25), refused},
			{"lan0", webAddr6, connect(25), refused},
			{"lan0", "192.168.1.1", echo(53, 100), passes},
			{"guest0", webAddr4, curl(80), passes},
			{"guest0", webAddr6, connect(8080), refused},
			{"guest0", "192.168.1.7", connect(80), refused},
			{"guest0", "2001:db8:1:1::7", connect(80), refused},
			{"wan0", "192.168.1.7", connect(80), silent},
		},
		want: counts{
			"ingress no-smtp rejected": 2, "ingress guests-stay-out rejected": 2, "ingress default rejected": 1,
			"ingress router-dns allowed": 1, "egress default dropped": 1, "egress: own-answer": 5,
		},
	},
}

// TestExamples puts each of examples/ in force and tries what it says.
func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find examples: %v, %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		x, ok := examples[name]
		if !ok {
			t.Errorf("no trials of examples/%s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts := x.build(t)
			e := newEgate(t, hosts["guarded"])
			// The policies that name no DNS servers find these.
			files := view{netns: hosts["guarded"], dir: t.TempDir()}
			files.write(t, "/etc/resolv.conf", resolvConf(x.servers))
			if r := files.try(e.command("apply", file)...); r.Code != cli.ExitOK || r.Stderr != "" {
				t.Fatalf("egate apply: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
			for _, tr := range x.trials {
				tr.probe.check(t, hosts[tr.from], netip.MustParseAddr(tr.to), tr.want)
			}
			s := e.status("host")
			got := countersOf(s)
			for key, n := range x.want.withRepeatedSYNs(t, got) {
				if n == some && got[key] == 0 || n != some && got[key] != n {
					t.Errorf("%s: %d, want %d; all counters:\n  %s", key, got[key], n, got)
				}
			}
			checkSums(t, s)
			if s.State != datapath.Enforcing || len(s.Problems) > 0 {
				t.Errorf("the gate is %s: %q", s.State, s.Problems)
			}
			e.run("off")
		})
	}
}

// build makes the hosts of an example, with the services that the trials ask
// for on each of them.
func (x example) build(t *testing.T) map[string]*testutil.Netns {
	t.Helper()
	hosts := map[string]*testutil.Netns{"guarded": quietNetns(t)}
	guarded := hosts["guarded"]
	guarded.Sysctl("net.ipv4.ip_forward", "1")
	guarded.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for name, addrs := range x.ports {
		far := quietNetns(t)
		hosts[name] = far
		all := x.elsewhere[name]
		here, there := testutil.VethPair(t,
			testutil.Port{Netns: guarded, Name: name, Addrs: addrs},
			testutil.Port{Netns: far, Name: "veth0", Addrs: all[:2]})
		setUp(t, far, "lo", all[2:]...)
		settle(t, here, there)
		for family, every := range []string{"0.0.0.0/0", "::/0"} {
			if name == x.uplink {
				testutil.Route(t, here, netip.MustParsePrefix(every), all[family].Addr())
			}
			testutil.Route(t, there, netip.MustParsePrefix(every), addrs[family].Addr())
		}
	}
	for _, n := range hosts {
		serveHTTP(t, n, 80, 443, 8080)
		serveSink(t, n, 22)
		serveSink(t, n, 25)
		serveEcho(t, n, 7)
		if x.names == nil || n != hosts[x.uplink] {
			serveEcho(t, n, 53)
			continue
		}
		serveNames(t, n, x.servers...).setForge(func(w dns.ResponseWriter, question *dns.Msg) bool {
			// A client that has gone is no error of the server.
			_ = w.WriteMsg(answerFrom(x.names, question))
			return true
		})
	}
	return hosts
}

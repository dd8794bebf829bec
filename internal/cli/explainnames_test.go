package cli

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const namesPolicy = `version: 1
name: names
interfaces: [eth0]
dns: {names: listed, elsewhere: reject}
egress:
  default: drop
  rules:
    - {name: ads, action: drop, to: {domains: [ads.example.com]}}
    - name: cdn
      action: allow
      to: {domains: ["*.example.com"], ports: [tcp/443, udp/443]}
      verify: sni
    - {name: plain, action: allow, to: {domains: [plain.example.net], ports: [tcp/443]}, verify: none}
    - {name: ssh, action: allow, to: {ports: [tcp/22]}}
`

func TestExplainNames(t *testing.T) {
	file := policyFile(t, namesPolicy)
	for _, test := range []struct {
		packet string
		want   []string
		not    string // does not occur
	}{
		{"tcp 10.0.0.5 -> 198.51.100.7:443 name=www.example.com", []string{
			"packet        tcp 10.0.0.5 -> 198.51.100.7:443 name=www.example.com\n",
			"name          www.example.com (*.example.com): class 1, 1 rule left: cdn\n",
			"allow         rule cdn (line 9)\nrequest       says www.example.com: allow, rule cdn (line 9)\n",
		}, "note"},
		{"tcp 10.0.0.5 -> 198.51.100.7:443 name=Other.Test.,www.example.com", []string{
			"allow         rule cdn (line 9)\n",
			"request       says other.test: reject, name-mismatch: the TLS server name",
		}, "note"},
		{"tcp 10.0.0.5 -> 198.51.100.7:443 name=plain.example.net name=ads.test", []string{
			"allow         rule plain (line 13)\n",
		}, "request"},
		{"udp 10.0.0.5 -> 198.51.100.7:443 name=www.example.com", []string{
			"allow         rule cdn (line 9)\n",
			"note          the name in a QUIC connection is not verified; \"quic: drop\" makes clients fall back to TCP\n",
		}, "request"},
		{"tcp 10.0.0.5 -> 198.51.100.7:443", []string{
			"name          none known: class 0, no rule left\n",
			"note          no name is known here that 198.51.100.7 was learned under, so no rule with domains matches; write name=NAME behind the packet to give it one\n",
		}, "request"},
		{"tcp 198.51.100.7 -> 10.0.0.5:443 in", nil, "note"},
		{"udp 10.0.0.5 -> 10.0.0.53:53", []string{
			"allow         dns: ",
			"note          10.0.0.53 is one of the DNS servers that this host uses now (10.0.0.53); the policy gives none\n",
			"note          which questions pass is for the section dns to say",
		}, "request"},
		{"udp 10.0.0.5 -> 10.0.0.54:53", []string{
			"rules         no rule is asked: the section dns says what becomes of DNS elsewhere\nreject        dns-elsewhere: ",
			"note          10.0.0.54 is none of the DNS servers that this host uses now (10.0.0.53); the policy gives none\n",
		}, "name=NAME"},
		{"tcp 10.0.0.5 -> 8.8.8.8:443 name=www.example.com", []string{
			"reject        dns-elsewhere: ",
			"note          8.8.8.8 is known to answer DNS over HTTPS\n",
		}, "request"},
	} {
		t.Run(test.packet, func(t *testing.T) {
			r := run(t, nil, "explain", file, test.packet)
			r.expect(t, ExitOK, test.want...)
			if test.not != "" && strings.Contains(r.stdout, test.not) {
				t.Errorf("says %q:\n%s", test.not, r.stdout)
			}
		})
	}
}

func TestExplainTakesThePolicysServers(t *testing.T) {
	file := policyFile(t, strings.Replace(namesPolicy, "dns: {", `dns: {servers: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, "2001:db8::53", "2001:db8::54"], `, 1))
	ask := func(a *app) {
		a.hostServers = func() ([]netip.Addr, error) { return nil, errors.New("asked for the host's") }
	}
	run(t, ask, "explain", file, "udp 2001:db8::1 -> [2001:db8::53]:53").expect(t, ExitOK,
		"note          2001:db8::53 is one of the policy's DNS servers (192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, 2 more)\n")
	run(t, ask, "explain", policyFile(t, namesPolicy), "udp 10.0.0.5 -> 10.0.0.53:53").expect(t, ExitRefused, "asked for the host's")
	none := func(a *app) { a.hostServers = func() ([]netip.Addr, error) { return nil, nil } }
	run(t, none, "explain", policyFile(t, namesPolicy), "udp 10.0.0.5 -> 10.0.0.53:53").expect(t, ExitOK, "uses now (there are none)")
}

func TestExplainSaysNothingOfNamesThatNoPolicyAsksFor(t *testing.T) {
	r := run(t, nil, "explain", policyFile(t, goodPolicy), "udp 10.0.0.5:40000 -> 10.0.0.9:53")
	r.expect(t, ExitOK)
	if strings.Contains(r.stdout, "note") || strings.Contains(r.stdout, "name ") {
		t.Errorf("says of names:\n%s", r.stdout)
	}
}

func TestExplainNamesJSON(t *testing.T) {
	file := policyFile(t, namesPolicy)
	r := run(t, nil, "explain", "-o", "json", file, "tcp 10.0.0.5 -> 198.51.100.7:443 name=ads.example.com.,www.example.com")
	r.expect(t, ExitOK)
	var e Explanation
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
		t.Fatal(err)
	}
	if e.Packet != "tcp 10.0.0.5 -> 198.51.100.7:443 name=ads.example.com,www.example.com" || e.Verdict != "drop" || e.Request != nil {
		t.Errorf("got %s", r.stdout)
	}
	r = run(t, nil, "explain", "-o", "json", file, "tcp 10.0.0.5 -> 198.51.100.7:443 name=other.test,www.example.com")
	r.expect(t, ExitOK)
	e = Explanation{}
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
		t.Fatal(err)
	}
	if q := e.Request; e.Verdict != "allow" || q == nil || q.Name != "other.test" || q.Verdict != "reject" || q.Reason != "name-mismatch" || q.Rule != nil {
		t.Errorf("got %s", r.stdout)
	}
}

func TestCheckTellsOfDNS(t *testing.T) {
	run(t, nil, "check", policyFile(t, namesPolicy)).expect(t, ExitOK,
		"  - DNS (udp and tcp port 53) to the resolvers that this host uses\n",
		"\nDNS:\n"+
			"  - names are opened by the answers of the servers that the host uses when the policy is applied\n"+
			"  - questions for names that no allow rule of egress lists are refused\n"+
			"  - reject, before any rule: DNS with other servers, DNS over TLS and QUIC, and DNS over HTTPS with known resolvers\n")
	other := strings.Replace(namesPolicy, "names: listed, elsewhere: reject", "servers: [192.0.2.1], names: listed, refuse: nxdomain", 1)
	r := run(t, nil, "check", "-o", "json", policyFile(t, other))
	r.expect(t, ExitOK)
	var report CheckReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"names are opened by the answers of 192.0.2.1",
		"questions for names that no allow rule of egress lists are answered with NXDOMAIN",
	}
	if !slices.Equal(report.DNS, want) {
		t.Errorf("got %q, want %q", report.DNS, want)
	}
	if r := run(t, nil, "check", policyFile(t, goodPolicy)); strings.Contains(r.stdout, "DNS:") {
		t.Errorf("says of DNS:\n%s", r.stdout)
	}
}

func TestCapturesHaveNoNames(t *testing.T) {
	const note = "no names of their destinations are known here, so no rule with domains matched\n"
	capture := writeCapture(t)
	run(t, nil, "explain", policyFile(t, namesPolicy), "--pcap", capture).expect(t, ExitOK, note)
	for _, args := range [][]string{{policyFile(t, goodPolicy)}, {policyFile(t, namesPolicy), "--direction", "ingress"}} {
		r := run(t, nil, append([]string{"explain", "--pcap", capture}, args...)...)
		r.expect(t, ExitOK)
		if strings.Contains(r.stdout, note) {
			t.Errorf("%v: says of names:\n%s", args, r.stdout)
		}
	}
}

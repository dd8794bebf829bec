package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"egate/internal/verdict"
)

// inDNS is a policy with this dns section; its brace is at 2:6.
func inDNS(dns string) string { return "version: 1\ndns: " + dns + "\n" }

// withNames is inDNS with an allow rule for these domains.
func withNames(dns, domains string) string {
	return inDNS(dns) + "egress: {default: drop, rules: [{action: allow, to: {domains: [" + domains + "]}}]}\n"
}

var dnsProblems = []problemTest{
	{name: "dns with unknown keys", schema: true, text: inDNS("{server: [10.0.0.53], domains: [a.example]}"), want: []string{
		`p.yaml:2:7: unknown key "server" in dns; did you mean "servers"?`,
		`p.yaml:2:28: unknown key "domains" in dns; it can be servers, names, refuse, types, max_label, rate or elsewhere`,
	}},
	{name: "dns of other types", schema: true, text: inDNS("{servers: 10.0.0.53, names: [listed], types: A, max_label: x, rate: 50, elsewhere: true}"), want: []string{
		`p.yaml:2:16: servers wants a list, found the text "10.0.0.53"; write [10.0.0.53]`,
		`p.yaml:2:34: names wants any or listed, found a list`,
		`p.yaml:2:51: types wants a list, found the text "A"; write [A]`,
		`p.yaml:2:65: max_label wants a number, found the text "x"`,
		`p.yaml:2:74: rate wants a rate such as 50/s, found the number 50`,
		`p.yaml:2:89: elsewhere wants allow, drop or reject, found true`,
	}},
	{name: "dns without a value", schema: true, text: "version: 1\ndns:\n", want: []string{
		`p.yaml:2:1: dns has no value; it wants a mapping`,
	}},
	{name: "servers", schema: true, text: inDNS(`{servers: [10.0.0.0/8, "10.0.0.53:53", dns.example.com, "fe80::1%eth0", 0.0.0.0, "ff02::1", 255.255.255.255, 10.0.0.300, nope, ""]}`), want: []string{
		`p.yaml:2:17: "10.0.0.0/8" is not an address; a server is a single one`,
		`p.yaml:2:29: "10.0.0.53:53" is not an address; servers are asked at port 53, write the address alone`,
		`p.yaml:2:45: "dns.example.com" is not an address; names are looked up at these servers, write the address`,
		`p.yaml:2:62: "fe80::1%eth0" has a zone; write the address without it`,
		`p.yaml:2:78: "0.0.0.0" is not the address of a server`,
		`p.yaml:2:87: "ff02::1" is not the address of a server`,
		`p.yaml:2:98: "255.255.255.255" is not the address of a server`,
		`p.yaml:2:115: "10.0.0.300" is not an address`,
		`p.yaml:2:127: "nope" is not an address`,
		`p.yaml:2:133: "" is not an address`,
	}},
	{name: "too many servers", schema: true, text: inDNS("{servers: [10.0.0.0" + strings.Repeat(", 10.0.0.1", MaxServers) + "]}"), want: []string{
		`p.yaml:2:16: dns has more than 64 servers`,
	}},
	{name: "server listed twice", text: inDNS(`{servers: [10.0.0.53, "::ffff:10.0.0.53"]}`), want: []string{
		`p.yaml:2:28: warning: server 10.0.0.53 is listed twice`,
	}},
	{name: "words of dns", schema: true, text: inDNS("{names: list, refuse: no, elsewhere: accept}"), want: []string{
		`p.yaml:2:14: unknown names "list"; it can be any or listed`,
		`p.yaml:2:28: unknown refuse "no"; it can be refused or nxdomain`,
		`p.yaml:2:43: unknown elsewhere "accept"; did you mean "allow"?`,
	}},
	{name: "refuse without listed", text: inDNS("{refuse: nxdomain}"), want: []string{
		`p.yaml:2:15: refuse says how questions for names that no rule lists are answered; without names: listed they are asked`,
	}},
	{name: "refuse with any", text: inDNS("{names: any, refuse: refused}"), want: []string{
		`p.yaml:2:27: refuse says how questions for names that no rule lists are answered; without names: listed they are asked`,
	}},
	{name: "question types", schema: true, text: inDNS(`{types: [a, aaaa, TYPE0, TYPE65536, TYPE065, 65, HTTPSS, any, "", A, TYPE1]}`), want: []string{
		`p.yaml:2:15: "a" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; did you mean "A"?`,
		`p.yaml:2:18: "aaaa" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; did you mean "AAAA"?`,
		`p.yaml:2:24: "TYPE0" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are`,
		`p.yaml:2:31: "TYPE65536" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are`,
		`p.yaml:2:42: "TYPE065" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are`,
		`p.yaml:2:51: "65" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; write TYPE65`,
		`p.yaml:2:55: "HTTPSS" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; did you mean "HTTPS"?`,
		`p.yaml:2:63: "any" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; leave types out to mean every type`,
		`p.yaml:2:68: "" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are`,
		`p.yaml:2:75: warning: type TYPE1 is listed twice`,
	}},
	{name: "all question types", schema: true, text: inDNS(`{types: [all]}`), want: []string{
		`p.yaml:2:15: "all" is not a type of questions that egate knows by name; TYPE1 to TYPE65535 also are; leave types out to mean every type`,
	}},
	{name: "question types that are one", text: inDNS(`{types: [A, CAA, TYPE300]}`), want: []string{
		`p.yaml:2:18: warning: types from 255 on are not told apart: with CAA all of them may be asked`,
	}},
	{name: "question types without addresses", text: withNames("{types: [TXT, MX]}", "a.example"), want: []string{
		`p.yaml:2:14: warning: no rule with domains can match: none of these types tells addresses, as A and AAAA do`,
	}},
	{name: "longest label", schema: true, text: inDNS("{max_label: 64}"), want: []string{
		`p.yaml:2:18: max_label wants a whole number from 1 to 63, found 64`,
	}},
	{name: "no label", schema: true, text: inDNS("{max_label: 0}"), want: []string{
		`p.yaml:2:18: max_label wants a whole number from 1 to 63, found 0`,
	}},
	{name: "a listed name with a longer label", text: withNames("{max_label: 7}", `a.example, "*.sub-domain.example"`), want: []string{
		`p.yaml:2:18: warning: a question for "*.sub-domain.example" will be refused, although a rule allows it`,
	}},
	{name: "rates of questions", schema: true, text: inDNS("{rate: 0/s}"), want: []string{
		`p.yaml:2:13: rate wants a number a second, minute or hour such as 50/s, 5/m or 1/h, from 1 to 1000000, found "0/s"`,
	}},
	{name: "rate of all questions", schema: true, text: inDNS("{rate: all}"), want: []string{
		`p.yaml:2:13: rate wants a number a second, minute or hour such as 50/s, 5/m or 1/h, from 1 to 1000000, found "all"`,
	}},
}

func TestDNS(t *testing.T) {
	tests := []struct {
		dns  string
		want DNS
	}{
		{"{}", DNS{Given: true, MaxLabel: 63}},
		{`{servers: ["::1", 10.0.0.53, "::ffff:192.0.2.1"]}`, DNS{Given: true, MaxLabel: 63, Servers: []netip.Addr{
			netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")}}},
		{"{names: any}", DNS{Given: true, MaxLabel: 63}},
		{"{names: listed}", DNS{Given: true, MaxLabel: 63, ListedOnly: true}},
		{"{names: listed, refuse: refused}", DNS{Given: true, MaxLabel: 63, ListedOnly: true}},
		{"{names: listed, refuse: nxdomain}", DNS{Given: true, MaxLabel: 63, ListedOnly: true, NXDomain: true}},
		{"{types: [HTTPS, A, AAAA, TYPE99]}", DNS{Given: true, MaxLabel: 63, Types: []uint16{1, 28, 65, 99}}},
		{"{max_label: 20}", DNS{Given: true, MaxLabel: 20}},
		{"{rate: 50/s}", DNS{Given: true, MaxLabel: 63, Rate: EventRate{20 * time.Millisecond, 50}}},
		{"{rate: 6/m}", DNS{Given: true, MaxLabel: 63, Rate: EventRate{10 * time.Second, 6}}},
		{"{elsewhere: allow}", DNS{Given: true, MaxLabel: 63}},
		{"{elsewhere: drop}", DNS{Given: true, MaxLabel: 63, Elsewhere: verdict.Drop}},
		{"{elsewhere: reject}", DNS{Given: true, MaxLabel: 63, Elsewhere: verdict.Reject}},
	}
	for _, tt := range tests {
		if got := accepted(t, inDNS(tt.dns)).DNS; fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.dns, got, tt.want)
		}
	}
	if got := accepted(t, "version: 1\n").DNS; fmt.Sprint(got) != fmt.Sprint(DNS{MaxLabel: 63}) {
		t.Errorf("without the section: %+v", got)
	}
}

func TestReadsDNS(t *testing.T) {
	for text, want := range map[string]bool{
		"version: 1\n":                    false,
		inDNS("{}"):                       true,
		inAllow("{ports: [443]}"):         false,
		inAllow("{domains: [a.example]}"): true,
		inTo("{domains: [a.example]}"):    true,
	} {
		if got := accepted(t, text).ReadsDNS(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// DNS with the resolvers passes a default that is not allow, and is listed.
func TestExemptionOfDNS(t *testing.T) {
	for text, want := range map[string]string{
		withNames("{}", "a.example"):                                                 "DNS (udp and tcp port 53) to the resolvers that this host uses",
		withNames(`{servers: ["::1", 10.0.0.53]}`, "a.example"):                      "DNS (udp and tcp port 53) to the resolvers of dns: 10.0.0.53, ::1",
		"version: 1\negress: {default: reject}\ningress: {default: drop}\ndns: {}\n": "DNS (udp and tcp port 53) to the resolvers that this host uses",
		"version: 1\negress: {default: reject}\n":                                    "",
		inDNS("{}") + "egress: {default: allow}\n":                                   "",
	} {
		p := accepted(t, text)
		got := ""
		for _, e := range p.Exemptions(verdict.Egress) {
			if strings.HasPrefix(e, "DNS ") {
				got = e
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		if strings.Contains(strings.Join(p.Exemptions(verdict.Ingress), "|"), "DNS") {
			t.Errorf("%s: ingress exempts DNS", text)
		}
	}
}

func TestManyServersAreShortened(t *testing.T) {
	var servers []string
	for i := range 10 {
		servers = append(servers, fmt.Sprintf("10.0.0.%d", i))
	}
	p := accepted(t, withNames("{servers: ["+strings.Join(servers, ", ")+"]}", "a.example"))
	if got := p.DNS.servers(); !strings.HasSuffix(got, "10.0.0.7 and 2 more") {
		t.Errorf("got %s", got)
	}
}

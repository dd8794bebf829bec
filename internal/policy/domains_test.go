package policy

import (
	"fmt"
	"strings"
	"testing"

	"egate/internal/verdict"
)

// domainSets has a set of each kind.
const domainSets = "sets:\n  office: {addresses: [10.0.0.0/8]}\n  ads: {domains: [a.example, \"*.b.example\"]}\n  list: {domain_file: names.txt}\n"

// used has rules that use all of them, so that nothing warns.
const used = "ingress: {default: allow, rules: [{action: drop, from: {sets: [office]}}]}\n"

// inAllow is an allow rule of egress with this `to`; its brace is at 6:9.
func inAllow(to string) string { return inRule("action: allow\nto: " + to) }

var domainProblems = []problemTest{
	{name: "domains", schema: true, text: inAllow(`{domains: ["*", "**.example.com", "a*.example.com", "*cdn.example.com", "www.*.com", "", ".example.com"]}`), want: []string{
		`p.yaml:6:20: "*" would be every name; leave domains out, for rules without them match whatever the name`,
		`p.yaml:6:25: "**.example.com" has two '*'; "*.example.com" is every name below already, at any depth`,
		`p.yaml:6:43: "a*.example.com" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`,
		`p.yaml:6:61: "*cdn.example.com" has a '*' that is not a label by itself; write "*.cdn.example.com" for the names below it, and "cdn.example.com" for the name itself`,
		`p.yaml:6:81: "www.*.com" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`,
		`p.yaml:6:94: "" is empty`,
		`p.yaml:6:98: ".example.com" begins with a dot; write "*.example.com" for the names below it, and "example.com" for the name itself`,
	}},
	{name: "domains of other kinds", schema: true, text: inAllow(`{domains: [192.0.2.1, "::1", 10.0.0.0/8, "https://example.com/x", "example.com:443", example.com/x, a b, a..b, 12, true]}`), want: []string{
		`p.yaml:6:20: "192.0.2.1" is an address and not a name; write it under addresses`,
		`p.yaml:6:31: "::1" is an address and not a name; write it under addresses`,
		`p.yaml:6:38: "10.0.0.0/8" is an address and not a name; write it under addresses`,
		`p.yaml:6:50: "https://example.com/x" is a URL; write the name in it alone, "example.com"`,
		`p.yaml:6:75: "example.com:443" has a port; write "example.com" here and the port in ports`,
		`p.yaml:6:94: "example.com/x" has a path; write the name alone, "example.com"`,
		`p.yaml:6:109: "a b" has the character ' '; a name has letters, digits, '-' and '_'`,
		`p.yaml:6:114: "a..b" has an empty label: two dots in a row`,
		`p.yaml:6:120: an element of domains wants a domain, found the number 12; write "12" in quotes`,
		`p.yaml:6:124: an element of domains wants a domain, found true; write "true" in quotes`,
	}},
	{name: "domains as one text", schema: true, text: inAllow(`{domains: example.com}`), want: []string{
		`p.yaml:6:19: domains wants a list, found the text "example.com"; write [example.com]`,
	}},
	{name: "no domains", schema: true, text: inAllow(`{domains: []}`), want: []string{
		`p.yaml:6:19: domains is an empty list; leave the key out instead`,
	}},
	{name: "a pattern of domains without quotes", text: inAllow(`{domains: [*.example.com]}`), want: []string{
		`p.yaml:6:5: YAML: did not find expected alphabetic or numeric character; a text that begins with * or & needs quotes`,
	}},
	{name: "domains of ingress", text: "version: 1\ningress:\n  default: drop\n  rules:\n  - {action: allow, to: {domains: [a.example]}}\n  - {action: allow, to: {sets: [ads]}, verify: sni}\n" + domainSets, want: []string{
		`p.yaml:5:35: names are learned from what this host asks, so only rules of egress take domains`,
		`p.yaml:6:32: names are learned from what this host asks, so only rules of egress take domains`,
	}},
	{name: "domains at other places", schema: true, text: inRule("action: allow\ndomains: [a.example]\nfrom: {domains: [a.example], ports: [1]}\nto: {domains: [a.example], verify: none, ech: drop, quic: drop}"), want: []string{
		`p.yaml:6:5: unknown key "domains" in the rule: domains belong in to`,
		`p.yaml:7:12: unknown key "domains" in from: a source is known by its address only; domains belong in to`,
		`p.yaml:8:32: unknown key "verify" in to: it belongs in the rule, beside to`,
		`p.yaml:8:46: unknown key "ech" in to: it belongs in the rule, beside to`,
		`p.yaml:8:57: unknown key "quic" in to: it belongs in the rule, beside to`,
	}},
	{name: "sets of domains in from", text: inRule("action: drop\nfrom: {sets: [ads]}") + domainSets, want: []string{
		`p.yaml:6:19: set "ads" has domains, and a source is known by its address only`,
	}},
	{name: "sets of both kinds", text: inAllow("{sets: [ads, office]}") + strings.Replace(inAllow("{sets: [office, ads, list]}"), "version: 1\negress", "ingress", 1) + domainSets, want: []string{
		`p.yaml:6:22: set "office" has addresses, and those before it have domains; write two rules`,
		`p.yaml:11:25: set "ads" has domains, and those before it have addresses; write two rules`,
		`p.yaml:11:30: set "list" has domains, and those before it have addresses; write two rules`,
	}},
	{name: "domains and sets of domains", text: inAllow("{domains: [c.example], sets: [ads]}") + domainSets, want: []string{
		`p.yaml:6:38: domains and sets of domains do not go together; put the domains into a set, or write two rules`,
	}},
	{name: "sets of domains and domains", text: inAllow("{sets: [ads], domains: [c.example, a..b]}") + domainSets, want: []string{
		`p.yaml:6:32: domains and sets of domains do not go together; put the domains into a set, or write two rules`,
		`p.yaml:6:44: "a..b" has an empty label: two dots in a row`,
	}},
	{name: "sets with several kinds", schema: true, text: "version: 1\nsets:\n  a: {domains: [a.example], domain_file: names.txt}\n  b: {addresses: [10.0.0.1], domains: [a.example]}\n  c: {file: ok.txt, addresses: [10.0.0.1], domain_file: names.txt}\n", want: []string{
		`p.yaml:3:7: set "a" needs only one of domains and domain_file`,
		`p.yaml:4:7: set "b" needs only one of addresses and domains`,
		`p.yaml:5:7: set "c" needs only one of addresses and file and domain_file`,
	}},
	{name: "domain files", text: "version: 1\nsets:\n  a: {domain_file: nope.txt}\n  b: {domain_file: \"\"}\n  c: {domain_file: empty-names.txt}\n  d: {domain_file: bad-names.txt}\n", want: []string{
		`p.yaml:3:20: open domain file "nope.txt": no such file or directory`,
		`p.yaml:4:20: domain_file wants a path, found an empty text`,
		`p.yaml:5:20: domain file "empty-names.txt" has no name in it`,
		`bad-names.txt:3:3: "*.*.example" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`,
		`bad-names.txt:4:11: "c.example" follows a name; write one name a line, and # before a comment`,
	}},
	{name: "unused set of domains", text: "version: 1\nsets:\n  a: {domains: [a.example]}\n", want: []string{
		`p.yaml:3:3: warning: set a is not used by any rule`,
	}},
	{name: "bad domain of a set", text: inRule("action: allow\nverify: sni\nto: {sets: [a]}") + "sets: {a: {domains: [a..b]}}\n", want: []string{
		`p.yaml:8:22: "a..b" has an empty label: two dots in a row`,
	}},
	{name: "names without domains", text: inRule("action: allow\nverify: sni\nech: drop\nquic: drop\nto: {ports: [443]}"), want: []string{
		`p.yaml:6:13: verify is about connections to names, and the rule has no domains in to`,
		`p.yaml:7:10: ech is about connections to names, and the rule has no domains in to`,
		`p.yaml:8:11: quic is about connections to names, and the rule has no domains in to`,
	}},
	{name: "names without to", text: inRule("action: allow\nverify: none"), want: []string{
		`p.yaml:6:13: verify is about connections to names, and the rule has no domains in to`,
	}},
	{name: "names of rules that let nothing begin", text: "version: 1\negress:\n  default: allow\n  rules:\n" +
		"  - {action: drop, verify: none, to: {domains: [a.example]}}\n" +
		"  - {action: reject, ech: allow, to: {domains: [a.example]}}\n" +
		"  - {action: continue, quic: drop, to: {domains: [a.example]}}\n", want: []string{
		`p.yaml:5:28: verify goes with the action allow: only allow rules let a connection begin`,
		`p.yaml:6:27: ech goes with the action allow: only allow rules let a connection begin`,
		`p.yaml:7:30: quic goes with the action allow: only allow rules let a connection begin`,
	}},
	{name: "words of names", schema: true, text: inRule("action: allow\nverify: host\nech: reject\nquic: false\nto: {domains: [a.example]}"), want: []string{
		`p.yaml:6:13: unknown verify "host"; it can be sni or none`,
		`p.yaml:7:10: unknown ech "reject"; it can be allow or drop`,
		`p.yaml:8:11: quic wants allow or drop, found false`,
	}},
	{name: "ech that nobody reads", text: inRule("action: allow\nverify: none\nech: drop\nto: {domains: [a.example]}"), want: []string{
		`p.yaml:7:10: ech: drop does not go with verify: none, by which no ClientHello is read`,
	}},
	{name: "names of services that the rule leaves out", text: "version: 1\negress:\n  default: allow\n  rules:\n" +
		"  - {action: allow, verify: sni, to: {domains: [a.example], ports: [udp/443]}}\n" +
		"  - {action: allow, ech: drop, quic: drop, to: {domains: [a.example], ports: [tcp/80]}}\n" +
		"  - {action: allow, verify: sni, ech: drop, quic: drop, to: {domains: [a.example], protocols: [tcp, udp]}}\n", want: []string{
		`p.yaml:5:29: warning: verify has no effect: the rule does not match tcp`,
		`p.yaml:6:26: warning: ech has no effect: the rule does not match tcp/443`,
		`p.yaml:6:38: warning: quic has no effect: the rule does not match udp/443`,
	}},
}

func TestDomains(t *testing.T) {
	tests := []struct{ rule, want string }{
		{"action: allow\nto: {domains: [b.Example., a.example, B.example]}", "verify well known drop ech false drop quic false|a.example|b.example"},
		{"action: allow\nto: {domains: [\"*.b\u00fccher.example\", _dmarc.example]}", "verify well known drop ech false drop quic false|_dmarc.example|*.xn--bcher-kva.example"},
		{"action: allow\nto: {sets: [ads]}", "verify well known drop ech false drop quic false|a.example|*.b.example"},
		{"action: allow\nto: {sets: [list, ads]}", "verify well known drop ech false drop quic false|a.example|ads.example|*.b.example|track.example"},
		{"action: allow\nverify: sni\nech: drop\nquic: drop\nto: {domains: [a.example]}", "verify all drop ech true drop quic true|a.example"},
		{"action: allow\nverify: none\nquic: allow\nto: {domains: [a.example]}", "verify none drop ech false drop quic false|a.example"},
		{"action: drop\nto: {domains: [a.example], ports: [tcp/443]}", "verify none drop ech false drop quic false|a.example"},
		{"action: continue\nto: {sets: [ads]}", "verify none drop ech false drop quic false|a.example|*.b.example"},
	}
	for _, tt := range tests {
		p, problems := Parse("p.yaml", []byte(inRule(tt.rule)+domainSets+used), setFiles(testSetFiles))
		if problems.HasErrors() {
			t.Errorf("%s: %v", tt.rule, problems)
			continue
		}
		var b strings.Builder
		dumpDomains(&b, &p.Chains[verdict.Egress].Rules[0])
		got := strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(b.String()), "\n      ", "|"), "domains ")
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.rule, got, tt.want)
		}
	}
}

// Addresses and domains of one rule both count, whichever way they are given.
func TestDomainsBesideAddresses(t *testing.T) {
	for to, want := range map[string]int{
		"{domains: [a.example], sets: [office]}":          1,
		"{sets: [ads], addresses: [10.0.0.1, 192.0.2.1]}": 2,
		"{sets: [list, ads], except: [10.0.0.0/8]}":       3, // before, behind, and IPv6
	} {
		p, problems := Parse("p.yaml", []byte(inAllow(to)+domainSets+used), setFiles(testSetFiles))
		if problems.HasErrors() {
			t.Errorf("%s: %v", to, problems)
			continue
		}
		r := &p.Chains[verdict.Egress].Rules[0]
		if r.Domains == nil || r.To == nil || len(r.To.Ranges()) < want {
			t.Errorf("%s: addresses %v, domains %v; want %d ranges", to, r.To, r.Domains, want)
		}
	}
}

func TestRulesShareSetsOfDomains(t *testing.T) {
	text := "version: 1\n" + domainSets + used + "egress:\n  default: drop\n  rules:\n"
	for _, sets := range []string{"ads", "ads", "ads, list", "ads, list"} {
		text += fmt.Sprintf("  - {action: allow, to: {sets: [%s]}}\n", sets)
	}
	rules := accepted(t, text).Chains[verdict.Egress].Rules
	if rules[0].Domains != rules[1].Domains || rules[2].Domains != rules[3].Domains || rules[0].Domains == rules[2].Domains {
		t.Error("rules that name the same sets do not share them")
	}
}

// The bound of domains is the policy's, not a set's.
func TestTooManyDomains(t *testing.T) {
	var half strings.Builder
	for i := range MaxDomains / 2 {
		fmt.Fprintf(&half, "n%d.example\n", i)
	}
	open := setFiles(map[string]string{"half.txt": half.String()})
	text := inAllow("{sets: [a, b]}") + "sets:\n  a: {domain_file: half.txt}\n  b: {domain_file: half.txt}\n"
	if _, problems := Parse("p.yaml", []byte(text), open); problems.HasErrors() {
		t.Fatal(problems)
	}
	const more = "  - {action: allow, to: {domains: [one.example, more.example]}}\n"
	const want = "p.yaml:7:35: with these the policy has more than 1000000 domains"
	if _, problems := Parse("p.yaml", []byte(strings.Replace(text, "sets:\n", more+"sets:\n", 1)), open); problems.Error() != want {
		t.Errorf("got %v, want %s", problems, want)
	}
}

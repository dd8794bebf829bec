package policy

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// setFiles opens set files that are in the test itself.
func setFiles(files map[string]string) Opener {
	return func(path string) (io.ReadCloser, error) {
		text, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("no such file or directory")}
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

// in puts lines at the place of a rule's keys, from line 4 on.
func inRule(lines string) string {
	return "version: 1\negress:\n  default: allow\n  rules:\n  - " + strings.ReplaceAll(lines, "\n", "\n    ") + "\n"
}

// to is a rule with this `to`; its brace is at 6:9.
func inTo(to string) string { return inRule("action: drop\nto: " + to) }

// problemTest is a policy and all that is wrong with it. schema tells that the
// JSON Schema must refuse it too.
type problemTest struct {
	name   string
	text   string
	want   []string
	schema bool
}

func TestProblems(t *testing.T) {
	for _, tt := range slices.Concat(textProblems, keyProblems, typeProblems, valueProblems, matchProblems, setProblems, meantProblems, domainProblems, dnsProblems) {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			p, problems := Parse("p.yaml", []byte(tt.text), setFiles(testSetFiles))
			var got []string
			for _, problem := range problems {
				got = append(got, problem.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
			if (p == nil) != problems.HasErrors() {
				t.Errorf("policy %v beside problems %v", p, problems)
			}
		})
	}
}

var testSetFiles = map[string]string{
	"ok.txt":    "10.0.0.0/8\n",
	"bad.txt":   "10.0.0.0/8\n\n  10.0.0.1/8 # x\nfoo\n",
	"empty.txt": "# nothing\n",

	"names.txt":       "a.example\n*.b.example\n0.0.0.0 ads.example track.example # hosts\n",
	"bad-names.txt":   "a.example\n\n  *.*.example # x\nb.example c.example\n",
	"empty-names.txt": "# nothing\n0.0.0.0 0.0.0.0\n",
}

var textProblems = []problemTest{
	{name: "empty", text: "", want: []string{
		`p.yaml:1:1: the policy is empty; it begins with "version: 1"`,
	}},
	{name: "comment only", text: "# x\n", want: []string{
		`p.yaml:1:1: the policy is empty; it begins with "version: 1"`,
	}},
	{name: "null document", text: "---\n", want: []string{
		`p.yaml:2:1: a policy has no value; it wants a mapping`,
	}},
	{name: "list document", text: "- a\n", want: []string{
		`p.yaml:1:1: a policy wants a mapping, found a list`,
	}},
	{name: "two documents", text: "version: 1\n---\nversion: 1\n", want: []string{
		`p.yaml:2:1: a second YAML document begins here; one file is one policy`,
	}},
	{name: "broken second document", text: "version: 1\n---\n[\n", want: []string{
		`p.yaml:3:1: YAML: did not find expected node content`,
	}},
	{name: "too large", text: strings.Repeat("#", MaxFileBytes+1), want: []string{
		`p.yaml: the policy is larger than 128 MiB; large sets belong in set files`,
	}},
	{name: "too large to read as one", text: strings.Repeat("#", maxWhole+1), want: []string{
		`p.yaml: the policy is larger than 8 MiB beside long lists of rules; large sets belong in set files`,
	}},
	{name: "not UTF-8", text: "version: 1\nname: a\xffb\n", want: []string{
		`p.yaml:2:8: byte 0xff is not UTF-8`,
	}},
	{name: "not UTF-8 after runes", text: "# h\u00e9\xff\n", want: []string{
		`p.yaml:1:5: byte 0xff is not UTF-8`,
	}},
	{name: "UTF-16", text: "\xff\xfev\x00", want: []string{
		`p.yaml:1:1: byte 0xff is not UTF-8`,
	}},
	{name: "control character", text: "version: 1\n# \x07\n", want: []string{
		`p.yaml:2:3: the control character U+0007, which text has no use for`,
	}},
	{name: "line separator", text: "version: 1 # \u2028 x\n", want: []string{
		`p.yaml:1:14: the line separator U+2028; lines end with a newline`,
	}},
	{name: "carriage return", text: "version: 1\rname: x\n", want: []string{
		`p.yaml:1:11: a carriage return without a newline`,
	}},
	{name: "byte order mark inside", text: "version: 1 # \ufeff\n", want: []string{
		`p.yaml:1:14: a byte order mark may only stand at the beginning`,
	}},
	{name: "error after byte order mark", text: "\ufeffversion: 2\n", want: []string{
		`p.yaml:1:10: version wants 1, which is all that this version of egate reads, found 2`,
	}},
	{name: "tab", text: "version: 1\negress:\n\tdefault: drop\n", want: []string{
		`p.yaml:3:1: YAML: a tab in the indentation; indent with spaces`,
	}},
	{name: "tab after spaces", text: "version: 1\negress:\n  default: drop\n  \trules: x\n", want: []string{
		`p.yaml:4:3: YAML: a tab in the indentation; indent with spaces`,
	}},
	{name: "unclosed list", text: "version: 1\ninterfaces: [eth0, eth1\nmode: audit\n", want: []string{
		`p.yaml:3:1: YAML: did not find expected ',' or ']'`,
	}},
	{name: "unclosed quote", text: "version: 1\nname: \"web\n\n\n", want: []string{
		`p.yaml:2:1: YAML: found unexpected end of stream`,
	}},
	{name: "wrong indentation", text: "version: 1\negress:\n  default: drop\n   rules: x\n", want: []string{
		`p.yaml:4:4: YAML: mapping values are not allowed in this context`,
	}},
	{name: "list in a mapping", text: "version: 1\n- name: x\n", want: []string{
		`p.yaml:2:1: YAML: did not find expected key`,
	}},
	{name: "star", text: "version: 1\ninterfaces: [eth0, *]\n", want: []string{
		`p.yaml:2:1: YAML: did not find expected alphabetic or numeric character; a text that begins with * or & needs quotes`,
	}},
	{name: "colons in a flow list", text: inTo("{addresses: [::1, fe80::]}"), want: []string{
		`p.yaml:6:5: YAML: did not find expected node content; an address that begins or ends with a colon needs quotes`,
	}},
	{name: "colons in a block list", text: inRule("action: drop\nto:\n  addresses:\n  - fe80::\n"), want: []string{
		`p.yaml:8:9: an element of addresses wants an address, found a mapping; an address that begins or ends with a colon needs quotes`,
	}},
	{name: "anchor and alias", text: "version: 1\nsets: {a: &x {addresses: [10.0.0.0/8]}, b: *x}\n", want: []string{
		`p.yaml:2:11: the anchor &x; the policy language has none, use a set`,
		`p.yaml:2:44: the alias *x; the policy language has none, use a set`,
	}},
	{name: "merge key", text: "version: 1\negress:\n  <<: {default: drop}\n  default: allow\n", want: []string{
		`p.yaml:3:3: unknown key "<<" in egress; it can be default, replies, events or rules`,
	}},
	{name: "tag", text: "version: !!str 1\n", want: []string{
		`p.yaml:1:10: the tag "!!str"; the policy language has none`,
	}},
	{name: "deep", text: "version: 1\nname: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "\n", want: []string{
		`p.yaml:2:7: name wants a name, found a list`,
		`p.yaml:2:22: nested deeper than 16 levels`,
	}},
	{name: "deeper than YAML", text: "version: 1\nname: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "\n", want: []string{
		`p.yaml:2:1: YAML: exceeded max depth of 10000`,
	}},
}

var keyProblems = []problemTest{
	{name: "unknown key", schema: true, text: "version: 1\nmod: audit\n", want: []string{
		`p.yaml:2:1: unknown key "mod" in the policy; did you mean "mode"?`,
	}},
	{name: "unknown key, nothing near", schema: true, text: "version: 1\nfrobnicate: x\n", want: []string{
		`p.yaml:2:1: unknown key "frobnicate" in the policy; it can be version, name, interfaces, mode, sets, egress, ingress, dns or flows`,
	}},
	{name: "unknown key in rule", schema: true, text: inRule("action: drop\nprots: [80]"), want: []string{
		`p.yaml:6:5: unknown key "prots" in the rule; it can be name, action, events, verify, ech, quic, to or from`,
	}},
	{name: "unknown keys everywhere", schema: true, text: "version: 1\nsets: {a: {adresses: [10.0.0.0/8]}}\negress: {defualt: drop}\nflows: {maximum: 3}\n", want: []string{
		`p.yaml:2:12: unknown key "adresses" in set "a"; did you mean "addresses"?`,
		`p.yaml:2:12: set "a" needs addresses, file, domains or domain_file`,
		`p.yaml:3:10: unknown key "defualt" in egress; did you mean "default"?`,
		`p.yaml:3:10: egress has no default, which it needs, such as "default: drop"`,
		`p.yaml:4:9: unknown key "maximum" in flows; it can be max`,
		`p.yaml:4:9: flows has no max, which it needs, such as "max: 262144"`,
	}},
	{name: "later keys", schema: true, text: inRule("action: drop\nlimit: {rate: 1/s}\nfrom: {user: x, addresses: [10.0.0.0/8]}\nto: {set: y}") + "quota: {}\n", want: []string{
		`p.yaml:6:5: unknown key "limit" in the rule: this version of egate has no such key`,
		`p.yaml:7:12: unknown key "user" in from: this version of egate has no such key`,
		`p.yaml:8:10: unknown key "set" in to: this version of egate has no such key; did you mean "sets"?`,
		`p.yaml:9:1: unknown key "quota" in the policy: this version of egate has no such key`,
	}},
	{name: "protocols in from", schema: true, text: inRule("action: drop\nfrom: {protocols: [tcp]}"), want: []string{
		`p.yaml:6:12: unknown key "protocols" in from; it can be addresses, except, sets or ports`,
	}},
	{name: "duplicate key", text: "version: 1\nname: a\nname: b\nname: c\n", want: []string{
		`p.yaml:3:1: duplicate key "name"; it is at line 2 already`,
		`p.yaml:4:1: duplicate key "name"; it is at line 2 already`,
	}},
	{name: "duplicate key in rule", text: inRule("action: drop\naction: allow"), want: []string{
		`p.yaml:6:5: duplicate key "action"; it is at line 5 already`,
	}},
	{name: "duplicate set", text: "version: 1\nsets:\n  a: {addresses: [10.0.0.0/8]}\n  a: {addresses: [10.0.0.0/8]}\n", want: []string{
		`p.yaml:4:3: duplicate key "a"; it is at line 3 already`,
	}},
	{name: "key that is a list", text: "version: 1\n[a, b]: c\n", want: []string{
		`p.yaml:2:1: a key must be text, found a list`,
	}},
	{name: "missing version", schema: true, text: "name: x\n", want: []string{
		`p.yaml:1:1: the policy has no version, which it needs, such as "version: 1"`,
	}},
	{name: "missing default", schema: true, text: "version: 1\negress: {rules: [{action: drop}]}\n", want: []string{
		`p.yaml:2:10: egress has no default, which it needs, such as "default: drop"`,
	}},
	{name: "missing action", schema: true, text: inRule("name: x"), want: []string{
		`p.yaml:5:5: the rule has no action, which it needs, such as "action: reject"`,
	}},
	{name: "empty mappings", schema: true, text: inRule("action: drop\nto: {}\nfrom: {}") + "sets: {}\nflows: {}\n", want: []string{
		`p.yaml:6:9: to is empty; leave it out to match everything`,
		`p.yaml:7:11: from is empty; leave it out to match everything`,
		`p.yaml:8:7: sets is empty; leave the key out instead`,
		`p.yaml:9:8: flows has no max, which it needs, such as "max: 262144"`,
	}},
	{name: "texts with newlines", text: "version: 1\nsets: {\"a\\nb\": {}, c: {file: \"x\\ny\"}}\negress: {default: drop, rules: [{action: \"d\\nx\", \"e\\nf\": 1, to: {addresses: \"a\\nb\", sets: [\"z\\nz\"]}}]}\nname: !%0Ax y\n", want: []string{
		`p.yaml:2:8: the name of a set "a\nb" has a character other than letters, digits, '.', '_' and '-'`,
		`p.yaml:2:16: set "a\nb" needs addresses, file, domains or domain_file`,
		`p.yaml:2:30: open set file "x\ny": no such file or directory`,
		`p.yaml:3:42: unknown action "d\nx"; it can be allow, drop, reject or continue`,
		`p.yaml:3:50: unknown key "e\nf" in the rule; it can be name, action, events, verify, ech, quic, to or from`,
		`p.yaml:3:77: addresses wants a list, found the text "a\nb"`,
		`p.yaml:3:92: unknown set "z\nz"; it can be c`,
		`p.yaml:4:7: the tag "!\nx"; the policy language has none`,
	}},
	{name: "duplicate rule name", text: "version: 1\negress:\n  default: allow\n  rules:\n  - {name: a, action: drop}\n  - {name: b, action: drop}\n  - {name: a, action: drop}\n  - {action: drop, name: a}\n", want: []string{
		`p.yaml:7:12: duplicate rule name "a"; the rule at line 5 has it already`,
		`p.yaml:8:26: duplicate rule name "a"; the rule at line 5 has it already`,
	}},
	{name: "same rule name in both directions", text: "version: 1\negress: {default: allow, rules: [{name: a, action: drop}]}\ningress: {default: allow, rules: [{name: a, action: drop}]}\n"},
}

var typeProblems = []problemTest{
	{name: "version as text", schema: true, text: "version: \"1\"\n", want: []string{
		`p.yaml:1:10: version wants a number, found the text "1"`,
	}},
	{name: "version 2", schema: true, text: "version: 2\n", want: []string{
		`p.yaml:1:10: version wants 1, which is all that this version of egate reads, found 2`,
	}},
	{name: "version 1.0", text: "version: 1.0\n", want: []string{
		`p.yaml:1:10: version wants 1, which is all that this version of egate reads, found 1.0`,
	}},
	{name: "name that is a number", schema: true, text: "version: 1\nname: 12\n", want: []string{
		`p.yaml:2:7: name wants a name, found the number 12; write "12" in quotes`,
	}},
	{name: "name that is a date", text: "version: 1\nname: 2024-01-01\n", want: []string{
		`p.yaml:2:7: name wants a name, found the date 2024-01-01; write "2024-01-01" in quotes`,
	}},
	{name: "name that is a list", schema: true, text: "version: 1\nname: [a]\n", want: []string{
		`p.yaml:2:7: name wants a name, found a list`,
	}},
	{name: "nothing", schema: true, text: "version: 1\nname:\negress:\n", want: []string{
		`p.yaml:2:1: name has no value; it wants a name`,
		`p.yaml:3:1: egress has no value; it wants a mapping`,
	}},
	{name: "list wanted", schema: true, text: inTo("{addresses: 10.0.0.0/8, ports: 80}"), want: []string{
		`p.yaml:6:21: addresses wants a list, found the text "10.0.0.0/8"; write [10.0.0.0/8]`,
		`p.yaml:6:40: ports wants a list, found the number 80; write [80]`,
	}},
	{name: "mapping wanted", schema: true, text: "version: 1\negress: drop\n", want: []string{
		`p.yaml:2:9: egress wants a mapping, found the text "drop"`,
	}},
	{name: "rules as mapping", schema: true, text: "version: 1\negress: {default: drop, rules: {action: drop}}\n", want: []string{
		`p.yaml:2:32: rules wants a list, found a mapping`,
	}},
	{name: "rule as text", schema: true, text: "version: 1\negress: {default: drop, rules: [drop]}\n", want: []string{
		`p.yaml:2:33: an element of rules wants a mapping, found the text "drop"`,
	}},
	{name: "replies as text", schema: true, text: "version: 1\negress: {default: drop, replies: yes}\n", want: []string{
		`p.yaml:2:34: replies wants true or false, found the text "yes"; write true`,
	}},
	{name: "replies in capitals", text: "version: 1\negress: {default: drop, replies: True}\n", want: []string{
		`p.yaml:2:34: replies wants true or false, found True`,
	}},
	{name: "elements of other types", schema: true, text: inTo("{addresses: [10, true, [a], {b: c}, ], ports: [1.5, true, tcp], protocols: [~], icmp: [[8]], sets: [7]}"), want: []string{
		`p.yaml:6:22: an element of addresses wants an address, found the number 10`,
		`p.yaml:6:26: an element of addresses wants an address, found true`,
		`p.yaml:6:32: an element of addresses wants an address, found a list`,
		`p.yaml:6:37: an element of addresses wants an address, found a mapping; an address that begins or ends with a colon needs quotes`,
		`p.yaml:6:56: "1.5" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:61: an element of ports wants a port, found true`,
		`p.yaml:6:67: "tcp" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:85: an element of protocols wants a protocol, found nothing`,
		`p.yaml:6:96: an element of icmp wants an ICMP name or icmp/TYPE, found a list`,
		`p.yaml:6:109: an element of sets wants a name, found the number 7; write "7" in quotes`,
	}},
	{name: "empty lists", schema: true, text: "version: 1\ninterfaces: []\negress: {default: allow, rules: []}\ningress: {default: allow, rules: [{action: drop, to: {addresses: [], ports: []}}]}\n", want: []string{
		`p.yaml:2:13: interfaces is an empty list; leave the key out instead`,
		`p.yaml:3:33: rules is an empty list; leave the key out instead`,
		`p.yaml:4:66: addresses is an empty list; leave the key out instead`,
		`p.yaml:4:77: ports is an empty list; leave the key out instead`,
	}},
}

var valueProblems = []problemTest{
	{name: "unknown action", schema: true, text: inRule("action: dorp"), want: []string{
		`p.yaml:5:13: unknown action "dorp"; did you mean "drop"?`,
	}},
	{name: "unknown action, nothing near", schema: true, text: inRule("action: tarpit"), want: []string{
		`p.yaml:5:13: unknown action "tarpit"; it can be allow, drop, reject or continue`,
	}},
	{name: "default continue", schema: true, text: "version: 1\negress: {default: continue}\n", want: []string{
		`p.yaml:2:19: unknown default "continue"; it can be allow, drop or reject`,
	}},
	{name: "unknown mode", schema: true, text: "version: 1\nmode: Audit\n", want: []string{
		`p.yaml:2:7: unknown mode "Audit"; did you mean "audit"?`,
	}},
	{name: "names", schema: true, text: "version: 1\nname: \"a b\"\nsets: {\"\": {addresses: [10.0.0.1]}, \"x\\ty\": {addresses: [10.0.0.1]}}\negress: {default: drop, rules: [{name: \"\", action: drop}, {name: " + strings.Repeat("n", 64) + ", action: drop}, {name: h\u00e9, action: drop}]}\n", want: []string{
		`p.yaml:2:7: name "a b" has a character other than letters, digits, '.', '_' and '-'`,
		`p.yaml:3:8: the name of a set is empty; leave the key out instead`,
		`p.yaml:3:37: the name of a set "x\ty" has a character other than letters, digits, '.', '_' and '-'`,
		`p.yaml:4:40: name is empty; leave the key out instead`,
		`p.yaml:4:66: name "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"... is longer than 63 bytes`,
		`p.yaml:4:154: name "hé" has a character other than letters, digits, '.', '_' and '-'`,
	}},
	{name: "interfaces", schema: true, text: "version: 1\ninterfaces: [eth0, \"a b\", \"eth[0\", sixteen-letters0, ., a/b, \"\", wg*, \"en[a-z]?\", eth0, a:b, \"\\\\*\"]\n", want: []string{
		`p.yaml:2:20: interface "a b" has a space, '/', ':' or '\', which no interface name has`,
		`p.yaml:2:27: interface "eth[0" is not a pattern; it wants *, ? or a closed [...]`,
		`p.yaml:2:36: interface "sixteen-letters0" is longer than the 15 bytes of an interface name`,
		`p.yaml:2:54: interface "." is a name that the kernel refuses`,
		`p.yaml:2:57: interface "a/b" has a space, '/', ':' or '\', which no interface name has`,
		`p.yaml:2:62: interface "" is empty`,
		`p.yaml:2:83: warning: interface eth0 is listed twice`,
		`p.yaml:2:89: interface "a:b" has a space, '/', ':' or '\', which no interface name has`,
		`p.yaml:2:94: interface "\\*" has a space, '/', ':' or '\', which no interface name has`,
	}},
	{name: "host bits", text: inTo("{addresses: [10.0.0.1/8, \"2001:db8::1/32\"]}"), want: []string{
		`p.yaml:6:22: "10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8`,
		`p.yaml:6:34: "2001:db8::1/32" has host bits set; the prefix is 2001:db8::/32`,
	}},
	{name: "addresses", schema: true, text: inTo("{addresses: [example.com, any, 10.0.0.0/33, 10.0.0.300, 10.0.0.9-10.0.0.1], except: [nope]}"), want: []string{
		`p.yaml:6:22: "example.com" is not an address; names belong in domains, of to or of a set`,
		`p.yaml:6:35: "any" is not an address; every address is 0.0.0.0/0 and ::/0`,
		`p.yaml:6:40: "10.0.0.0/33" has a prefix length above 32`,
		`p.yaml:6:53: "10.0.0.300" has a part above 255`,
		`p.yaml:6:65: "10.0.0.9-10.0.0.1" is a range that ends before it begins`,
		`p.yaml:6:94: "nope" is not an address`,
	}},
	{name: "ports", schema: true, text: inTo("{ports: [70000, -1, 0x50, 080, 1_0, 9000-8000, tcp/70000, icmp/8, http, tcp/, 80-, 1-2-3]}"), want: []string{
		`p.yaml:6:18: "70000" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:25: "-1" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:29: "0x50" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:35: "080" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:40: "1_0" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:45: "9000-8000" is a range that ends before it begins`,
		`p.yaml:6:56: "tcp/70000" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:67: "icmp/8" does not begin with tcp/, udp/ or sctp/, the protocols with ports`,
		`p.yaml:6:75: "http" is not a port or range of ports; ports are whole numbers from 0 to 65535; http is 80`,
		`p.yaml:6:81: "tcp/" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:87: "80-" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
		`p.yaml:6:92: "1-2-3" is not a port or range of ports; ports are whole numbers from 0 to 65535`,
	}},
	{name: "protocols", schema: true, text: inTo("{protocols: [tpc, 256, icmp6, -1, \"\"]}"), want: []string{
		`p.yaml:6:22: "tpc" is not a protocol that egate knows by name; a number from 0 to 255 also is; did you mean "tcp"?`,
		`p.yaml:6:27: "256" is not a protocol number from 0 to 255`,
		`p.yaml:6:32: "icmp6" is not a protocol that egate knows by name; a number from 0 to 255 also is; did you mean "icmpv6"?`,
		`p.yaml:6:39: "-1" is not a protocol that egate knows by name; a number from 0 to 255 also is`,
		`p.yaml:6:43: "" is not a protocol that egate knows by name; a number from 0 to 255 also is`,
	}},
	{name: "icmp", schema: true, text: inTo("{icmp: [8, echo-reqest, icmp/256, icmp/3/256, icmp6/1, ping, icmp/, 3/4]}"), want: []string{
		`p.yaml:6:17: "8" does not say which family it is of, and ICMP and ICMPv6 number their types differently; write icmp/8 or icmpv6/8, or a name`,
		`p.yaml:6:20: "echo-reqest" is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are; did you mean "echo-request"?`,
		`p.yaml:6:33: "icmp/256" is not an ICMP message; types and codes are whole numbers from 0 to 255`,
		`p.yaml:6:43: "icmp/3/256" is not an ICMP message; types and codes are whole numbers from 0 to 255`,
		`p.yaml:6:55: "icmp6/1" is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are`,
		`p.yaml:6:64: "ping" is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are; did you mean "echo-request"?`,
		`p.yaml:6:70: "icmp/" is not an ICMP message; types and codes are whole numbers from 0 to 255`,
		`p.yaml:6:77: "3/4" is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are`,
	}},
	{name: "events", schema: true, text: inRule("action: drop\nevents: 10/d") + "ingress: {default: drop, events: 0/s}\n", want: []string{
		`p.yaml:6:13: events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to 1000000, found "10/d"`,
		`p.yaml:7:34: events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to 1000000, found "0/s"`,
	}},
	{name: "event rates", text: "version: 1\negress: {default: drop, events: 2000000/s, rules: [{action: drop, events: 10}, {action: drop, events: some}, {action: drop, events: 10/s/s}]}\n", want: []string{
		`p.yaml:2:33: events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to 1000000, found "2000000/s"`,
		`p.yaml:2:75: events wants none, all or a rate such as 10/s, found the number 10`,
		`p.yaml:2:103: events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to 1000000, found "some"`,
		`p.yaml:2:133: events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to 1000000, found "10/s/s"`,
	}},
	{name: "flows", schema: true, text: "version: 1\nflows: {max: 10}\n", want: []string{
		`p.yaml:2:14: max wants a whole number from 1024 to 16777216, found 10`,
	}},
	{name: "flows too large", schema: true, text: "version: 1\nflows: {max: 99999999999999999999}\n", want: []string{
		`p.yaml:2:14: max wants a whole number from 1024 to 16777216, found 99999999999999999999`,
	}},
	{name: "extension headers as protocols", text: inTo("{protocols: [ah, 43]}"), want: []string{
		`p.yaml:6:22: warning: ah is an extension header, which egate reads past: no packet matches it`,
		`p.yaml:6:26: warning: 43 is an extension header, which egate reads past: no packet matches it`,
	}},
	{name: "one family's ICMP", text: inTo("{protocols: [icmp]}"), want: []string{
		`p.yaml:6:22: warning: icmp is IPv4's alone, and no rule of egress speaks of icmpv6`,
	}},
	{name: "the other family's ICMP", text: inTo("{protocols: [icmpv6]}"), want: []string{
		`p.yaml:6:22: warning: icmpv6 is IPv6's alone, and no rule of egress speaks of icmp`,
	}},
	{name: "one family's ICMP with addresses", text: inTo("{protocols: [icmp], addresses: [10.0.0.0/8]}")},
}

var matchProblems = []problemTest{
	{name: "ports and icmp", schema: true, text: inTo("{ports: [80], icmp: [echo-request]}"), want: []string{
		`p.yaml:6:29: the rule can never match: no packet has both ports and an ICMP type`,
	}},
	{name: "protocols without ports", text: inTo("{ports: [80], protocols: [icmp, icmpv6]}"), want: []string{
		`p.yaml:6:34: the rule can never match: protocols and ports have no protocol in common`,
	}},
	{name: "protocols of other ports", text: inTo("{ports: [tcp/80], protocols: [udp]}"), want: []string{
		`p.yaml:6:38: the rule can never match: protocols and ports have no protocol in common`,
	}},
	{name: "protocols of other icmp", text: inTo("{protocols: [tcp], icmp: [echo-request]}"), want: []string{
		`p.yaml:6:34: the rule can never match: protocols and icmp have no protocol in common`,
	}},
	{name: "partly without effect", text: inTo("{ports: [tcp/80, udp/53], protocols: [tcp, gre]}"), want: []string{
		`p.yaml:6:26: warning: udp/53 has no effect: its protocol is not in protocols`,
		`p.yaml:6:52: warning: gre has no effect: ports asks for other protocols`,
	}},
	{name: "icmp partly without effect", text: inTo("{icmp: [icmp/8, redirect], protocols: [icmpv6]}"), want: []string{
		`p.yaml:6:17: warning: icmp/8 has no effect: its protocol is not in protocols`,
		`p.yaml:6:48: warning: icmpv6 is IPv6's alone, and no rule of egress speaks of icmp`,
	}},
	{name: "except takes all", text: inTo("{addresses: [10.0.0.0/8], except: [10.0.0.0/9, 10.128.0.0/9]}"), want: []string{
		`p.yaml:6:43: the rule can never match: except takes out every address of to`,
	}},
	{name: "except takes everything", text: inTo("{except: [0.0.0.0/0, \"::/0\"]}"), want: []string{
		`p.yaml:6:18: the rule can never match: except takes out every address of to`,
	}},
	{name: "addresses outside of the set", text: inTo("{addresses: [192.0.2.1], sets: [a]}") + "sets: {a: {addresses: [10.0.0.0/8]}}\n", want: []string{
		`p.yaml:6:40: the rule can never match: to has no address that is in both addresses and sets`,
	}},
	{name: "families", text: inRule("action: drop\nto: {addresses: [10.0.0.1]}\nfrom: {addresses: [\"::1\"]}"), want: []string{
		`p.yaml:7:11: the rule can never match: to and from have no address family in common`,
	}},
	{name: "ports of other protocols", text: inRule("action: drop\nfrom: {ports: [udp/53]}\nto: {ports: [tcp/80]}"), want: []string{
		`p.yaml:6:11: the rule can never match: from asks for ports of protocols that to does not have`,
	}},
}

var setProblems = []problemTest{
	{name: "unknown set", text: inTo("{sets: [ofice, zzzzz]}") + "sets: {office: {addresses: [10.0.0.0/8]}}\n", want: []string{
		`p.yaml:6:17: unknown set "ofice"; did you mean "office"?`,
		`p.yaml:6:24: unknown set "zzzzz"; it can be office`,
	}},
	{name: "no sets", text: inTo("{sets: [office]}"), want: []string{
		`p.yaml:6:17: unknown set "office"; the policy has no sets`,
	}},
	{name: "unused set", text: "version: 1\nsets:\n  office: {addresses: [10.0.0.0/8]}\n", want: []string{
		`p.yaml:3:3: warning: set office is not used by any rule`,
	}},
	{name: "set with both", schema: true, text: "version: 1\nsets:\n  a: {addresses: [10.0.0.0/8], file: ok.txt}\n  b: {}\n", want: []string{
		`p.yaml:3:7: set "a" needs only one of addresses and file`,
		`p.yaml:4:6: set "b" needs addresses, file, domains or domain_file`,
	}},
	{name: "set file missing", text: "version: 1\nsets:\n  a: {file: nope.txt}\n  b: {file: \"\"}\n", want: []string{
		`p.yaml:3:13: open set file "nope.txt": no such file or directory`,
		`p.yaml:4:13: file wants a path, found an empty text`,
	}},
	{name: "set file malformed", text: "version: 2\nsets:\n  a: {file: bad.txt}\n", want: []string{
		`p.yaml:1:10: version wants 1, which is all that this version of egate reads, found 2`,
		`bad.txt:3:3: "10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8`,
		`bad.txt:4:1: "foo" is not an address`,
	}},
	{name: "set file empty", text: "version: 1\nsets:\n  a: {file: empty.txt}\n", want: []string{
		`p.yaml:3:13: set file "empty.txt" has no address in it`,
	}},
	{name: "bad element of a set", text: "version: 1\nsets:\n  a: {addresses: [10.0.0.0/8, x]}\n" + strings.TrimPrefix(inTo("{sets: [a], except: [10.0.0.0/8]}"), "version: 1\n"), want: []string{
		`p.yaml:3:31: "x" is not an address`,
	}},
	{name: "set named by a number", text: "version: 1\nsets: {1: {addresses: [10.0.0.1]}}\n", want: []string{
		`p.yaml:2:8: the name of a set wants a name, found the number 1; write "1" in quotes`,
	}},
	{name: "set named twice", text: inTo("{sets: [a, a]}") + "sets: {a: {addresses: [10.0.0.0/8]}}\n"},
}

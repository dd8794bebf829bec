package policy

import (
	"fmt"
	"regexp"

	"egate/internal/domain"
)

// The language of policy files, as a table. The reader checks keys and types
// against it, and the JSON Schema and the reference are printed from it.

// object is a mapping with known keys.
type object struct {
	name string // what messages and the schema call it
	doc  string
	keys []key

	exactlyOne []string // keys of which one must be given
	apart      []string // keys that no packet can meet together
	nonEmpty   bool     // at least one key

	elsewhere map[string]string // keys that are none here, and where they belong
}

// key is one key of an object.
type key struct {
	name     string
	required bool
	shape    shape
	absent   string // what holds where the key is not given
	doc      string
	example  string // YAML, at the object's own indentation
}

// kind is what YAML node a value must be.
type kind uint8

const (
	scalar  kind = iota
	list         // of
	section      // object
	named        // names of the user's choice, each with a value like of
)

// shape is what a value may be. A scalar is one of the words, text like
// pattern, true or false, or a whole number from min to max, as far as each is
// given.
type shape struct {
	kind    kind
	what    string // what messages call the value: "an address"
	words   []string
	pattern string // for the schema; the reader knows better
	like    *regexp.Regexp
	number  bool
	min     int
	max     int
	boolean bool

	explains bool // a number reaches the key's reader, which says why it is wrong
	of       *shape
	object   *object
	maxItems int // 0: no limit
}

const namePattern = `^[A-Za-z0-9._-]{1,63}$`

func listOf(s shape) shape         { return shape{kind: list, what: "a list", of: &s} }
func sectionOf(o *object) shape    { return shape{kind: section, what: "a mapping", object: o} }
func wordOf(words ...string) shape { return shape{what: orList(words), words: words} }
func textLike(what, p string) shape {
	return shape{what: what, pattern: p, like: regexp.MustCompile(p)}
}

var (
	nameShape      = textLike("a name", namePattern)
	addressShape   = textLike("an address", `^[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*(/[0-9]{1,3}|-[0-9A-Fa-f:.]+)?$`)
	serverShape    = textLike("an address", `^[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*$`)
	domainShape    = textLike("a domain", `^(\*\.)?[^\x00-\x2c/:-@\x5b-\x5e\x60\x7b-\x7f]+$`)
	typeShape      = shape{what: "a type such as A or TYPE65", words: typeNames(), pattern: `^TYPE[1-9][0-9]{0,4}$`, explains: true}
	rateShape      = textLike("a rate such as 50/s", `^[1-9][0-9]{0,6}/[smh]$`)
	interfaceShape = textLike("an interface", `^[^/:\s\\]{1,63}$`)
	eventsShape    = textLike("none, all or a rate such as 10/s", `^(none|all|[1-9][0-9]{0,6}/[smh])$`)
	pathShape      = textLike("a path", `^.+$`)
	portShape      = shape{what: "a port", pattern: `^((tcp|udp|sctp)/)?[0-9]{1,5}(-[0-9]{1,5})?$`, number: true, max: 65535}
	protocolShape  = shape{what: "a protocol", words: protocolNames(), pattern: `^[0-9]{1,3}$`, number: true, max: 255}
	icmpShape      = shape{what: "an ICMP name or icmp/TYPE", words: icmpNames(), pattern: `^icmp(v6)?/[0-9]{1,3}(/[0-9]{1,3})?$`, explains: true}
)

var policyKeys = &object{
	name: "policy",
	doc:  "One file is one policy.",
	keys: []key{
		{name: "version", required: true, shape: shape{what: "a number", number: true, min: 1, max: 1},
			doc: "The version of this language. It is 1.", example: "version: 1"},
		{name: "name", shape: nameShape,
			doc: "What status and events call the policy.", example: "name: web-server"},
		{name: "interfaces", shape: listOf(interfaceShape), absent: "[default]",
			doc:     "The interfaces that the policy guards: names of at most 15 bytes, patterns with `*`, `?` and `[...]`, or `default`, the interfaces that carry a default route (that of a VPN, while it is the way out: name the interface below it to guard that). A pattern that begins with `*` needs quotes.",
			example: "interfaces: [eth0, \"wg*\"]"},
		{name: "mode", shape: wordOf("enforce", "audit"), absent: "enforce",
			doc: "`audit` decides, counts and reports, but lets everything pass.", example: "mode: audit"},
		{name: "sets", shape: shape{kind: named, what: "a mapping", of: new(sectionOf(setKeys))},
			doc:     "Sets of addresses or of domains, each under a name that rules can use. A set that no rule uses is a warning.",
			example: "sets:\n  office: {addresses: [10.0.0.0/8, 2001:db8::/32]}\n  threats: {file: threats.txt}\n  mirrors: {domains: [deb.example.org, \"*.cdn.example.org\"]}"},
		{name: "egress", shape: sectionOf(chainKeys), absent: "everything is allowed",
			doc:     "What may leave through the interfaces.",
			example: "egress:\n  default: drop\n  rules:\n    - {name: web, action: allow, to: {ports: [tcp/443]}}"},
		{name: "ingress", shape: sectionOf(chainKeys), absent: "everything is allowed",
			doc: "What may come in through the interfaces.", example: "ingress: {default: allow}"},
		{name: "dns", shape: sectionOf(dnsKeys), absent: "as `dns: {}` where a rule of egress has domains; else DNS is traffic like any other",
			doc:     "Whose DNS answers open names, and what may be asked. With it, DNS with these servers passes where no rule decides about it, even if the default is not allow.",
			example: "dns: {servers: [10.0.0.53, \"2001:db8::53\"], names: listed}"},
		{name: "flows", shape: sectionOf(flowsKeys),
			doc: "The table that recognises replies.", example: "flows: {max: 65536}"},
	},
}

var setKeys = &object{
	name:       "set",
	doc:        "A set of addresses or of domains, written here or in a file of its own.",
	exactlyOne: []string{"addresses", "file", "domains", "domain_file"},
	keys: []key{
		{name: "addresses", shape: listOf(addressShape),
			doc: "Addresses, prefixes and ranges a-b, IPv4 and IPv6 alike.", example: "addresses: [10.0.0.0/8, 192.0.2.10-192.0.2.19, 2001:db8::/32]"},
		{name: "file", shape: pathShape,
			doc:     fmt.Sprintf("A file with one address, prefix or range a line; `#` begins a comment. The path is relative to the folder of the policy file. At most %d elements; a file without any is an error, so that a feed that failed does not empty a set unseen.", maxSetEntries),
			example: "file: threats.txt"},
		{name: "domains", shape: listOf(domainShape),
			doc: "Domains, as in `to`.", example: `domains: [deb.example.org, "*.cdn.example.org"]`},
		{name: "domain_file", shape: pathShape,
			doc:     fmt.Sprintf("A file with one domain a line, as in `to`; `#` begins a comment. Lines of hosts files, `0.0.0.0 ads.example`, are read too, and their addresses say nothing. The path is relative to the folder of the policy file. At most %d domains in the whole policy; a file without any is an error.", MaxDomains),
			example: "domain_file: names.txt"},
	},
}

var chainKeys = &object{
	name: "chain",
	doc:  "The rules of one direction.",
	keys: []key{
		{name: "default", required: true, shape: wordOf("allow", "drop", "reject"),
			doc: "What happens to a packet that no rule decides.", example: "default: drop"},
		{name: "replies", shape: shape{what: "true or false", boolean: true}, absent: "true",
			doc:     "Whether packets of a connection that the other side opened pass where the default is not allow, and ICMP errors about it.",
			example: "replies: false"},
		{name: "events", shape: eventsShape, absent: "10/s where the default is drop or reject, else none",
			doc: "How many of the packets that no rule decides become events.", example: "events: 1/s"},
		{name: "rules", shape: shape{kind: list, what: "a list", of: new(sectionOf(ruleKeys)), maxItems: MaxRules},
			doc:     fmt.Sprintf("The rules, in order. At most %d in the file, %d once those without a name are merged, and at most %d with the action continue.", MaxRules, MaxMergedRules, MaxContinueRules),
			example: "rules:\n  - {name: no-ping, action: reject, to: {icmp: [echo-request]}}"},
	},
}

var ruleKeys = &object{
	name: "rule",
	doc:  "A rule without `to` and `from` matches every IP packet.",
	elsewhere: map[string]string{
		"domains": "domains belong in to",
	},
	keys: []key{
		{name: "name", shape: nameShape, absent: "the rule's place, as #3, and it may be merged with its neighbours",
			doc: "What counters and events call the rule. A rule with a name has counters of its own, which go on over policies. No two rules of a direction share one, and none is called `default`.", example: "name: no-ping"},
		{name: "action", required: true, shape: wordOf("allow", "drop", "reject", "continue"),
			doc: "What happens to a packet that matches. `continue` counts it and goes on with the next rule.", example: "action: reject"},
		{name: "events", shape: eventsShape, absent: "10/s for drop and reject, none for allow and continue",
			doc:     "How many matching packets become events: `none`, `all`, or a rate a second, minute or hour such as `10/s`, `5/m`, `1/h`. The number is also how many may come at once.",
			example: "events: 5/m"},
		{name: "verify", shape: wordOf("sni", "none"), absent: "for rules with domains, connections to tcp/443 and tcp/80 as with `sni`, others as with `none`",
			doc:     "Whether a TCP connection that the rule lets begin must say one of the rule's domains: as the server name of its TLS ClientHello or as the Host of its HTTP request. `sni` asks that of every TCP port; a connection that begins with anything else is reset then. Only in allow rules of egress with domains.",
			example: "verify: sni"},
		{name: "ech", shape: wordOf("allow", "drop"), absent: "allow",
			doc:     "Whether a ClientHello may have a second one in it that only the server can read (ECH). With `drop` such a connection is reset. Only in allow rules of egress with domains.",
			example: "ech: drop"},
		{name: "quic", shape: wordOf("allow", "drop"), absent: "allow",
			doc:     "Whether udp/443 passes. QUIC hides its server name from egate; with `drop` it is rejected, and clients fall back to TCP. Only in allow rules of egress with domains.",
			example: "quic: drop"},
		{name: "to", shape: sectionOf(toKeys), absent: "any destination",
			doc: "The packet's destination, in both directions.", example: "to: {addresses: [192.0.2.0/24], ports: [tcp/443]}"},
		{name: "from", shape: sectionOf(fromKeys), absent: "any source",
			doc: "The packet's source, in both directions.", example: "from: {addresses: [10.0.0.0/8]}"},
	},
}

var toKeys = &object{
	name:     "to",
	doc:      "Every key given must match.",
	nonEmpty: true,
	apart:    []string{"ports", "icmp"},
	elsewhere: map[string]string{
		"verify": "it belongs in the rule, beside to",
		"ech":    "it belongs in the rule, beside to",
		"quic":   "it belongs in the rule, beside to",
	},
	keys: append(addressKeys("destination", ", either all of addresses or all of domains"),
		key{name: "domains", shape: listOf(domainShape),
			doc:     "Domains: a name, or `*.` and a name for all names below it at any depth but not itself. The destination is an address that one of them resolved to. Together with `addresses`, `except` or sets of addresses both must hold. Not together with sets of domains. Only in egress.",
			example: `domains: [registry.example.com, "*.cdn.example.com"]`},
		key{name: "protocols", shape: listOf(protocolShape),
			doc: "IP protocols, by name or number. `icmp` is IPv4's alone, `icmpv6` IPv6's.", example: "protocols: [udp, gre, 112]"},
		key{name: "ports", shape: listOf(portShape),
			doc: "Destination ports and ranges of them, of TCP, UDP and SCTP unless the protocol is written before.", example: "ports: [53, tcp/443, udp/443, 8000-8999]"},
		key{name: "icmp", shape: listOf(icmpShape),
			doc:     "ICMP messages: by a name, which means the same for ICMP and ICMPv6, or as `icmp/TYPE`, `icmp/TYPE/CODE`, `icmpv6/TYPE`, `icmpv6/TYPE/CODE`. Not together with `ports`: no packet has both.",
			example: "icmp: [echo-request, icmp/13, icmpv6/1/4]"},
	),
}

var fromKeys = &object{
	name:     "from",
	doc:      "Every key given must match.",
	nonEmpty: true,
	elsewhere: map[string]string{
		"domains": "a source is known by its address only; domains belong in to",
	},
	keys: append(addressKeys("source", " of addresses"),
		key{name: "ports", shape: listOf(portShape),
			doc: "Source ports, written like destination ports.", example: "ports: [udp/123]"},
	),
}

// addressKeys are the keys that `to` and `from` share; kinds says what sets
// they take.
func addressKeys(end, kinds string) []key {
	return []key{
		{name: "addresses", shape: listOf(addressShape),
			doc: "Addresses, prefixes and ranges a-b that the " + end + " is one of. Host bits set in a prefix are an error. A text that begins or ends with a colon needs quotes in YAML.", example: `addresses: [192.0.2.1, 10.0.0.0/8, 198.51.100.7-198.51.100.9, "fe80::/10"]`},
		{name: "except", shape: listOf(addressShape),
			doc: "Addresses that are taken out again: of `addresses` and `sets`, or of all addresses where neither is given. Name addresses of both families then: one that names only IPv4 addresses leaves all of IPv6.", example: "except: [10.0.0.53]"},
		{name: "sets", shape: listOf(nameShape),
			doc: "Names of sets" + kinds + "; the " + end + " is in one of them. Together with `addresses` it must be in both.", example: "sets: [threats]"},
	}
}

var flowsKeys = &object{
	name: "flows",
	doc:  "Connections that the other side opened are remembered here, the least recently seen give way.",
	keys: []key{
		{name: "max", required: true, shape: shape{what: "a number", number: true, min: MinFlows, max: MaxFlows},
			doc: fmt.Sprintf("How many connections are remembered; %d where `flows` is absent.", DefaultFlows), example: "max: 262144"},
	},
}

var dnsKeys = &object{
	name: "dns",
	doc:  "What the policy says of DNS itself. An empty mapping is allowed: every key has a value if absent.",
	keys: []key{
		{name: "servers", shape: shape{kind: list, what: "a list", of: &serverShape, maxItems: MaxServers}, absent: "those that the host uses when the policy is applied, local stubs on loopback with their upstream servers included",
			doc:     fmt.Sprintf("The resolvers whose answers open names, at most %d addresses.", MaxServers),
			example: `servers: [10.0.0.53, "2001:db8::53"]`},
		{name: "names", shape: wordOf("any", "listed"), absent: "any",
			doc:     "Which names the servers may be asked for: `any`, or those that an allow rule of egress lists. With `listed` other questions are answered at once and do not leave.",
			example: "names: listed"},
		{name: "refuse", shape: wordOf("refused", "nxdomain"), absent: "refused",
			doc:     "How they are answered: REFUSED, which says that it was forbidden, or NXDOMAIN, at which programs stop trying. Only with `names: listed`.",
			example: "refuse: nxdomain\nnames: listed"},
		{name: "types", shape: listOf(typeShape), absent: "all",
			doc: "Types of questions that may be asked, by name or as `TYPE65`. Types above 255, such as CAA, are not told apart.", example: "types: [A, AAAA, HTTPS]"},
		{name: "max_label", shape: shape{what: "a number", number: true, min: 1, max: domain.MaxLabel}, absent: fmt.Sprint(domain.MaxLabel),
			doc: "The longest label, in bytes, that a question may have. Data that is smuggled out in names needs long ones.", example: "max_label: 40"},
		{name: "rate", shape: rateShape, absent: "any number",
			doc: "How many questions may be asked, of the whole gate: a number a second, minute or hour. The number is also how many may come at once.", example: "rate: 50/s"},
		{name: "elsewhere", shape: wordOf("allow", "drop", "reject"), absent: "allow, which leaves it to the rules",
			doc:     "What happens to DNS around these servers: DNS (port 53) to others, DNS over TLS and QUIC (port 853) to any, DNS over HTTPS (port 443) to well known resolvers. It is decided before any rule.",
			example: "elsewhere: reject"},
	},
}

// objects lists all of the table, outermost first.
var objects = []*object{policyKeys, setKeys, chainKeys, ruleKeys, toKeys, fromKeys, dnsKeys, flowsKeys}

// laterKeys are keys of the language's design that no version has yet; who
// copies one from a plan deserves a better sentence than "unknown".
var laterKeys = map[string]bool{
	"user": true, "unit": true, "process": true, "cgroup": true, "limit": true,
	"shape": true, "set": true, "quota": true,
}

// find gives the key of a name, or nil.
func (o *object) find(name string) *key {
	for i := range o.keys {
		if o.keys[i].name == name {
			return &o.keys[i]
		}
	}
	return nil
}

func (o *object) names() []string {
	out := make([]string, len(o.keys))
	for i := range o.keys {
		out[i] = o.keys[i].name
	}
	return out
}

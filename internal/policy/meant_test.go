package policy

// meantProblems are policies as people write them who come from other tools.
var meantProblems = []problemTest{
	{name: "actions of iptables", text: "version: 1\negress:\n  default: DROP\n  rules:\n  - {action: ACCEPT}\n  - {action: deny}\n  - {action: log}\n", schema: true, want: []string{
		`p.yaml:3:12: unknown default "DROP"; did you mean "drop"?`,
		`p.yaml:5:14: unknown action "ACCEPT"; did you mean "allow"?`,
		`p.yaml:6:14: unknown action "deny"; did you mean "drop"?`,
		`p.yaml:7:14: unknown action "log"; did you mean "continue"?`,
	}},
	{name: "a default that goes on", text: "version: 1\negress: {default: log}\n", want: []string{
		`p.yaml:2:19: unknown default "log"; it can be allow, drop or reject`,
	}},
	{name: "ports of other tools", text: inTo(`{ports: [443/tcp, "udp:53", "8000:8999", "tcp/80:90", tcp/https, "80,443", "*"]}`), want: []string{
		`p.yaml:6:18: "443/tcp" does not begin with tcp/, udp/ or sctp/, the protocols with ports; write tcp/443`,
		`p.yaml:6:27: "udp:53" is not a port or range of ports; ports are whole numbers from 0 to 65535; write udp/53`,
		`p.yaml:6:37: "8000:8999" is not a port or range of ports; ports are whole numbers from 0 to 65535; write 8000-8999`,
		`p.yaml:6:50: "tcp/80:90" is not a port or range of ports; ports are whole numbers from 0 to 65535; write tcp/80-90`,
		`p.yaml:6:63: "tcp/https" is not a port or range of ports; ports are whole numbers from 0 to 65535; tcp/https is tcp/443`,
		`p.yaml:6:74: "80,443" is not a port or range of ports; ports are whole numbers from 0 to 65535; each port is an element of its own`,
		`p.yaml:6:84: "*" is not a port or range of ports; ports are whole numbers from 0 to 65535; every port is 0-65535`,
	}},
	{name: "addresses of other tools", text: inTo(`{addresses: [10.0.0.0/255.0.0.0, 10.0.0.0/255.0.255.0, "*", "*.example.com", dead.beef]}`), want: []string{
		`p.yaml:6:22: "10.0.0.0/255.0.0.0" has a prefix length that is not a number; write /8`,
		`p.yaml:6:42: "10.0.0.0/255.0.255.0" has a prefix length that is not a number`,
		`p.yaml:6:64: "*" is not an address; every address is 0.0.0.0/0 and ::/0`,
		`p.yaml:6:69: "*.example.com" is not an address; names belong in domains, of to or of a set`,
		`p.yaml:6:86: "dead.beef" is not an address; names belong in domains, of to or of a set`,
	}},
	{name: "protocols of other tools", text: inTo(`{protocols: [any, ip, ipv6-icmp, TCP]}`), want: []string{
		`p.yaml:6:22: "any" is not a protocol that egate knows by name; a number from 0 to 255 also is; leave protocols out to mean every protocol`,
		`p.yaml:6:27: "ip" is not a protocol that egate knows by name; a number from 0 to 255 also is; leave protocols out to mean every protocol`,
		`p.yaml:6:31: "ipv6-icmp" is not a protocol that egate knows by name; a number from 0 to 255 also is; did you mean "icmpv6"?`,
		`p.yaml:6:42: "TCP" is not a protocol that egate knows by name; a number from 0 to 255 also is; did you mean "tcp"?`,
	}},
	{name: "every ICMP message", text: inTo(`{icmp: [any]}`), want: []string{
		`p.yaml:6:17: "any" is not an ICMP message that egate knows by name; icmp/TYPE and icmpv6/TYPE also are; write protocols: [icmp, icmpv6] to mean every message`,
	}},
	{name: "a pattern without quotes", text: "version: 1\nname: x # *th0\ninterfaces: [eth0, *th0]\negress: {default: drop}\n", want: []string{
		`p.yaml:3:20: the alias *th0; the policy language has none, and a text that begins with * needs quotes`,
	}},
	{name: "a rule called default", text: inRule("name: default\naction: drop"), want: []string{
		`p.yaml:5:11: a rule cannot be called default: events call so what no rule decides`,
	}},
	{name: "except without IPv6", text: inTo(`{except: [10.0.0.0/8]}`), want: []string{
		`p.yaml:6:18: warning: except names no IPv6 address, so every IPv6 address matches`,
	}},
	{name: "except without IPv4", text: inRule("action: drop\nfrom: {except: [\"fd00::/8\"]}"), want: []string{
		`p.yaml:6:20: warning: except names no IPv4 address, so every IPv4 address matches`,
	}},
	{name: "except of one family where addresses say which", text: inTo(`{addresses: [0.0.0.0/0], except: [10.0.0.0/8]}`)},
	{name: "except of both families", text: inTo(`{except: [10.0.0.0/8, "fc00::/7"]}`)},
}

package e2e

import (
	"testing"
)

// attempt is a probe to the server's address of both families.
type attempt struct {
	probe probe
	want  outcome
}

// TestTools: ping, curl, nc and dig against one policy after the other. What a
// policy stops is stopped for IPv4 and IPv6 alike, so every number below that
// counts packets of the client is twice that of one family.
func TestTools(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	server := p.server.Netns
	serveHTTP(t, server, 80, 8080)
	serveSink(t, server, 9)
	serveEcho(t, server, 7)
	serveDNS(t, server)
	e := newEgate(t, p.client.Netns)

	for _, c := range []struct {
		name     string
		policy   string
		attempts []attempt
		want     counts
	}{
		{
			name:     "ping dropped",
			policy:   egress("allow", `name: no-ping, action: drop, to: {icmp: [echo-request]}`),
			attempts: []attempt{{ping(2), silent}, {echo(7, 100), passes}},
			want: counts{
				"egress no-ping dropped": 4, "egress: rule": 4, // 2 requests
				"egress default allowed": 2, "egress: default": 2, // 1 datagram
				"ingress default allowed": 2, "ingress: default": 2, // and it comes back
			},
		},
		{
			name:     "ping rejected",
			policy:   egress("allow", `name: no-ping, action: reject, to: {icmp: [echo-request]}`),
			attempts: []attempt{{ping(1), refused}},
			want: counts{
				"egress no-ping rejected": 2, "egress: rule": 2, // 1 request
				"ingress: own-answer": 2, // and its answer
			},
		},
		{
			name:     "only ping allowed",
			policy:   egress("drop", `name: ping, action: allow, to: {icmp: [echo-request]}`),
			attempts: []attempt{{ping(2), passes}, {curl(80), silent}, {echo(7, 100), silent}},
			want: counts{
				"egress ping allowed": 4, "egress: rule": 4, // 2 requests
				"egress default dropped": 4, "egress: default": 4, // 1 SYN and 1 datagram
				"ingress default allowed": 4, "ingress: default": 4, // 2 echo replies
			},
		},
		{
			name: "web rejected but for one port",
			policy: egress("allow", `name: web, action: allow, to: {ports: [tcp/8080]}`,
				`name: no-tcp, action: reject, to: {protocols: [tcp]}`),
			attempts: []attempt{{curl(80), refused}, {netcat(9), refused}, {curl(8080), passes}, {ping(1), passes}},
			want: counts{
				"egress no-tcp rejected": 4,    // 1 SYN of curl, 1 of nc
				"ingress: own-answer":    4,    // and their RST
				"egress web allowed":     some, // as many as TCP needs
				"egress: rule":           some,
				"egress default allowed": 2, "egress: default": 2, // 1 echo request
				"ingress default allowed": some, "ingress: default": some,
			},
		},
		{
			name: "web dropped",
			policy: egress("allow", `name: no-web, action: drop, to: {ports: [tcp/80-81, tcp/443]}`,
				`name: no-discard, action: drop, to: {ports: [9]}`),
			attempts: []attempt{{curl(80), silent}, {netcat(9), silent}, {curl(8080), passes}},
			want: counts{
				"egress no-web dropped":     2, // 1 SYN of curl
				"egress no-discard dropped": 2, // 1 SYN of nc
				"egress: rule":              4,
				"egress default allowed":    some, "egress: default": some,
				"ingress default allowed": some, "ingress: default": some,
			},
		},
		{
			name: "by address",
			policy: egress("reject", `name: except, action: allow, to: {addresses: [10.77.0.0/24, "fd77::/64"], except: [10.77.0.2, "fd77::2"]}`,
				`name: host, action: drop, to: {addresses: [10.77.0.1-10.77.0.2, "fd77::2"], ports: [tcp/80]}`),
			attempts: []attempt{{curl(80), silent}, {curl(8080), refused}, {ping(1), refused}},
			want: counts{
				"egress host dropped": 2, "egress: rule": 2, // 1 SYN
				"egress default rejected": 4, "egress: default": 4, // 1 SYN, 1 echo request
				"ingress: own-answer": 4,
			},
		},
		{
			name:     "dns only",
			policy:   egress("reject", `name: dns, action: allow, to: {ports: [udp/53]}`),
			attempts: []attempt{{dig(), passes}, {echo(7, 100), refused}},
			want: counts{
				"egress dns allowed": 2, "egress: rule": 2, // 1 question
				"ingress default allowed": 2, "ingress: default": 2, // and its answer
				"egress default rejected": 2, "egress: default": 2, // 1 datagram
				"ingress: own-answer": 2,
			},
		},
		{
			name:     "dns dropped",
			policy:   egress("allow", `name: no-dns, action: drop, to: {ports: [udp/53]}`),
			attempts: []attempt{{dig(), silent}, {dig("+tcp"), passes}},
			want: counts{
				"egress no-dns dropped": 2, "egress: rule": 2, // 1 question
				"egress default allowed": some, "egress: default": some,
				"ingress default allowed": some, "ingress: default": some,
			},
		},
		{
			name:     "dns rejected",
			policy:   egress("allow", `name: no-dns, action: reject, to: {ports: [53]}`),
			attempts: []attempt{{dig(), refused}, {dig("+tcp"), refused}},
			want: counts{
				"egress no-dns rejected": 4, "egress: rule": 4, // 1 question, 1 SYN
				"ingress: own-answer": 4,
			},
		},
		{
			name: "continue counts and goes on",
			policy: egress("drop", `name: all, action: continue`,
				`name: udp, action: continue, to: {protocols: [udp]}`,
				`name: echo, action: allow, to: {ports: [7]}`),
			attempts: []attempt{{echo(7, 100), passes}, {ping(2), silent}},
			want: counts{
				"egress all continued": 6, // 1 datagram, 2 echo requests
				"egress udp continued": 2, // 1 datagram
				"egress echo allowed":  2, "egress: rule": 2,
				"egress default dropped": 4, "egress: default": 4, // 2 echo requests
				"ingress default allowed": 2, "ingress: default": 2, // the datagram comes back
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &egate{t, e.netns, e.bpffs}
			before := readWire(t, p.client)
			e.apply(policyFor("veth0", c.policy))
			for _, a := range c.attempts {
				for _, to := range p.serverAddr() {
					a.probe.check(t, p.client.Netns, to, a.want)
				}
			}
			waitForCalm(t, p.client) // the end of a TCP connection
			before.checkWire(t, e.wantCounters(c.want))
			e.run("off")
		})
	}
}

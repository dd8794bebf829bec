package e2e

import "testing"

// TestFragments: a datagram of several fragments passes whole or not at all,
// though only the first fragment has ports.
//
// On a wire of 1,500 bytes an IPv4 fragment carries 1,480 of them and an IPv6
// fragment 1,448 (less 40 and 8 of headers, in units of 8):
//
//	ping -s 4000   4,008 bytes with the ICMP header  3 fragments of either family
//	5,000 of UDP   5,008 bytes with the UDP header   4 fragments of either family
func TestFragments(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	serveEcho(t, p.server.Netns, 7)
	e := newEgate(t, p.client.Netns)
	big := ping(1, "-s", "4000")
	for _, c := range []struct {
		name     string
		policy   string
		attempts []attempt
		want     counts
	}{
		{
			name: "allowed by port",
			policy: egress("drop",
				`name: echo, action: allow, to: {ports: [7]}`,
				`name: ping, action: allow, to: {icmp: [echo-request]}`),
			attempts: []attempt{{big, passes}, {echo(7, 5000), passes}},
			want: counts{
				"egress echo allowed": 8, "egress ping allowed": 6, // 4 and 3 of each family
				"egress: rule": 4, "egress: fragment": 10, // the first ones and the rest
				"ingress default allowed": 14, "ingress: default": 4, "ingress: fragment": 10,
			},
		},
		{
			// The kernel sends no further fragment once one was dropped.
			name: "dropped by port on the way out",
			policy: egress("allow",
				`name: no-echo, action: drop, to: {ports: [udp/7]}`,
				`name: no-ping, action: drop, to: {icmp: [echo-request]}`),
			attempts: []attempt{{big, silent}, {echo(7, 5000), silent}},
			want: counts{
				"egress no-echo dropped": 2, "egress no-ping dropped": 2, "egress: rule": 4,
			},
		},
		{
			// A packet that is answered counts as sent, so the second one follows.
			name: "rejected by port on the way out",
			policy: egress("allow",
				`name: no-echo, action: reject, to: {ports: [udp/7]}`,
				`name: no-ping, action: reject, to: {icmp: [echo-request]}`),
			attempts: []attempt{{big, refused}, {echo(7, 5000), refused}},
			want: counts{
				"egress no-echo rejected": 4, "egress no-ping rejected": 4,
				"egress: rule": 4, "egress: fragment": 4,
				"ingress: own-answer": 4, // one a datagram
			},
		},
		{
			name:     "dropped on the way in",
			policy:   ingress("allow", `name: no-echo, action: drop, from: {ports: [udp/7]}`, `name: no-ping, action: drop, to: {icmp: [echo-reply]}`),
			attempts: []attempt{{big, silent}, {echo(7, 5000), silent}},
			want: counts{
				"egress default allowed": 14, "egress: default": 4, "egress: fragment": 10,
				"ingress no-echo dropped": 8, "ingress no-ping dropped": 6,
				"ingress: rule": 4, "ingress: fragment": 10,
			},
		},
		{
			name:     "replies",
			policy:   egress("allow") + ingress("drop"),
			attempts: []attempt{{big, passes}, {echo(7, 5000), passes}},
			want: counts{
				"egress default allowed": 14, "egress: default": 4, "egress: fragment": 10,
				"ingress default allowed": 14, "ingress: reply": 4, "ingress: fragment": 10,
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
			before.checkWire(t, e.wantCounters(c.want))
			e.run("off")
		})
	}
}

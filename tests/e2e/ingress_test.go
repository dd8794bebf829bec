package e2e

import "testing"

// TestIngress: what comes in is judged apart from what goes out, and the
// answer to a rejected packet leaves even where nothing else does.
func TestIngress(t *testing.T) {
	t.Parallel()
	p, e := guardedPair(t)
	for _, c := range []struct {
		name   string
		policy string
		in     []attempt // by the peer
		out    []attempt // by the host
		want   counts
	}{
		{
			name:   "drop",
			policy: ingress("drop"),
			in:     []attempt{{connect(80), silent}, {ping(1), silent}, {echo(7, 100), silent}},
			out:    []attempt{{ping(2), passes}, {echo(7, 100), passes}},
			want: counts{
				// Of each family 1 SYN, 1 echo request, 1 datagram.
				"ingress default dropped": 6, "ingress: default": 6,
				// 2 echo requests and 1 datagram go out, and their answers come in.
				"egress default allowed": 6, "egress: default": 6,
				"ingress default allowed": 6, "ingress: reply": 6,
			},
		},
		{
			name: "reject",
			policy: ingress("reject",
				`name: ping, action: drop, to: {icmp: [echo-request]}`,
				`name: echo, action: allow, to: {ports: [udp/7]}`),
			in: []attempt{{connect(80), refused}, {echo(9, 100), refused}, {ping(1), silent}, {echo(7, 100), passes}},
			want: counts{
				// 1 SYN and 1 datagram of each family; the answers leave.
				"ingress default rejected": 4, "ingress: default": 4, "egress: own-answer": 4,
				"ingress ping dropped": 2, "ingress echo allowed": 2, "ingress: rule": 4,
				"egress default allowed": 2, "egress: default": 2, // the datagrams go back
			},
		},
		{
			name:   "reject where nothing may leave",
			policy: ingress("reject") + egress("drop"),
			in:     []attempt{{curl(80), refused}, {echo(7, 100), refused}, {ping(1), refused}},
			out:    []attempt{{ping(1), silent}},
			want: counts{
				"ingress default rejected": 6, "ingress: default": 6, "egress: own-answer": 6,
				"egress default dropped": 2, "egress: default": 2,
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &egate{t, e.netns, e.bpffs}
			before := readWire(t, p.server)
			e.apply(policyFor("veth0", c.policy))
			for _, a := range c.in {
				for _, to := range p.serverAddr() {
					a.probe.check(t, p.client.Netns, to, a.want)
				}
			}
			for _, a := range c.out {
				for _, to := range p.clientAddr() {
					a.probe.check(t, p.server.Netns, to, a.want)
				}
			}
			before.checkWire(t, e.wantCounters(c.want))
			e.run("off")
		})
	}
}

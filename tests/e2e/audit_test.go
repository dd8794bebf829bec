package e2e

import "testing"

// TestAudit: everything passes, and what would not have is counted.
func TestAudit(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	serveHTTP(t, p.server.Netns, 80)
	serveEcho(t, p.server.Netns, 7)
	e := newEgate(t, p.client.Netns)
	before := readWire(t, p.client)
	e.apply(policyFor("veth0", "mode: audit\n", egress("drop",
		`name: no-ping, action: reject, to: {icmp: [echo-request]}`,
		`name: no-web, action: drop, to: {ports: [tcp/80]}`), ingress("reject")))
	for _, to := range p.serverAddr() {
		ping(2).check(t, p.client.Netns, to, passes)
		curl(80).check(t, p.client.Netns, to, passes)
		echo(7, 100).check(t, p.client.Netns, to, passes)
	}
	waitForCalm(t, p.client)
	s := e.wantCounters(counts{
		"egress no-ping rejected": 4,    // 2 requests of each family
		"egress no-web dropped":   some, // what TCP needs
		"egress: rule":            some,
		"egress default dropped":  2, "egress: default": 2, // 1 datagram
		"ingress: reply": some, "ingress default allowed": some,
	})
	if !s.Audit {
		t.Error("status does not say that the policy is in audit mode")
	}
	if s.Totals[0].Answers.Sent != 0 {
		t.Errorf("%d answers to packets that were not rejected", s.Totals[0].Answers.Sent)
	}
	// All that the gate judged left, whatever the verdict.
	hooks := s.Interfaces[0].Hooks
	left := readWire(t, p.client)
	if judged := hooks[0].Dropped.Packets + hooks[0].Rejected.Packets; left.tx-before.tx != judged {
		t.Errorf("%d packets left, %d were judged", left.tx-before.tx, judged)
	}
}

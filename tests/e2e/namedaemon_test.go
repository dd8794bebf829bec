package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// TestDaemonReadsWhatTheKernelCannot: an answer in fragments is dropped, and told
// to the daemon, which asks by itself; the client's next try succeeds, and what
// the answer tells is open. When the daemon is killed nothing changes.
func TestDaemonReadsWhatTheKernelCannot(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection("names: listed"))
	daemon := w.netns.Start("env", w.command("daemon")...)
	for i, server := range w.serverAddr() {
		// 200 addresses of 16 or 28 bytes are more than a packet, and less than 4,096.
		q := query{name: "a1000.many200.n.test", edns: 4096, to: netip.AddrPortFrom(server, 53)}
		if i == 1 {
			q.name, q.qtype = "a2000.many120.n.test", dns.TypeAAAA
		}
		tries := 0
		var answer *dns.Msg
		eventually(t, 10*time.Second, "an answer in fragments, with a daemon", func() bool {
			tries++
			var err error
			answer, _, err = w.askWithin(q, testutil.Patience(500*time.Millisecond))
			return err == nil
		})
		if answer.Truncated || len(addressesIn(answer)) < 120 {
			t.Fatalf("the answer has %d addresses, truncated %v", len(addressesIn(answer)), answer.Truncated)
		}
		if tries == 1 {
			t.Error("the first answer has arrived: was it not in fragments?")
		}
		w.reachFirstAndLast(addressesIn(answer))
	}
	if got := messages(w.status("host")); got["fragmented"] == 0 || got["vouched"] == 0 {
		t.Errorf("DNS messages are counted as %v, want some fragmented and some vouched", got)
	}
	before := w.status("host")
	log := daemon.Stop()
	first, _ := numbered(1000)
	w.reach(first, passes)
	if s := w.status("host"); s.State != before.State || s.Generation != before.Generation || len(s.Problems) != 0 {
		t.Errorf("after the daemon was killed the gate is %s: %q", s.State, s.Problems)
	}
	if strings.Contains(log, "panic") {
		t.Errorf("the daemon wrote:\n%s", log)
	}
	w.run("off")
}

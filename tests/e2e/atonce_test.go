package e2e

import (
	"testing"
	"time"

	"egate/internal/testutil"
)

// TestRejectedAtOnce: real programs learn within 50 ms that they are rejected,
// their own start included. The best of ten tries counts, since the machine
// may be busy with something else.
func TestRejectedAtOnce(t *testing.T) {
	p := newPair(t)
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("reject")))
	limit := testutil.Patience(atOnce)
	probes := []probe{connect(443), echo(53, 1), curl(80)} // their time is that of the network alone
	if _, vm := testutil.InVM(); !vm {                     // where a program takes half a second to start
		probes = append(probes, ping(1), netcat(25), dig(), dig("+tcp"))
	}
	for _, probe := range probes {
		for _, to := range p.serverAddr() {
			best := time.Hour
			for tries := 0; tries < 10 && best > limit; tries++ {
				got, took := probe.try(t, p.client.Netns, to, testutil.Patience(longWait))
				if got != refused {
					t.Fatalf("%s to %v %s after %v", probe.name, to, got, took)
				}
				best = min(best, took)
			}
			t.Logf("%s to %v: %v", probe.name, to, best)
			if best > limit {
				t.Errorf("%s to %v knows after %v at best, want %v", probe.name, to, best, limit)
			}
		}
	}
}

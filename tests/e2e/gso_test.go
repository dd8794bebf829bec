package e2e

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// TestGSO: what leaves the host's TCP as packets of up to 64 KiB is counted as
// the segments that are on the wire.
func TestGSO(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for family, name := range []string{"v4", "v6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			sink := newCountingSink(t, p.server.Netns, 9)
			// The interface cannot segment, so the kernel does, behind the gate,
			// and the interface counts segments.
			p.client.Netns.Exec("ethtool", "-K", "veth0", "tso", "off")
			e := newEgate(t, p.client.Netns)
			before := readWire(t, p.client)
			e.apply(policyFor("veth0", egress("drop", `name: bulk, action: allow, to: {ports: [tcp/9]}`)))
			sink.sendAll(t, p.client.Netns, netip.AddrPortFrom(p.serverAddr()[family], 9), size)
			waitForCalm(t, p.client)

			s := e.wantCounters(counts{
				"egress bulk allowed": some, "egress: rule": some,
				"ingress default allowed": some, "ingress: default": some, // acknowledgments
			})
			// Every segment of the connection, repeated ones too, met the rule once
			// and the interface once: the numbers are equal.
			before.checkWire(t, s)
			bulk := s.Chains[0].Rules[0].Allowed
			// 1,500 bytes less 20 of IPv4 or 40 of IPv6 and 32 of TCP with its
			// timestamps carry 1,448 or 1,428.
			if least := uint64(size / 1448); bulk.Packets < least {
				t.Errorf("%d packets for %d bytes, want at least %d", bulk.Packets, size, least)
			}
			// A full segment by itself has 1,514 bytes, a GSO packet its headers once:
			// fewer bytes a segment show that there were some. Data that was sent again
			// is in both numbers.
			if most := bulk.Packets * 1484; bulk.Bytes >= most || bulk.Bytes < size {
				t.Errorf("%d bytes in %d segments: want at least %d and under %d, or there was no GSO",
					bulk.Bytes, bulk.Packets, size, most)
			}
		})
	}
}

// TestIperf: a transfer through the gate with all of the kernel's offloads.
func TestIperf(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	server := p.server.Netns.Start("iperf3", "--server", "--forceflush")
	server.WaitFor("Server listening")
	e := newEgate(t, p.client.Netns)
	e.apply(policyFor("veth0", egress("drop", `name: iperf, action: allow, to: {ports: [tcp/5201]}`)))
	var received uint64
	for _, to := range p.serverAddr() {
		out := p.client.Netns.Exec("iperf3", "--client", to.String(), "--bytes", "8M", "--json")
		var report struct {
			End struct {
				Received struct{ Bytes uint64 } `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("parse what iperf3 says: %v\n%s", err, out)
		}
		received += report.End.Received.Bytes
	}
	s := e.wantCounters(counts{
		"egress iperf allowed": some, "egress: rule": some,
		"ingress default allowed": some, "ingress: default": some,
	})
	// At most 1,448 bytes a segment. What iperf3 has sent and not received when it
	// stops is lost.
	if n := s.Chains[0].Rules[0].Allowed.Packets; received == 0 || n < received/1448 {
		t.Errorf("%d packets for %d bytes", n, received)
	}
}

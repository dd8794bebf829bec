package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"egate/internal/testutil"
)

// TestManyRules applies 100,000 rules that name one address each: every second
// one of a part of 11.0.0.0/8. The first, one in the middle and the last are in
// force, and the addresses beside them pass.
func TestManyRules(t *testing.T) {
	t.Parallel()
	const rules = 100_000
	address := func(i int) netip.Addr {
		n := 2 * i
		return netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	p := newPair(t)
	// An address of lo makes all of its prefix the host's own.
	setUp(t, p.server.Netns, "lo", testutil.Addrs("11.255.255.255/8")...)
	testutil.Route(t, p.client, netip.MustParsePrefix("11.0.0.0/8"), p.serverAddr()[0])

	var text strings.Builder
	text.WriteString("version: 1\nname: many\ninterfaces: [veth0]\negress:\n  default: allow\n  rules:\n")
	for i := 1; i <= rules; i++ {
		fmt.Fprintf(&text, "    - {action: drop, to: {addresses: [%v]}}\n", address(i))
	}
	e := newEgate(t, p.client.Netns)
	file := e.file(text.String())
	start := time.Now()
	e.run("apply", file)
	t.Logf("applied in %s", time.Since(start))

	for _, i := range []int{1, rules / 2, rules} {
		ping(1).check(t, p.client.Netns, address(i), silent)
		ping(1).check(t, p.client.Netns, address(i).Next(), passes)
		ping(1).check(t, p.client.Netns, address(i).Prev(), passes)
		want := fmt.Sprintf("rule #1-%d (lines 7-%d): it is rule #%d (line %d)", rules, rules+6, i, i+6)
		packet := fmt.Sprintf("icmp 10.77.0.1 -> %v echo-request", address(i))
		if got := e.run("explain", file, packet); !strings.Contains(got, want) {
			t.Errorf("explain says\n%s\nwant %s", got, want)
		}
	}
	s := e.status("host")
	if all := s.Chains[0].Rules; len(all) != 1 || all[0].Merged != rules || all[0].Line != 7 || all[0].LastLine != rules+6 {
		t.Errorf("status has the rules %+v, want one for all of lines 7 to %d", all, rules+6)
	}
	got := countersOf(s)
	if n := got[fmt.Sprintf("egress #1-%d dropped", rules)]; n != 3 {
		t.Errorf("the rules counted %d packets, want 3; all counters:\n  %s", n, got)
	}
	checkSums(t, s)
	e.run("off")
}

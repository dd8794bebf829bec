package datapath

import (
	"net/netip"
	"testing"

	"egate/internal/compile"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// A packet that differs from the one before it in one field that a rule asks
// for gets its own verdict, and continue rules count every packet: what the
// program remembers of a flow is never taken for another's.
func TestRememberedRulesAreOfTheSameFlow(t *testing.T) {
	testutil.RequireRoot(t)
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.7")
	here6, there6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:7::7")
	udp := func(ports ...uint16) []policy.Service {
		return []policy.Service{{Proto: packet.ProtoUDP, First: ports[0], Last: ports[0]}}
	}
	frame := func(src, dst netip.Addr, sport, dport uint16) []byte {
		return frames.UDP(src, dst, sport, dport, make([]byte, 22))
	}
	base := frame(here, there, 40000, 53)
	base6 := frame(here6, there6, 40000, 53)
	only := func(addr netip.Addr) *ipset.Set { return ipset.Of(netip.PrefixFrom(addr, addr.BitLen())) }
	for name, test := range map[string]struct {
		rule    policy.Rule // drops base
		base    []byte
		passing []byte // differs in what the rule asks for
	}{
		"destination":    {policy.Rule{To: only(there)}, base, frame(here, there.Next(), 40000, 53)},
		"destination6":   {policy.Rule{To: only(there6)}, base6, frame(here6, there6.Next(), 40000, 53)},
		"upper half":     {policy.Rule{To: only(there6)}, base6, frame(here6, netip.MustParseAddr("2001:db8:8::7"), 40000, 53)},
		"source":         {policy.Rule{From: only(here)}, base, frame(here.Next(), there, 40000, 53)},
		"service":        {policy.Rule{Services: udp(53)}, base, frame(here, there, 40000, 54)},
		"protocol":       {policy.Rule{Services: udp(53)}, base, frames.TCP(here, there, 40000, 53, 2, nil)},
		"source port":    {policy.Rule{SourcePorts: udp(40000)}, base, frame(here, there, 40001, 53)},
		"everything":     {policy.Rule{To: only(there), From: only(here), Services: udp(53), SourcePorts: udp(40000)}, base, frame(here, there, 40001, 53)},
		"not whole":      {policy.Rule{Services: udp(53)}, base, base[:14+20+4]},
		"another family": {policy.Rule{To: only(there)}, base, base6},
	} {
		t.Run(name, func(t *testing.T) {
			p := &policy.Policy{Name: "cache", MaxFlows: policy.MinFlows}
			test.rule.Action = verdict.Drop
			for d := range p.Chains {
				p.Chains[d].Rules = []policy.Rule{test.rule}
			}
			set, _, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			b := newTestBench(t, set)
			defer b.Close()
			const rounds = 5
			for range rounds {
				for _, d := range verdict.Directions {
					if got, _ := b.Run(t, test.base, d); got != actShot {
						t.Fatalf("%s: the packet passed", d)
					}
					if got, _ := b.Run(t, test.passing, d); got != actUnspec {
						t.Fatalf("%s: the other packet was dropped", d)
					}
				}
			}
			for _, d := range verdict.Directions {
				if got := b.RuleCounter(t, d, 0).Packets[verdict.Drop]; got != rounds {
					t.Errorf("%s: the rule counted %d packets, want %d", d, got, rounds)
				}
				if got := b.RuleCounter(t, d, 1).Packets[verdict.Allow]; got != rounds {
					t.Errorf("%s: the default counted %d packets, want %d", d, got, rounds)
				}
			}
		})
	}

	t.Run("continue rules", func(t *testing.T) {
		p := &policy.Policy{Name: "cache", MaxFlows: policy.MinFlows}
		p.Chains[verdict.Egress].Rules = []policy.Rule{{Action: verdict.Continue, To: only(there)}, {Action: verdict.Drop}}
		set, _, err := compile.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		b := newTestBench(t, set)
		defer b.Close()
		for range 7 {
			b.Run(t, base, verdict.Egress)
		}
		if got := b.RuleCounter(t, verdict.Egress, 0).Packets[verdict.Continue]; got != 7 {
			t.Errorf("the continue rule counted %d of 7 packets", got)
		}
	})
}

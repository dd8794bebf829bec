package oracle

import (
	"net/netip"
	"reflect"
	"testing"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

const all = packet.HaveSrc | packet.HaveDst | packet.HaveProto | packet.HaveTransport

func addr(text string) ipset.Addr { return ipset.FromNetip(netip.MustParseAddr(text)) }

// The walk is what everything else is held against, so its own cases are
// written out by hand.
func TestWalk(t *testing.T) {
	web := packet.Key{
		IP: true, Have: all, Family: 4, Src: addr("10.0.0.5"), Dst: addr("198.51.100.7"),
		Proto: packet.ProtoTCP, Selector: 443, SourcePort: 40000,
	}
	with := func(change func(*packet.Key)) packet.Key {
		k := web
		change(&k)
		return k
	}
	discovery := with(func(k *packet.Key) {
		k.Family, k.Proto, k.Selector, k.HopLimit = 6, packet.ProtoICMPv6, 135<<8, 255
		k.Src, k.Dst = addr("fe80::1"), addr("ff02::1")
	})
	dhcp := with(func(k *packet.Key) { k.Proto, k.SourcePort, k.Selector = packet.ProtoUDP, 68, 67 })
	tcp443 := []policy.Service{{Proto: 6, First: 443, Last: 443}}
	rules := []policy.Rule{
		{Action: verdict.Continue, Services: []policy.Service{{Proto: 6, Whole: true}}},
		{Action: verdict.Drop, To: ipset.Of(netip.MustParsePrefix("192.0.2.0/24"))},
		{Action: verdict.Reject, From: ipset.Of(netip.MustParsePrefix("10.9.0.0/16"))},
		{Action: verdict.Allow, Services: tcp443},
		{Action: verdict.Allow, Domains: domain.New([]domain.Pattern{{Name: "a.example.net"}, {Name: "example.org", Below: true}}), DropQUIC: true},
		{Action: verdict.Continue},
	}
	tests := map[string]struct {
		key   packet.Key
		state tables.State
		want  tables.Result
	}{
		"allowed": {
			key:  web,
			want: tables.Result{Action: verdict.Allow, Rule: 3, Continues: []int{0}},
		},
		"dropped by destination": {
			key:  with(func(k *packet.Key) { k.Dst = addr("192.0.2.255") }),
			want: tables.Result{Action: verdict.Drop, Rule: 1, Continues: []int{0}},
		},
		"rejected by source": {
			key:  with(func(k *packet.Key) { k.Src = addr("10.9.255.255") }),
			want: tables.Result{Action: verdict.Reject, Rule: 2, Continues: []int{0}},
		},
		"an unreadable destination meets no rule that asks for one": {
			key: with(func(k *packet.Key) {
				k.Have &^= packet.HaveDst
				k.Dst, k.Problem = addr("192.0.2.1"), verdict.ReasonSourceRoute
			}),
			want: tables.Result{Action: verdict.Allow, Rule: 3, Continues: []int{0}},
		},
		"unreadable ports meet the whole protocol": {
			key: with(func(k *packet.Key) { k.Have &^= packet.HaveTransport; k.Problem = verdict.ReasonTruncated }),
			want: tables.Result{
				Action: verdict.Drop, Reason: verdict.ReasonTruncated, Rule: tables.NoRule, Continues: []int{0, 5},
			},
		},
		"default": {
			key: with(func(k *packet.Key) { k.Selector = 444 }),
			want: tables.Result{
				Action: verdict.Drop, Reason: verdict.ReasonDefault, Rule: tables.NoRule, Continues: []int{0, 5},
			},
		},
		"reply": {
			key:   with(func(k *packet.Key) { k.Selector = 444 }),
			state: tables.State{Reply: true, ReplyError: true},
			want: tables.Result{
				Action: verdict.Allow, Reason: verdict.ReasonReply, Rule: tables.NoRule, Continues: []int{0, 5},
			},
		},
		"error about a reply": {
			key:   with(func(k *packet.Key) { k.Proto, k.Selector = packet.ProtoICMP, 0x0301 }),
			state: tables.State{ReplyError: true},
			want:  tables.Result{Action: verdict.Allow, Reason: verdict.ReasonReplyError, Rule: tables.NoRule, Continues: []int{5}},
		},
		"neighbour discovery": {
			key:  discovery,
			want: tables.Result{Action: verdict.Allow, Reason: verdict.ReasonNeighbour, Rule: tables.NoRule, Continues: []int{5}},
		},
		"dhcp": {
			key:  dhcp,
			want: tables.Result{Action: verdict.Allow, Reason: verdict.ReasonDHCP, Rule: tables.NoRule, Continues: []int{5}},
		},
		"dhcp answers of a server are not client traffic": {
			key:  with(func(k *packet.Key) { k.Proto, k.SourcePort, k.Selector = packet.ProtoUDP, 67, 68 }),
			want: tables.Result{Action: verdict.Drop, Reason: verdict.ReasonDefault, Rule: tables.NoRule, Continues: []int{5}},
		},
		"control frame": {
			key:  packet.Key{Control: true, EtherType: 0x0806},
			want: tables.Result{Action: verdict.Allow, Reason: verdict.ReasonControlFrame, Rule: tables.NoRule},
		},
		"not IP": {
			key:  packet.Key{EtherType: 0x8847},
			want: tables.Result{Action: verdict.Drop, Reason: verdict.ReasonNonIP, Rule: tables.NoRule},
		},
		"later fragment of a known datagram": {
			key:   with(func(k *packet.Key) { k.Fragment = packet.LaterFragment; k.Have &^= packet.HaveTransport }),
			state: tables.State{FragmentSeen: true, FragmentAction: verdict.Allow, FragmentRule: 3},
			want:  tables.Result{Action: verdict.Allow, Reason: verdict.ReasonFragment, Rule: 3},
		},
		"later fragment of an unknown datagram": {
			key: with(func(k *packet.Key) { k.Fragment = packet.LaterFragment; k.Have &^= packet.HaveTransport }),
			want: tables.Result{
				Action: verdict.Drop, Reason: verdict.ReasonFragmentUnknown, Rule: tables.NoRule, Continues: []int{0, 5},
			},
		},
		"name that a rule lists": {
			key: with(func(k *packet.Key) { k.Selector = 8443 }), state: tables.State{Names: []string{"other.test", "a.example.net"}},
			want: tables.Result{Action: verdict.Allow, Rule: 4, Continues: []int{0}},
		},
		"name below that a wildcard lists": {
			key: with(func(k *packet.Key) { k.Selector = 8443 }), state: tables.State{Names: []string{"x.y.example.org"}},
			want: tables.Result{Action: verdict.Allow, Rule: 4, Continues: []int{0}},
		},
		"the wildcard's own name": {
			key: with(func(k *packet.Key) { k.Selector = 8443 }), state: tables.State{Names: []string{"example.org", "notexample.org", "b.a.example.net"}},
			want: tables.Result{Action: verdict.Drop, Reason: verdict.ReasonDefault, Rule: tables.NoRule, Continues: []int{0, 5}},
		},
		"an unreadable destination has no name": {
			key: with(func(k *packet.Key) {
				k.Selector = 8443
				k.Have &^= packet.HaveDst
				k.Problem = verdict.ReasonSourceRoute
			}),
			state: tables.State{Names: []string{"a.example.net"}},
			want:  tables.Result{Action: verdict.Drop, Reason: verdict.ReasonSourceRoute, Rule: tables.NoRule, Continues: []int{0, 5}},
		},
		"QUIC that a rule does not want": {
			key:   with(func(k *packet.Key) { k.Proto = packet.ProtoUDP }),
			state: tables.State{Names: []string{"a.example.net"}},
			want:  tables.Result{Action: verdict.Reject, Reason: verdict.ReasonQUIC, Rule: 4},
		},
		"DNS to a server of the policy": {
			key:   with(func(k *packet.Key) { k.Proto, k.Selector = packet.ProtoUDP, 53 }),
			state: tables.State{Resolver: true},
			want:  tables.Result{Action: verdict.Allow, Reason: verdict.ReasonDNS, Rule: tables.NoRule, Continues: []int{5}},
		},
		"DNS to another server": {
			key:   with(func(k *packet.Key) { k.Selector = 53 }),
			state: tables.State{Known: true},
			want:  tables.Result{Action: verdict.Reject, Reason: verdict.ReasonDNSElsewhere, Rule: tables.NoRule},
		},
		"DNS over TLS to a server of the policy": {
			key:   with(func(k *packet.Key) { k.Selector = 853 }),
			state: tables.State{Resolver: true},
			want:  tables.Result{Action: verdict.Reject, Reason: verdict.ReasonDNSElsewhere, Rule: tables.NoRule},
		},
		"DNS over HTTPS to a known resolver": {
			key:   web,
			state: tables.State{Known: true, Resolver: true},
			want:  tables.Result{Action: verdict.Reject, Reason: verdict.ReasonDNSElsewhere, Rule: tables.NoRule},
		},
		"DNS to a destination that could not be read": {
			key:   with(func(k *packet.Key) { k.Selector = 53; k.Have &^= packet.HaveDst; k.Problem = verdict.ReasonSourceRoute }),
			state: tables.State{Resolver: true},
			want:  tables.Result{Action: verdict.Reject, Reason: verdict.ReasonDNSElsewhere, Rule: tables.NoRule},
		},
		"nothing exempt where all is allowed": {
			key:  packet.Key{Direction: verdict.Ingress, Control: true, EtherType: 0x0806},
			want: tables.Result{Action: verdict.Allow, Reason: verdict.ReasonNonIP, Rule: tables.NoRule},
		},
	}
	p := &policy.Policy{
		DNS:    policy.DNS{Elsewhere: verdict.Reject},
		Chains: [2]policy.Chain{{Default: verdict.Drop, Replies: true, Rules: rules}, {}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Walk(p, &test.key, test.state); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestEqualSeedsGiveEqualSequences(t *testing.T) {
	a, b := NewGenerator(5), NewGenerator(5)
	for range 20 {
		p, q := a.Policy(), b.Policy()
		if !reflect.DeepEqual(p, q) {
			t.Fatal("policies differ")
		}
		k, l := a.Key(p), b.Key(q)
		if k != l || !reflect.DeepEqual(a.State(p, &k), b.State(q, &l)) {
			t.Fatal("packets differ")
		}
	}
}

// Every reason that a policy's packets can get is met, and every action and
// kind of condition is generated: what the generator leaves out, no
// differential test would find.
func TestGeneratorReachesEveryReason(t *testing.T) {
	g := NewGenerator(6)
	reasons := map[verdict.Reason]int{}
	actions := map[verdict.Action]int{}
	shared, copied := false, false
	var byNames [3]int // packets that a rule with domains decides, by how many names they have: 1, 2, more
	for range 300 {
		p := g.PolicyOf(g.Rand().IntN(40))
		sets := map[*ipset.Set]bool{}
		for _, c := range p.Chains {
			for _, r := range c.Rules {
				actions[r.Action]++
				if r.To == nil {
					continue
				}
				shared = shared || sets[r.To]
				for other := range sets {
					copied = copied || other != r.To && other.Equal(r.To)
				}
				sets[r.To] = true
			}
		}
		for range 300 {
			k := g.Key(p)
			st := g.State(p, &k)
			res := Walk(p, &k, st)
			reasons[res.Reason]++
			if res.Reason == verdict.ReasonRule && p.Chains[k.Direction].Rules[res.Rule].Domains != nil {
				byNames[min(len(st.Names), 3)-1]++
			}
		}
	}
	for r := range verdict.ReasonOwnAnswer {
		if reasons[r] == 0 {
			t.Errorf("no packet gets reason %s", r)
		}
	}
	for _, r := range []verdict.Reason{verdict.ReasonDNS, verdict.ReasonDNSElsewhere, verdict.ReasonQUIC} {
		if reasons[r] == 0 {
			t.Errorf("no packet gets reason %s", r)
		}
	}
	for i, n := range byNames {
		if n < 100 {
			t.Errorf("a rule with domains decides %d packets with %d names", n, i+1)
		}
	}
	for a := verdict.Allow; a <= verdict.Continue; a++ {
		if actions[a] == 0 {
			t.Errorf("no rule has action %s", a)
		}
	}
	if !shared || !copied {
		t.Errorf("rules share a set: %v; have equal copies of one: %v", shared, copied)
	}
}

// Keys keep to what package packet reads together.
func TestKeysCouldBeRead(t *testing.T) {
	g := NewGenerator(8)
	for range 50 {
		p := g.PolicyOf(20)
		for range 500 {
			k := g.Key(p)
			bad := ""
			switch {
			case !k.IP && (k.Have != 0 || k.Family != 0):
				bad = "a frame that is not IP has fields"
			case k.Have != 0 && k.Have&packet.HaveSrc == 0:
				bad = "something is readable but not the source"
			case k.Has(packet.HaveTransport) && !k.Has(packet.HaveProto):
				bad = "a transport header of an unknown protocol"
			case k.Fragment == packet.LaterFragment && k.Has(packet.HaveTransport):
				bad = "a later fragment has a transport header"
			case k.Has(packet.HaveTransport) && !k.HasPorts() && !k.HasICMP():
				bad = "a protocol that is not read has a transport header"
			case k.Family == 4 && k.Have != 0 && !(k.Src.Is4() && k.Dst.Is4()):
				bad = "an IPv4 packet with an IPv6 address"
			case k.Problem == verdict.ReasonRule && k.IP && !k.Has(packet.HaveSrc|packet.HaveDst|packet.HaveProto):
				bad = "something is unreadable without a problem"
			}
			if bad != "" {
				t.Fatalf("%s: %+v", bad, k)
			}
		}
	}
}

func TestSeedIsReadFromTheEnvironment(t *testing.T) {
	t.Setenv(SeedVariable, "0x10")
	if seed, err := Seed(); err != nil || seed != 16 {
		t.Errorf("got %d, %v", seed, err)
	}
	t.Setenv(SeedVariable, "ten")
	if _, err := Seed(); err == nil {
		t.Error("no error for a seed that is no number")
	}
	t.Setenv(SeedVariable, "")
	if _, err := Seed(); err != nil {
		t.Error(err)
	}
}

package tables_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"egate/internal/domain"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// registry allows what some names stand for, in different ways.
func registry() *policy.Policy {
	tcp := func(ports ...uint16) (out []policy.Service) {
		for _, port := range ports {
			out = append(out, policy.Service{Proto: packet.ProtoTCP, First: port, Last: port})
		}
		return out
	}
	list := func(patterns ...domain.Pattern) *domain.Set { return domain.New(patterns) }
	p := &policy.Policy{Name: "registry", Interfaces: []string{"eth0"}, MaxFlows: policy.DefaultFlows}
	p.DNS = policy.DNS{Given: true, MaxLabel: 63, Servers: []netip.Addr{netip.MustParseAddr("10.0.0.53")}, Elsewhere: verdict.Drop}
	p.Chains[verdict.Egress] = policy.Chain{
		Default: verdict.Drop,
		Rules: []policy.Rule{
			{Name: "ads", Pos: policy.Pos{Line: 5}, Action: verdict.Drop, Domains: list(domain.Pattern{Name: "ads.example.com"})},
			{Name: "cdn", Pos: policy.Pos{Line: 8}, Action: verdict.Allow, Verify: policy.VerifyWellKnown, DropQUIC: true,
				Domains: list(domain.Pattern{Name: "example.com", Below: true})},
			{Name: "mail", Pos: policy.Pos{Line: 11}, Action: verdict.Allow, Verify: policy.VerifyAll, Services: tcp(443, 465),
				Domains: list(domain.Pattern{Name: "mail.example.net"})},
			{Name: "plain", Pos: policy.Pos{Line: 14}, Action: verdict.Allow, Domains: list(domain.Pattern{Name: "plain.example.net"})},
			{Name: "ssh", Pos: policy.Pos{Line: 17}, Action: verdict.Allow, Services: tcp(22)},
		},
	}
	return p
}

// toPort is a packet to a destination that has names.
func toPort(proto uint8, port uint16) packet.Key {
	return packet.Key{
		IP: true, Have: all, Family: 4, Src: addr("10.0.0.5"), Dst: addr("198.51.100.7"),
		Proto: proto, Selector: port, SourcePort: 40000,
	}
}

func TestTraceOfNames(t *testing.T) {
	unreadable := toPort(packet.ProtoTCP, 443)
	unreadable.Have &^= packet.HaveDst
	unreadable.Problem = verdict.ReasonSourceRoute
	tests := map[string]struct {
		key   packet.Key
		state tables.State
		want  string
	}{
		"a name below a wildcard": {
			toPort(packet.ProtoTCP, 443), tables.State{Names: []string{"x.y.example.com"}}, `
egress        5 rules, default drop
service       tcp/443: class 2, 4 rules left: ads, cdn, mail, plain
name          x.y.example.com (*.example.com): class 1, 1 rule left: cdn
allow         rule cdn (line 8)
`,
		},
		"several names": {
			toPort(packet.ProtoTCP, 443), tables.State{Names: []string{"example.com", "mail.example.net", "ads.example.com"}}, `
egress        5 rules, default drop
service       tcp/443: class 2, 4 rules left: ads, cdn, mail, plain
name          example.com (in no rule), mail.example.net, ads.example.com: classes 0, 3 and 2, 3 rules left: ads, cdn, mail
drop          rule ads (line 5)
`,
		},
		"no name": {
			toPort(packet.ProtoTCP, 443), tables.State{}, `
egress        5 rules, default drop
service       tcp/443: class 2, 4 rules left: ads, cdn, mail, plain
name          none known: class 0, no rule left
drop          default: no rule matched; the chain's default decided
`,
		},
		"a destination that could not be read": {
			unreadable, tables.State{Names: []string{"plain.example.net"}}, `
egress        5 rules, default drop
service       tcp/443: class 2, 4 rules left: ads, cdn, mail, plain
name          destination could not be read: class 0, no rule left
drop          source-route: a source-routed packet hides its final destination; no rule without a destination matched, the default decided
`,
		},
		"QUIC": {
			toPort(packet.ProtoUDP, 443), tables.State{Names: []string{"www.example.com"}}, `
egress        5 rules, default drop
service       udp/443: class 0, 3 rules left: ads, cdn, plain
name          www.example.com (*.example.com): class 1, 1 rule left: cdn
reject        quic: QUIC, which the rule does not allow, so that clients fall back to TCP, rule cdn (line 8)
`,
		},
		"DNS with a server of the policy": {
			toPort(packet.ProtoUDP, 53), tables.State{Resolver: true}, `
egress        5 rules, default drop
service       udp/53: class 0, 3 rules left: ads, cdn, plain
name          none known: class 0, no rule left
allow         dns: DNS with a resolver of the policy, under a default that is not allow
`,
		},
		"DNS elsewhere": {
			toPort(packet.ProtoTCP, 853), tables.State{Names: []string{"plain.example.net"}}, `
egress        5 rules, default drop
rules         no rule is asked: the section dns says what becomes of DNS elsewhere
drop          dns-elsewhere: DNS, DNS over TLS or DNS over HTTPS to a server that is none of the policy's resolvers
`,
		},
	}
	set := compiled(t, registry())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			trace := set.Trace(&test.key, test.state)
			if got := "\n" + trace.Text(); got != test.want {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestTraceOfNamesJSON(t *testing.T) {
	k := toPort(packet.ProtoTCP, 443)
	trace := compiled(t, registry()).Trace(&k, tables.State{Names: []string{"www.example.com", "other.test", "mail.example.net"}})
	got, err := json.Marshal(trace.Steps[1])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"dimension":"name","value":"www.example.com (*.example.com), other.test (in no rule), mail.example.net","class":1,` +
		`"names":[{"name":"www.example.com","entry":"*.example.com","class":1},{"name":"other.test","class":0},` +
		`{"name":"mail.example.net","entry":"mail.example.net","class":3}],"left":2,"first":["cdn","mail"]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBound(t *testing.T) {
	c := &compiled(t, registry()).Chains[verdict.Egress]
	names := []string{"other.test", "plain.example.net", "a.example.com", "b.example.com"}
	tests := map[string]struct {
		rule  int
		names []string
		want  string // "" for none
	}{
		"the first name that the rule lists": {1, names, "a.example.com"},
		"another rule":                       {3, names, "plain.example.net"},
		"none that the rule lists":           {2, names, ""},
		"a rule without names":               {4, names, ""},
		"no name":                            {1, nil, ""},
		"the default":                        {tables.NoRule, names, ""},
		"no such rule":                       {5, names, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := c.Bound(test.rule, test.names)
			if got != test.want || ok != (test.want != "") {
				t.Errorf("got %q, %v, want %q", got, ok, test.want)
			}
		})
	}
}

func TestVerifies(t *testing.T) {
	rules := compiled(t, registry()).Chains[verdict.Egress].Rules
	truncated := toPort(packet.ProtoTCP, 443)
	truncated.Have &^= packet.HaveTransport
	tests := map[string]struct {
		rule int
		key  packet.Key
		want bool
	}{
		"HTTPS":                        {1, toPort(packet.ProtoTCP, 443), true},
		"HTTP":                         {1, toPort(packet.ProtoTCP, 80), true},
		"another port":                 {1, toPort(packet.ProtoTCP, 8443), false},
		"another port, all verified":   {2, toPort(packet.ProtoTCP, 465), true},
		"UDP":                          {2, toPort(packet.ProtoUDP, 443), false},
		"verify: none":                 {3, toPort(packet.ProtoTCP, 443), false},
		"no names":                     {4, toPort(packet.ProtoTCP, 443), false},
		"a drop rule":                  {0, toPort(packet.ProtoTCP, 443), false},
		"ports that could not be read": {2, truncated, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := rules[test.rule].Verifies(&test.key); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	set := compiled(t, registry())
	k := toPort(packet.ProtoTCP, 443)
	st := tables.State{Names: []string{"www.example.com", "mail.example.net"}}
	if first := set.Lookup(&k, st); first.Rule != 1 || first.Action != verdict.Allow {
		t.Fatalf("the first packet gets %+v", first)
	}
	tests := map[string]struct {
		name string
		want tables.Result
	}{
		"the rule's name":                      {"www.example.com", tables.Result{Action: verdict.Allow, Rule: 1}},
		"another of the rule's, never learned": {"new.example.com", tables.Result{Action: verdict.Allow, Rule: 1}},
		"a name of another rule":               {"plain.example.net", tables.Result{Action: verdict.Allow, Rule: 3}},
		"a name of no rule":                    {"other.test", tables.Result{Action: verdict.Reject, Reason: verdict.ReasonNameMismatch, Rule: tables.NoRule}},
		"a name that a rule drops":             {"ads.example.com", tables.Result{Action: verdict.Reject, Reason: verdict.ReasonNameMismatch, Rule: 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := set.Request(&k, st, test.name)
			if got.Action != test.want.Action || got.Reason != test.want.Reason || got.Rule != test.want.Rule {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

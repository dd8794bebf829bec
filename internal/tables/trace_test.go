package tables_test

import (
	"encoding/json"
	"math/bits"
	"net/netip"
	"strings"
	"testing"

	"egate/internal/compile"
	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

func compiled(t testing.TB, p *policy.Policy) *tables.Set {
	t.Helper()
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func addr(text string) ipset.Addr { return ipset.FromNetip(netip.MustParseAddr(text)) }

func prefixes(texts ...string) *ipset.Set {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return ipset.Of(out...)
}

// office counts all TCP, drops one network and lets web ports through.
func office() *policy.Policy {
	p := &policy.Policy{Name: "office", Interfaces: []string{"eth0"}, MaxFlows: policy.DefaultFlows}
	p.Chains[verdict.Egress] = policy.Chain{
		Default: verdict.Drop,
		Replies: true,
		Rules: []policy.Rule{
			{Name: "count-tcp", Pos: policy.Pos{Line: 5}, Action: verdict.Continue, Services: []policy.Service{{Proto: 6, Whole: true}}},
			{Pos: policy.Pos{Line: 8}, Action: verdict.Drop, To: prefixes("192.0.2.0/24", "2001:db8::/32")},
			{Name: "web", Pos: policy.Pos{Line: 11}, Action: verdict.Allow, Services: []policy.Service{{Proto: 6, First: 443, Last: 443}}},
			{Name: "high", Pos: policy.Pos{Line: 14}, Action: verdict.Allow, SourcePorts: []policy.Service{{Proto: 17, First: 1024, Last: 65535}}},
		},
	}
	return p
}

const all = packet.HaveSrc | packet.HaveDst | packet.HaveProto | packet.HaveTransport

func TestTraceText(t *testing.T) {
	web := packet.Key{
		IP: true, Have: all, Family: 4, Src: addr("10.0.0.5"), Dst: addr("198.51.100.7"),
		Proto: packet.ProtoTCP, Selector: 443, SourcePort: 40000,
	}
	tests := map[string]struct {
		change func(*packet.Key)
		state  tables.State
		want   string
	}{
		"rule that decides behind a continue rule": {
			want: `
egress        4 rules, default drop
destination   198.51.100.7: class 0, 3 rules left: count-tcp, web, high
service       tcp/443: class 2, 3 rules left: count-tcp, web, high
source port   tcp/40000: class 0, 2 rules left: count-tcp, web
continue      rule count-tcp (line 5)
allow         rule web (line 11)
`,
		},
		"rule without a name": {
			change: func(k *packet.Key) { k.Dst = addr("192.0.2.9") },
			want: `
egress        4 rules, default drop
destination   192.0.2.9: class 1, 4 rules left: count-tcp, #2, web, high
service       tcp/443: class 2, 4 rules left: count-tcp, #2, web, high
source port   tcp/40000: class 0, 3 rules left: count-tcp, #2, web
continue      rule count-tcp (line 5)
drop          rule #2 (line 8)
`,
		},
		"default": {
			change: func(k *packet.Key) { k.Proto, k.Selector, k.SourcePort = packet.ProtoICMP, 0x0800, 7 },
			want: `
egress        4 rules, default drop
destination   198.51.100.7: class 0, 3 rules left: count-tcp, web, high
service       icmp type 8 code 0 (echo-request): class 0, 1 rule left: high
source port   icmp, no ports: class 0, no rule left
drop          default: no rule matched; the chain's default decided
`,
		},
		"unreadable transport header": {
			change: func(k *packet.Key) {
				k.Have &^= packet.HaveTransport
				k.Problem = verdict.ReasonTruncated
			},
			want: `
egress        4 rules, default drop
destination   198.51.100.7: class 0, 3 rules left: count-tcp, web, high
service       tcp, ports could not be read: class 1, 2 rules left: count-tcp, high
source port   tcp, ports could not be read: class 0, 1 rule left: count-tcp
continue      rule count-tcp (line 5)
drop          truncated: the packet ends before its headers do; no rule that needs them matched, the default decided
`,
		},
		"not IP": {
			change: func(k *packet.Key) { *k = packet.Key{Control: true, EtherType: 0x0806} },
			want: `
egress        4 rules, default drop
rules         no rule is asked: the packet is not IP
allow         control-frame: ARP or another link-control frame that is not IP, under a default that is not allow
`,
		},
		"later fragment": {
			change: func(k *packet.Key) { k.Fragment = packet.LaterFragment; k.Have &^= packet.HaveTransport },
			state:  tables.State{FragmentSeen: true, FragmentAction: verdict.Allow, FragmentRule: 2},
			want: `
egress        4 rules, default drop
rules         no rule is asked: the first fragment's verdict holds
allow         fragment: later fragment; it follows the verdict of its first fragment, rule web (line 11)
`,
		},
		"chain without rules": {
			change: func(k *packet.Key) { k.Direction = verdict.Ingress },
			want: `
ingress       0 rules, default allow
allow         default: no rule matched; the chain's default decided
`,
		},
	}
	set := compiled(t, office())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k := web
			if test.change != nil {
				test.change(&k)
			}
			trace := set.Trace(&k, test.state)
			if got := "\n" + trace.Text(); got != test.want {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestTraceSaysThatAuditLetsPass(t *testing.T) {
	p := office()
	p.Audit = true
	trace := compiled(t, p).Trace(&packet.Key{IP: true}, tables.State{})
	if text := trace.Text(); !strings.Contains(text, "mode audit: counted and reported, but the packet passes") {
		t.Errorf("no word about audit in\n%s", text)
	}
}

func TestTraceJSON(t *testing.T) {
	set := compiled(t, office())
	k := packet.Key{
		IP: true, Have: all, Family: 6, Src: addr("2001:db8::1"), Dst: addr("2001:db9::1"),
		Proto: packet.ProtoTCP, Selector: 443, SourcePort: 40000,
	}
	got, err := json.Marshal(set.Trace(&k, tables.State{}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"direction":"egress","rules":4,"steps":[` +
		`{"dimension":"destination","value":"2001:db9::1","class":0,"left":3,"first":["count-tcp","web","high"]},` +
		`{"dimension":"service","value":"tcp/443","class":2,"left":3,"first":["count-tcp","web","high"]},` +
		`{"dimension":"source port","value":"tcp/40000","class":0,"left":2,"first":["count-tcp","web"]}],` +
		`"continues":[{"index":0,"label":"count-tcp","action":"continue","line":5}],` +
		`"rule":{"index":2,"label":"web","action":"allow","line":11},` +
		`"default":"drop","verdict":"allow","reason":"rule","reason_text":"a rule of the policy decided"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The rules that the last step leaves are exactly those that the model's rules
// match, and begin with what Lookup found.
func TestTraceAgreesWithLookupAndModel(t *testing.T) {
	seed, err := oracle.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s=%d repeats this run", oracle.SeedVariable, seed)
	gen := oracle.NewGenerator(seed)
	located := 0
	for range 100 {
		p := gen.PolicyOf(1 + gen.Rand().IntN(150))
		set := compiled(t, p)
		for range 100 {
			k := gen.Key(p)
			st := gen.State(p, &k)
			c, rules := &set.Chains[k.Direction], p.Chains[k.Direction].Rules
			if st.FragmentRule != tables.NoRule {
				st.FragmentRule = int(c.Of[st.FragmentRule])
			}
			trace, res := set.Trace(&k, st), set.Lookup(&k, st)
			switch {
			case trace.Verdict != res.Action.String() || trace.Reason != res.Reason.String():
				t.Fatalf("trace %+v, lookup %+v", trace, res)
			case (trace.Rule != nil) != (res.Rule != tables.NoRule), trace.Rule != nil && trace.Rule.Index != c.Rules[res.Rule].First:
				t.Fatalf("trace rule %+v, lookup %+v", trace.Rule, res)
			case len(trace.Continues) != len(res.Continues):
				t.Fatalf("trace continues %+v, lookup %+v", trace.Continues, res)
			}
			if len(trace.Steps) == 0 {
				continue
			}
			matching, first := map[uint32]bool{}, ""
			for i := range rules {
				if oracle.Matches(&rules[i], &k, st.Names) {
					if len(matching) == 0 {
						first = c.Rules[c.Of[i]].Label
					}
					matching[c.Of[i]] = true
				}
				if oracle.Matches(&rules[i], &k, st.Names) != rules[i].Matches(&k, st.Names) {
					t.Fatalf("rule %+v of the model matches %+v: %v", &rules[i], k, rules[i].Matches(&k, st.Names))
				}
			}
			end := trace.Steps[len(trace.Steps)-1]
			if end.Left != len(matching) || len(matching) > 0 && end.First[0] != first {
				t.Fatalf("last step %+v, but %d rules match, the first %q", end, len(matching), first)
			}
			// The rule of the policy that a merged rule names is the one that the walk finds.
			trace.Locate(c, rules, &k, st.Names)
			if walk := oracle.Walk(p, &k, st); walk.Rule != tables.NoRule && trace.Rule.Merged > 0 {
				if m := trace.Rule.Matched; m == nil || m.Index != walk.Rule || m.Line != rules[walk.Rule].Pos.Line {
					t.Fatalf("trace finds %+v, the walk rule %d", m, walk.Rule)
				}
				located++
			}
		}
	}
	if located == 0 {
		t.Error("no packet met a merged rule")
	}
}

// A row's summary has a bit for each word stored behind it, none of which is
// zero, and no bit lies behind the last rule. Rows up to a cache line don't
// straddle two.
func TestRowsAreWellFormed(t *testing.T) {
	gen := oracle.NewGenerator(7)
	for range 30 {
		set := compiled(t, gen.PolicyOf(1+gen.Rand().IntN(200)))
		for i := range set.Chains {
			c := &set.Chains[i]
			for d := range tables.DimensionCount {
				v := &c.Vectors[d]
				if c.Used[d] && (c.Words == 1) != (v.Stride == 1) {
					t.Fatalf("%s: rows of %d words for vectors of %d", d, v.Stride, c.Words)
				}
				if v.Stride > 1 && 8%v.Stride != 0 && v.Stride%8 != 0 {
					t.Fatalf("%s: rows of %d words straddle cache lines", d, v.Stride)
				}
				for class := range c.ClassCount(d) {
					for w, word := range c.Vector(d, uint16(class)) {
						if word&^c.All(w) != 0 {
							t.Fatalf("%s class %d: bits behind the last rule", d, class)
						}
					}
					if v.Stride == 1 {
						continue
					}
					row := v.Words[class*v.Stride:][:v.Stride]
					stored := bits.OnesCount64(row[0])
					for w, word := range row[1:] {
						if (word != 0) != (w < stored) {
							t.Fatalf("%s class %d: summary %x in front of %x", d, class, row[0], row[1:])
						}
					}
				}
			}
		}
	}
}

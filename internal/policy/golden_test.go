package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"egate/internal/ipset"
	"egate/internal/verdict"
)

var update = flag.Bool("update", false, "write the golden files")

// TestExamples holds the model of each example against testdata/NAME.model.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find examples: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			p, problems := Load(file)
			if len(problems) > 0 {
				t.Fatalf("an example has no problems, not even warnings:\n%v", problems)
			}
			again, _ := Load(file)
			if !reflect.DeepEqual(p, again) {
				t.Error("read twice, the models differ")
			}
			golden := filepath.Join("testdata", name+".model")
			got := dump(p)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the model differs from %s (go test ./internal/policy -update writes it):\n%s", golden, got)
			}
		})
	}
}

// dump is a model as text.
func dump(p *Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %q interfaces %q audit %v flows %d\n", p.Name, p.Interfaces, p.Audit, p.MaxFlows)
	if p.DNS.Given {
		d := &p.DNS
		fmt.Fprintf(&b, "dns servers %v listed only %v nxdomain %v types %d max label %d rate %s elsewhere %v\n",
			d.Servers, d.ListedOnly, d.NXDomain, d.Types, d.MaxLabel, dumpEvents(d.Rate), d.Elsewhere)
	}
	for _, d := range verdict.Directions {
		c := &p.Chains[d]
		fmt.Fprintf(&b, "\n%v default %v replies %v events %s line %d:%d\n", d, c.Default, c.Replies, dumpEvents(c.Events), c.Pos.Line, c.Pos.Column)
		for i := range c.Rules {
			r := &c.Rules[i]
			fmt.Fprintf(&b, "  %s %v events %s line %d:%d\n", r.Label(i), r.Action, dumpEvents(r.Events), r.Pos.Line, r.Pos.Column)
			dumpSet(&b, "to", r.To)
			dumpSet(&b, "from", r.From)
			dumpDomains(&b, r)
			dumpServices(&b, "services", r.Services)
			dumpServices(&b, "source ports", r.SourcePorts)
		}
	}
	return b.String()
}

func dumpEvents(e EventRate) string {
	switch e {
	case NoEvents:
		return "none"
	case AllEvents:
		return "all"
	}
	return fmt.Sprintf("%d at once, then each %v", e.Burst, e.Interval)
}

func dumpSet(b *strings.Builder, what string, s *ipset.Set) {
	if s == nil {
		return
	}
	fmt.Fprintf(b, "    %s\n", what)
	for _, r := range s.Ranges() {
		fmt.Fprintf(b, "      %v-%v\n", r.First, r.Last)
	}
}

func dumpDomains(b *strings.Builder, r *Rule) {
	if r.Domains == nil {
		return
	}
	verify := map[Verify]string{VerifyNone: "none", VerifyWellKnown: "well known", VerifyAll: "all"}[r.Verify]
	fmt.Fprintf(b, "    domains verify %s drop ech %v drop quic %v\n", verify, r.DropECH, r.DropQUIC)
	for _, p := range r.Domains.Patterns() {
		fmt.Fprintf(b, "      %v\n", p)
	}
}

func dumpServices(b *strings.Builder, what string, services []Service) {
	if services == nil {
		return
	}
	fmt.Fprintf(b, "    %s", what)
	for _, s := range services {
		if s.Whole {
			fmt.Fprintf(b, " %d", s.Proto)
		} else {
			fmt.Fprintf(b, " %d/%d-%d", s.Proto, s.First, s.Last)
		}
	}
	b.WriteString("\n")
}

// accepted parses text that must have no problems.
func accepted(t *testing.T, text string) *Policy {
	t.Helper()
	p, problems := Parse("p.yaml", []byte(text), setFiles(testSetFiles))
	if len(problems) > 0 {
		t.Fatalf("%s\n%v", text, problems)
	}
	return p
}

func TestDefaults(t *testing.T) {
	got := dump(accepted(t, "version: 1\n"))
	want := `policy "" interfaces ["default"] audit false flows 65536

egress default allow replies true events none line 0:0

ingress default allow replies true events none line 0:0
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestServices(t *testing.T) {
	tests := []struct{ to, want string }{
		{"{protocols: [tcp, 6, gre, 1]}", "services 1 6 47"},
		{"{protocols: [6, \"6\", udp]}", "services 6 17"},
		{"{ports: [80]}", "services 6/80-80 17/80-80 132/80-80"},
		{"{ports: [\"80\", tcp/0-65535]}", "services 6/0-65535 17/80-80 132/80-80"},
		{"{ports: [udp/53, tcp/443, tcp/80-90, tcp/91, tcp/85-89]}", "services 6/80-91 6/443-443 17/53-53"},
		{"{ports: [tcp/65535, tcp/65534]}", "services 6/65534-65535"},
		{"{ports: [80], protocols: [tcp, udp]}", "services 6/80-80 17/80-80"},
		{"{icmp: [echo-request]}", "services 1/2048-2303 58/32768-33023"},
		{"{icmp: [port-unreachable, icmp/3/4, icmpv6/1]}", "services 1/771-772 58/256-511"},
		{"{icmp: [packet-too-big]}", "services 1/772-772 58/512-767"},
		{"{icmp: [icmp/255, icmp/254/255]}", "services 1/65279-65535"},
		{"{icmp: [neighbour-solicitation, neighbor-solicitation]}", "services 58/34560-34815"},
		{"{icmp: [echo-request], protocols: [icmp, icmpv6]}", "services 1/2048-2303 58/32768-33023"},
	}
	for _, tt := range tests {
		p := accepted(t, inTo(tt.to))
		var b strings.Builder
		dumpServices(&b, "services", p.Chains[verdict.Egress].Rules[0].Services)
		if got := strings.TrimSpace(b.String()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.to, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	const sets = "sets: {a: {addresses: [10.0.0.0/8, \"fd00::/8\"]}, b: {file: ok.txt}}\ningress: {default: allow, rules: [{action: drop, from: {sets: [a, b]}}]}\n"
	tests := []struct {
		to   string
		want []string
	}{
		{"{addresses: [10.0.0.2, 10.0.0.0/31, 10.0.0.9]}", []string{"10.0.0.0-10.0.0.2", "10.0.0.9-10.0.0.9"}},
		{"{addresses: [10.0.0.0/8, 192.0.2.1], sets: [a]}", []string{"10.0.0.0-10.255.255.255"}},
		{"{sets: [a], except: [10.0.0.0/9]}", []string{"10.128.0.0-10.255.255.255", "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"{except: [\"::/0\", 0.0.0.0/1]}", []string{"128.0.0.0-255.255.255.255"}},
	}
	for _, tt := range tests {
		p := accepted(t, inTo(tt.to)+sets)
		var got []string
		for _, r := range p.Chains[verdict.Egress].Rules[0].To.Ranges() {
			got = append(got, fmt.Sprintf("%v-%v", r.First, r.Last))
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.to, got, tt.want)
		}
	}
}

func TestRulesShareANamedSet(t *testing.T) {
	p := accepted(t, "version: 1\nsets: {a: {file: ok.txt}}\negress: {default: allow, rules: [{action: drop, to: {sets: [a]}}, {action: drop, from: {sets: [a], ports: [53]}}]}\n")
	rules := p.Chains[verdict.Egress].Rules
	if rules[0].To != rules[1].From {
		t.Error("two rules that name one set alone do not share it")
	}
}

func TestEventRates(t *testing.T) {
	tests := map[string]EventRate{
		"none": NoEvents, "all": AllEvents, "10/s": DefaultEvents,
		"5/m": {12 * time.Second, 5}, "1/h": {time.Hour, 1}, "1000000/s": {time.Microsecond, 1000000},
	}
	for text, want := range tests {
		p := accepted(t, inRule("action: allow\nevents: "+text))
		if got := p.Chains[verdict.Egress].Rules[0].Events; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// TestLimits: as much as is promised is read, and one more is refused where it
// stands.
func TestLimits(t *testing.T) {
	many := func(n int, action string) string {
		return "version: 1\negress:\n  default: drop\n  rules:\n" + strings.Repeat("  - {action: "+action+"}\n", n)
	}
	tests := []struct{ text, want string }{
		{many(longLists.from+1, "drop"), ""},
		{many(MaxRules+1, "drop"), "p.yaml:1000005:5: egress has 1000001 rules; a direction has at most 1000000, and any number of addresses in each"},
		{many(MaxContinueRules, "continue"), ""},
		{many(MaxContinueRules+2, "continue"), "p.yaml:69:5: egress has more than 64 rules with the action continue"},
		{"version: 1\nname: " + strings.Repeat("n", MaxNameLength) + "\nflows: {max: 16777216}\n", ""},
		{"version: 1 " + strings.Repeat("#", maxWhole-len("version: 1 \n")) + "\n", ""},
	}
	for _, tt := range tests {
		_, problems := Parse("p.yaml", []byte(tt.text), nil)
		if got := problems.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestExemptions(t *testing.T) {
	p := accepted(t, "version: 1\negress: {default: drop}\ningress: {default: reject, replies: false}\n")
	for d, want := range map[verdict.Direction]string{
		verdict.Egress:  "67, 546 to 547)|replies: packets of connections that the other side opened, and ICMP errors about them",
		verdict.Ingress: "68, 547 to 546)",
	} {
		if got := strings.Join(p.Exemptions(d), "|"); !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "link-control frames") {
			t.Errorf("%v: %s", d, got)
		}
	}
	p = accepted(t, "version: 1\negress: {default: allow}\n")
	if got := p.Exemptions(verdict.Egress); got != nil {
		t.Errorf("under a default of allow nothing is exempt, got %v", got)
	}
}

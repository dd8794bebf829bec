package datapath

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"egate/internal/testutil"
	"egate/internal/verdict"
)

// TestPoliciesWithNamesLoad: each way to use names is a program of its own to
// the verifier, whose limit is a million instructions.
func TestPoliciesWithNamesLoad(t *testing.T) {
	testutil.RequireRoot(t)
	const servers = "dns: {servers: [10.9.0.2]}\n"
	const all = "dns: {servers: [10.9.0.2], names: listed, types: [A, AAAA, HTTPS, TYPE300], max_label: 40, rate: 50/s, elsewhere: reject}\n"
	one := "egress:\n  default: drop\n  rules:\n    - {action: allow, to: {domains: [a.example, \"*.b.example\"], ports: [tcp/443]}}\n"
	strict := strings.Replace(one, "}}", "}, verify: sni, ech: drop, quic: drop}", 1)
	many := strings.Builder{}
	many.WriteString("egress:\n  default: reject\n  rules:\n    - {action: continue, to: {domains: [a.example]}}\n")
	for i := range 200 {
		fmt.Fprintf(&many, "    - {name: r%d, action: allow, from: {addresses: [10.0.%d.0/24]}, to: {domains: [n%d.example], ports: [tcp/%d]}}\n", i, i, i, 1000+i)
	}
	for _, c := range []struct{ name, policy string }{
		{"dns alone", "egress: {default: drop}\n" + servers},
		{"rules alone", one + servers},
		{"everything of dns", one + all},
		{"everything of rules", strict + servers},
		{"many rules, replies, all of dns", many.String() + all + "ingress: {default: drop}\n"},
		{"audit", "mode: audit\n" + strict + all},
	} {
		b := newTestBench(t, testSet(t, "interfaces: [lo]\n"+c.policy))
		info, err := b.loaded.EgatePolicy.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if ok && n > 500_000 {
			t.Errorf("%s: the verifier processed %d instructions", c.name, n)
		}
		t.Logf("%s: %d instructions", c.name, n)
		b.Close()
	}
}

// TestPoliciesWithoutNamesHaveNoTablesOfThem: what they don't use takes no
// memory.
func TestPoliciesWithoutNamesHaveNoTablesOfThem(t *testing.T) {
	testutil.RequireRoot(t)
	b := newTestBench(t, testSet(t, "interfaces: [lo]\negress: {default: drop}\n"))
	defer b.Close()
	for _, m := range []*ebpf.Map{
		b.loaded.Learned, b.loaded.Names, b.loaded.Questions, b.loaded.Bindings, b.loaded.Streams, b.loaded.StreamRooms,
		b.loaded.Domains, b.loaded.Resolvers, b.loaded.NameEpochs,
	} {
		if n := m.MaxEntries(); n != 1 {
			t.Errorf("%v has room for %d", m, n)
		}
	}
	for name := range b.state {
		for _, of := range nameStateMaps {
			if name == of {
				t.Errorf("the state has %s", name)
			}
		}
	}
}

// TestManyNames loads as many as block lists have.
func TestManyNames(t *testing.T) {
	testutil.RequireRoot(t)
	const n = 100_000
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "x%d.example, ", i)
	}
	b := newNamesBench(t, "", "name: list, action: drop, to: {domains: ["+list.String()+"\"*.deep.x7.example\"]}",
		"name: rest, action: allow, to: {domains: [\"*.example\"]}, verify: none")
	if got := b.loaded.Domains.MaxEntries(); got < n {
		t.Errorf("room for %d names, want %d", got, n)
	}
	b.learn(fmt.Sprintf("x%d.example", n-1), site4)
	b.expect("the last of the list", connect(site4, 50000, 443).syn(), verdict.Egress, decided{verdict.Drop, verdict.ReasonRule, ""})
	b.learn("y.example", site6)
	b.expect("another name", connect(site6, 50000, 443).syn(), verdict.Egress, byRule("y.example"))
}

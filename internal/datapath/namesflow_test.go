package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

const allowNamed = "name: named, action: allow, to: {domains: [a.example, \"*.b.example\"], ports: [tcp/443]}, verify: none"

var (
	toResolver = decided{verdict.Allow, verdict.ReasonDNS, ""}
	byDefault  = decided{verdict.Allow, verdict.ReasonDefault, ""}
	dropped    = decided{verdict.Drop, verdict.ReasonDefault, ""}
)

func named(d decided, name string) decided {
	d.name = name
	return d
}

func byRule(name string) decided { return decided{verdict.Allow, verdict.ReasonRule, name} }

// TestAnswerOpensForTheFirstPacket: not before it, and not for others.
func TestAnswerOpensForTheFirstPacket(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	x6 := exchange{here6, server6, 40001, 9, "x.y.b.example", dns.TypeAAAA}
	for _, c := range []struct {
		x      exchange
		record string
		site   netip.Addr
	}{
		{ask("a.example", dns.TypeA), "a.example. 60 IN A 192.0.2.80", site4},
		{x6, "x.y.b.example. 60 IN AAAA 2001:db8:80::1", site6},
		{ask("c.b.example", dns.TypeA), "c.b.example. 60 IN CNAME z.example.", netip.MustParseAddr("192.0.2.81")},
	} {
		first := connect(c.site, 50000, 443)
		b.expect("before the question", first.syn(), verdict.Egress, dropped)
		b.expect("question", c.x.question(), verdict.Egress, named(toResolver, c.x.name))
		b.expect("before the answer", first.syn(), verdict.Egress, dropped)
		records := []string{c.record}
		if c.x.name == "c.b.example" {
			records = append(records, "z.example. 60 IN A 192.0.2.81")
		}
		b.expect("answer", c.x.answer(records...), verdict.Ingress, named(byDefault, c.x.name))
		b.expect("first packet", first.syn(), verdict.Egress, byRule(c.x.name))
		b.expect("second packet", first.data(0, []byte("x")), verdict.Egress, byRule(c.x.name))
		b.expect("another port", connect(c.site, 50000, 444).syn(), verdict.Egress, dropped)
	}
	n := b.nameTotals()
	if n.AddressesNew != 3 || n.NamesNew != 3 || n.BindingsNew != 3 || n.Failed != 0 || n.Outcome[abiEgateDnsOutcomeEGATE_DNS_ASKED] != 3 || n.Outcome[abiEgateDnsOutcomeEGATE_DNS_LEARNED] != 3 {
		t.Errorf("totals %+v; want 3 of each", n)
	}
}

// TestAnswersThatOpenNothing changes one thing of an answer at a time. The
// outcome is what must be counted once.
func TestAnswersThatOpenNothing(t *testing.T) {
	const record = "a.example. 60 IN A 192.0.2.80"
	good := ask("a.example", dns.TypeA)
	with := func(f func(*exchange)) exchange {
		x := good
		f(&x)
		return x
	}
	changed := func(f func(*dns.Msg)) []byte {
		m := good.reply(record)
		f(m)
		return good.carry(pack(m))
	}
	for _, c := range []struct {
		name    string
		answer  []byte
		outcome int // abiEgateDnsOutcome; -1: none
	}{
		{"untrusted server", with(func(x *exchange) { x.server = other4 }).answer(record), -1},
		{"other server", frames.UDP(server6, here6, 53, good.port, pack(good.reply(record))), int(abiEgateDnsOutcomeEGATE_DNS_UNASKED)},
		{"other id", with(func(x *exchange) { x.id++ }).answer(record), int(abiEgateDnsOutcomeEGATE_DNS_UNASKED)},
		{"other port", with(func(x *exchange) { x.port++ }).answer(record), int(abiEgateDnsOutcomeEGATE_DNS_UNASKED)},
		{"other client", with(func(x *exchange) { x.client = other4 }).answer(record), int(abiEgateDnsOutcomeEGATE_DNS_UNASKED)},
		{"other source port", frames.UDP(server4, here4, 54, good.port, pack(good.reply(record))), -1},
		{"other name", with(func(x *exchange) { x.name = "x.b.example" }).answer("x.b.example. 60 IN A 192.0.2.80"), int(abiEgateDnsOutcomeEGATE_DNS_OTHER_NAME)},
		{"other type", with(func(x *exchange) { x.kind = dns.TypeAAAA }).answer(record), int(abiEgateDnsOutcomeEGATE_DNS_OTHER_NAME)},
		{"record of another name", good.answer("evil.example. 60 IN A 192.0.2.80"), int(abiEgateDnsOutcomeEGATE_DNS_EMPTY)},
		{"chain that leads elsewhere", good.answer("a.example. 60 IN CNAME z.example.", "y.example. 60 IN A 192.0.2.80"), int(abiEgateDnsOutcomeEGATE_DNS_EMPTY)},
		{"no records", good.answer(), int(abiEgateDnsOutcomeEGATE_DNS_EMPTY)},
		{"in the additional section", changed(func(m *dns.Msg) { m.Extra, m.Answer = m.Answer, nil }), int(abiEgateDnsOutcomeEGATE_DNS_EMPTY)},
		{"error", changed(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), int(abiEgateDnsOutcomeEGATE_DNS_ERROR)},
		{"not a response", changed(func(m *dns.Msg) { m.Response = false }), int(abiEgateDnsOutcomeEGATE_DNS_NOT_ANSWER)},
		{"other operation", changed(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), int(abiEgateDnsOutcomeEGATE_DNS_NOT_ANSWER)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newNamesBench(t, "", allowNamed)
			b.judge(good.question(), verdict.Egress)
			b.judge(c.answer, verdict.Ingress)
			b.expect("first packet", connect(site4, 50000, 443).syn(), verdict.Egress, dropped)
			want := abiEgateNameTotals{}
			want.Outcome[abiEgateDnsOutcomeEGATE_DNS_ASKED] = 1
			if c.outcome >= 0 {
				want.Outcome[c.outcome] = 1
			}
			if got := b.nameTotals().Outcome; got != want.Outcome {
				t.Errorf("outcomes %v, want %v", got, want.Outcome)
			}
		})
	}
}

func TestUnaskedAndSecondAnswers(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	x := ask("a.example", dns.TypeA)
	b.judge(x.answer("a.example. 60 IN A 192.0.2.80"), verdict.Ingress)
	b.expect("unasked", connect(site4, 50000, 443).syn(), verdict.Egress, dropped)
	b.judge(x.question(), verdict.Egress)
	b.judge(x.answer("a.example. 60 IN A 192.0.2.90"), verdict.Ingress)
	b.judge(x.answer("a.example. 60 IN A 192.0.2.80"), verdict.Ingress)
	b.expect("second answer", connect(site4, 50000, 443).syn(), verdict.Egress, dropped)
	if n := b.outcome(abiEgateDnsOutcomeEGATE_DNS_UNASKED); n != 2 {
		t.Errorf("%d unasked answers, want 2", n)
	}
}

func TestSpecialAddressesAreNotOpened(t *testing.T) {
	b := newNamesBench(t, "", "action: allow, to: {domains: [a.example]}, verify: none")
	special := []string{"127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255"}
	var records []string
	for _, a := range special {
		records = append(records, "a.example. 60 IN A "+a)
	}
	x := ask("a.example", dns.TypeA)
	b.judge(x.question(), verdict.Egress)
	b.judge(x.answer(records...), verdict.Ingress)
	for _, a := range special {
		got, _ := b.judge(frames.UDP(here4, netip.MustParseAddr(a), 4000, 4000, nil), verdict.Egress)
		if got != dropped {
			t.Errorf("%s: %v, want %v", a, got, dropped)
		}
	}
	if n := b.nameTotals(); n.AddressesSpecial != uint64(len(special)) || n.AddressesNew != 0 {
		t.Errorf("%d special, %d new; want %d and 0", n.AddressesSpecial, n.AddressesNew, len(special))
	}
}

// TestNamesSurvivePolicies: their classes change with each policy, and nobody
// but the program reads the names again.
func TestNamesSurvivePolicies(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	b.learn("a.example", site4)
	b.learn("x.b.example", site6)
	open := connect(site4, 50000, 443)
	b.expect("first policy", open.syn(), verdict.Egress, byRule("a.example"))
	second := namesSet(t, "",
		"name: unused, action: allow, to: {domains: [q.example, \"*.r.example\"]}, verify: none",
		"name: only-b, action: allow, to: {domains: [\"*.b.example\"]}, verify: none")
	b.apply(second)
	b.expect("no longer listed", connect(site4, 50001, 443).syn(), verdict.Egress, dropped)
	b.expect("its connection", open.data(0, []byte("x")), verdict.Egress, dropped)
	b.expect("still listed", connect(site6, 50002, 443).syn(), verdict.Egress, byRule("x.b.example"))
	b.apply(namesSet(t, "", allowNamed))
	b.expect("listed again", connect(site4, 50003, 443).syn(), verdict.Egress, byRule("a.example"))
	b.expect("its connection again", open.data(0, []byte("x")), verdict.Egress, byRule("a.example"))
	if n := b.nameTotals(); n.NamesForgotten != 0 {
		t.Errorf("%d names forgotten", n.NamesForgotten)
	}
}

// TestForgottenTextOpensNothing: a policy that can't see what the name is.
func TestForgottenTextOpensNothing(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	b.learn("a.example", site4)
	if err := b.state[namesMap].Delete(benchKey.Hash("a.example")); err != nil {
		t.Fatal(err)
	}
	b.expect("the policy that learned it", connect(site4, 50000, 443).syn(), verdict.Egress, byRule(""))
	b.apply(namesSet(t, "", allowNamed))
	b.expect("the next one", connect(site4, 50001, 443).syn(), verdict.Egress, dropped)
	if n := b.nameTotals(); n.NamesForgotten == 0 {
		t.Error("no name was counted as forgotten")
	}
}

// TestManyNamesOfAnAddress: the eight that end last stay.
func TestManyNamesOfAnAddress(t *testing.T) {
	var rules []string
	for i := range 10 {
		rules = append(rules, fmt.Sprintf("name: r%d, action: allow, to: {domains: [n%d.example], ports: [tcp/%d]}, verify: none", i, i, 1000+i))
	}
	b := newNamesBench(t, "", rules...)
	for i := range 10 {
		x := ask(fmt.Sprintf("n%d.example", i), dns.TypeA)
		b.judge(x.question(), verdict.Egress)
		b.judge(x.answer(fmt.Sprintf("n%d.example. %d IN A 192.0.2.80", i, 1000-i)), verdict.Ingress)
	}
	for i := range 10 {
		want := byRule(fmt.Sprintf("n%d.example", i))
		if i == 7 || i == 8 { // the ninth took the place of the eighth, and the tenth that of the ninth
			want = dropped
		}
		b.expect(fmt.Sprintf("name %d", i), connect(site4, 50000, uint16(1000+i)).syn(), verdict.Egress, want)
	}
	if n := b.nameTotals(); n.NamesDisplaced != 2 {
		t.Errorf("%d names displaced, want 2", n.NamesDisplaced)
	}
}

// TestBoundConnectionsOutliveTheirNames: the answer's time is over.
func TestBoundConnectionsOutliveTheirNames(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	writeLearned(t, b.state, site4, 50_000_000, "a.example")
	c := connect(site4, 50000, 443)
	b.expect("alive", c.syn(), verdict.Egress, byRule("a.example"))
	limit, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	for now := limit; now < limit+200_000_000; {
		if now, err = monotonic(); err != nil {
			t.Fatal(err)
		}
	}
	b.expect("new connection", connect(site4, 50001, 443).syn(), verdict.Egress, dropped)
	b.expect("bound connection", c.data(0, []byte("x")), verdict.Egress, byRule("a.example"))
	b.expect("its ports again", c.syn(), verdict.Egress, dropped)
}

// TestEvictionIsCounted fills the table of addresses beyond its end.
func TestEvictionIsCounted(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	x := ask("a.example", dns.TypeA)
	var records []string
	const perAnswer = 100
	answers := int(nameMapSizes[learnedMap])/perAnswer + 100
	for i := range answers {
		records = records[:0]
		for j := range perAnswer {
			n := uint32(i*perAnswer + j)
			records = append(records, fmt.Sprintf("a.example. 60 IN A %v", netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})))
		}
		b.Run(t, x.question(), verdict.Egress)
		b.Run(t, x.answer(records...), verdict.Ingress)
		b.NextEvent(t)
		b.NextEvent(t)
	}
	totals := &NamesStatus{}
	sum, err := totals.readTotals(b.state)
	if err != nil {
		t.Fatal(err)
	}
	if err := totals.readTables(b.state, sum); err != nil {
		t.Fatal(err)
	}
	table := totals.Tables[0]
	learned := uint64(answers * perAnswer)
	if totals.Addresses.New != learned || table.Name != learnedMap || table.Known > table.Max || *table.Evicted != learned-table.Known || *table.Evicted == 0 {
		t.Errorf("%d new, table %+v, %d evicted; want %d new and the rest evicted", totals.Addresses.New, table, *table.Evicted, learned)
	}
	// What somebody takes out is not evicted.
	var key abiEgateAddr
	if err := b.state[learnedMap].NextKey(nil, &key); err != nil {
		t.Fatal(err)
	}
	if err := b.state[learnedMap].Delete(&key); err != nil {
		t.Fatal(err)
	}
	if err := b.state[sweptMap].Put(sweptAddresses, uint64(1)); err != nil {
		t.Fatal(err)
	}
	swept := &NamesStatus{}
	if err := swept.readTables(b.state, sum); err != nil {
		t.Fatal(err)
	}
	if *swept.Tables[0].Evicted != *table.Evicted {
		t.Errorf("after a sweep %d evicted, before %d", *swept.Tables[0].Evicted, *table.Evicted)
	}
}

package datapath

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// The hosts of the tests with names.
var (
	here4, here6     = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	server4, server6 = netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53")
	other4           = netip.MustParseAddr("10.0.0.54")
	site4, site6     = netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8:80::1")
)

const benchServers = "servers: [10.0.0.53, \"2001:db8::53\"]"

// namesBench is a testBench of a policy with names.
type namesBench struct {
	*testBench
	t *testing.T
}

// newNamesBench loads a policy of these egress rules, one a line, and dns keys.
func newNamesBench(t *testing.T, dnsKeys string, rules ...string) *namesBench {
	t.Helper()
	testutil.RequireRoot(t)
	b := &namesBench{newTestBench(t, namesSet(t, dnsKeys, rules...)), t}
	t.Cleanup(func() { b.Close() })
	return b
}

func namesSet(t *testing.T, dnsKeys string, rules ...string) *tables.Set {
	t.Helper()
	text := "interfaces: [lo]\negress:\n  default: drop\n"
	if len(rules) > 0 {
		text += "  rules:\n"
	}
	for _, r := range rules {
		text += "    - {" + r + "}\n"
	}
	set := testSet(t, text+"dns: {"+benchServers+dnsKeys+"}\n")
	reportAll(set)
	return set
}

// reportAll makes every decision an event.
func reportAll(set *tables.Set) {
	for d := range set.Chains {
		c := &set.Chains[d]
		c.Events = policy.AllEvents
		for i := range c.Rules {
			c.Rules[i].Events = policy.AllEvents
		}
	}
}

// apply loads another policy on the same state, as a switch would.
func (b *namesBench) apply(set *tables.Set) {
	b.t.Helper()
	reportAll(set)
	b.generation++
	fresh, err := b.load(set)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(fresh)
}

// put takes the loaded policy's place, and closes what stood there.
func (b *namesBench) put(fresh *loaded) {
	b.loaded.policyMaps.Close()
	b.loaded.policyPrograms.Close()
	b.loaded = fresh
}

// decided is what a test wants to see of a decision.
type decided struct {
	action verdict.Action
	reason verdict.Reason
	name   string
}

func (d decided) String() string {
	return fmt.Sprintf("%v for %v with name %q", d.action, d.reason, d.name)
}

// judge runs a packet and gives what its event says.
func (b *namesBench) judge(frame []byte, dir verdict.Direction) (d decided, out []byte) {
	b.t.Helper()
	_, out = b.Run(b.t, frame, dir)
	e := b.NextEvent(b.t)
	var full RingEvent
	if err := full.decode(b.record.RawSample); err != nil {
		b.t.Fatal(err)
	}
	d = decided{verdict.Action(e.Action), verdict.Reason(e.Reason), ""}
	switch {
	case e.NameLength > 0:
		d.name, _ = textOfWire(full.wire[:], e.NameLength)
	case e.Name != 0:
		var err error
		if d.name, err = hashText(b.state[namesMap], e.Name); err != nil {
			b.t.Fatal(err)
		}
	}
	return d, out
}

func (b *namesBench) expect(what string, frame []byte, dir verdict.Direction, want decided) []byte {
	b.t.Helper()
	got, out := b.judge(frame, dir)
	if got != want {
		b.t.Errorf("%s: %v, want %v", what, got, want)
	}
	return out
}

// exchange is a question, and what its answer needs to fit.
type exchange struct {
	client, server netip.Addr
	port           uint16
	id             uint16
	name           string
	kind           uint16
}

func ask(name string, kind uint16) exchange {
	return exchange{here4, server4, 40000, 7, name, kind}
}

func (x exchange) message() *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(x.name), x.kind)
	m.Id = x.id
	return m
}

func (x exchange) question() []byte {
	return frames.UDP(x.client, x.server, x.port, 53, pack(x.message()))
}

// reply is an answer with records in zone file form.
func (x exchange) reply(records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(x.message())
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func (x exchange) answer(records ...string) []byte { return x.carry(pack(x.reply(records...))) }

// carry sends a payload back.
func (x exchange) carry(payload []byte) []byte {
	return frames.UDP(x.server, x.client, 53, x.port, payload)
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// outcome gives how many messages had an outcome.
func (b *namesBench) outcome(o abiEgateDnsOutcome) uint64 {
	b.t.Helper()
	return b.nameTotals().Outcome[o]
}

func (b *namesBench) nameTotals() *abiEgateNameTotals {
	b.t.Helper()
	var perCPU []abiEgateNameTotals
	if err := b.state[nameTotalsMap].Lookup(uint32(0), &perCPU); err != nil {
		b.t.Fatal(err)
	}
	return addNameTotals(perCPU)
}

// learn lets an address be learned through a question and its answer.
func (b *namesBench) learn(name string, addr netip.Addr) {
	b.t.Helper()
	x, record := ask(name, dns.TypeA), "A"
	if addr.Is6() {
		x.kind, record = dns.TypeAAAA, "AAAA"
	}
	b.judge(x.question(), verdict.Egress)
	before := b.outcome(abiEgateDnsOutcomeEGATE_DNS_LEARNED)
	b.judge(x.answer(fmt.Sprintf("%s. 300 IN %s %v", name, record, addr)), verdict.Ingress)
	if b.outcome(abiEgateDnsOutcomeEGATE_DNS_LEARNED) != before+1 {
		b.t.Fatalf("%s was not learned for %v: %+v", name, addr, b.nameTotals())
	}
}

// connection is a TCP connection from here.
type connection struct {
	from, to         netip.Addr
	port, remotePort uint16
}

func connect(to netip.Addr, port, remotePort uint16) connection {
	if to.Is6() {
		return connection{here6, to, port, remotePort}
	}
	return connection{here4, to, port, remotePort}
}

const connectionStart = 1000 // sequence number of the SYN

func (c connection) syn() []byte {
	return frames.TCP(c.from, c.to, c.port, c.remotePort, packet.FlagSYN, nil)
}

// data is a segment at an offset of what is sent.
func (c connection) data(offset int, payload []byte) []byte {
	frame := frames.TCP(c.from, c.to, c.port, c.remotePort, packet.FlagACK, payload)
	at := 14 + 20
	if c.to.Is6() {
		at = 14 + 40
	}
	binary.BigEndian.PutUint32(frame[at+4:], uint32(connectionStart+1+offset))
	return frame
}

// hello is the ClientHello of a Go client.
func hello(name string) []byte {
	a, z := net.Pipe()
	sent := make(chan []byte, 1)
	go func() {
		defer z.Close()
		buffer := make([]byte, 16384)
		n, err := z.Read(buffer)
		if err != nil {
			n = 0
		}
		sent <- buffer[:n]
	}()
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	// The other side reads the hello and hangs up, which is an error.
	if err := tls.Client(a, config).Handshake(); err == nil {
		panic(errors.New("a handshake with nobody"))
	}
	a.Close()
	return <-sent
}

// withExtension adds an empty extension to a ClientHello.
func withExtension(hello []byte, kind uint16) []byte {
	out := append(append([]byte{}, hello...), byte(kind>>8), byte(kind), 0, 0)
	lengthen := func(at, size int) {
		if size == 3 {
			n := int(out[at])<<16 | int(out[at+1])<<8 | int(out[at+2])
			n += 4
			out[at], out[at+1], out[at+2] = byte(n>>16), byte(n>>8), byte(n)
			return
		}
		binary.BigEndian.PutUint16(out[at:], binary.BigEndian.Uint16(out[at:])+4)
	}
	lengthen(3, 2)
	lengthen(6, 3)
	at := 5 + 4 + 2 + 32 // record, handshake, version, random
	at += 1 + int(out[at])
	at += 2 + int(binary.BigEndian.Uint16(out[at:]))
	at += 1 + int(out[at])
	lengthen(at, 2)
	return out
}

package demo

import (
	"errors"
	"fmt"

	"egate/internal/datapath"
	"egate/internal/packet"
	"egate/internal/verdict"
)

// judge tells which attempts did not go as the policy says.
func (d *demo) judge() error {
	var wrong error
	for _, a := range d.attempts {
		if a.wrong > 0 {
			wrong = errors.Join(wrong, fmt.Errorf("%s to %s: expected %v, but %d of %d tries were not: %w",
				a.what, a.to, a.expected, a.wrong, a.tries, ErrNotAsWritten))
		}
	}
	return wrong
}

// judgeCounters tells whether the kernel counted what was sent. An attempt is at
// least one packet: some pings send a second one before they give up, and TCP
// may send its SYN again before it sees the answer.
func (d *demo) judgeCounters(s *datapath.Status) error {
	pings, refused := uint64(0), uint64(0)
	for _, a := range d.attempts {
		switch a.expected {
		case blocked:
			pings += uint64(a.tries)
		case rejected:
			refused += uint64(a.tries)
		}
	}
	rules := map[string]datapath.RuleCounters{}
	for _, r := range s.Chains[verdict.Egress].Rules {
		rules[r.Label] = r.RuleCounters
	}
	var wrong error
	fail := func(format string, args ...any) {
		wrong = errors.Join(wrong, fmt.Errorf(format+": %w", append(args, ErrNotAsWritten)...))
	}
	ping := rules["no-ping"]
	if got := ping.Dropped.Packets; got < pings {
		fail("%d pings were dropped, rule no-ping counted %d", pings, got)
	}
	if ping.Allowed.Packets > 0 {
		fail("rule no-ping let %d packets pass", ping.Allowed.Packets)
	}
	web := rules["no-web"]
	if got := web.Rejected.Packets + web.Dropped.Packets; got < refused {
		fail("%d connections were refused, rule no-web counted %d", refused, got)
	}
	if web.Allowed.Packets > 0 {
		fail("rule no-web let %d packets pass", web.Allowed.Packets)
	}
	counted := map[uint8]datapath.ProtocolTotals{}
	for _, p := range s.Totals[verdict.Egress].Protocols {
		counted[p.Number] = p
	}
	expected := []uint8{packet.ProtoICMP, packet.ProtoTCP, packet.ProtoUDP}
	if d.network.hasIPv6 {
		expected = append(expected, packet.ProtoICMPv6)
	}
	for _, number := range expected {
		if p := counted[number]; p.Passed.Packets+p.Blocked.Packets == 0 {
			fail("%s was sent, and not counted", packet.ProtoName(number))
		}
	}
	return wrong
}

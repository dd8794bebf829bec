package datapath

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"

	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// fragmented turns an IPv4 frame into a fragment: the first with an offset of
// 0, in units of 8 bytes.
func fragmented(frame []byte, offset uint16) []byte {
	const moreFragments = 0x2000
	out := append([]byte{}, frame...)
	binary.BigEndian.PutUint16(out[14+6:], moreFragments|offset)
	return out
}

// cutTransport leaves an IPv4 frame 8 bytes behind its header, and says so in its
// length.
func cutTransport(frame []byte) []byte {
	out := append([]byte{}, frame[:14+20+8]...)
	binary.BigEndian.PutUint16(out[14+2:], 20+8)
	return out
}

// TestRequestsThatCannotBeRead: what hides its request, or its ports, does not
// pass a rule that verifies names.
func TestRequestsThatCannotBeRead(t *testing.T) {
	const everyPort = "name: named, action: allow, to: {domains: [a.example]}"
	unreadable := decided{verdict.Drop, verdict.ReasonNameUnreadable, "a.example"}
	conn := connect(site4, 50000, 443)
	data := conn.data(0, hello("a.example"))
	for _, c := range []struct {
		name, rule string
		frame      []byte
	}{
		{"first fragment", verifyNamed, fragmented(data, 0)},
		{"first fragment without payload", verifyNamed, fragmented(conn.data(0, nil), 0)},
		{"later fragment", everyPort, fragmented(data, 100)},
		{"ports beyond the end", everyPort, cutTransport(data)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newNamesBench(t, "", c.rule)
			b.learn("a.example", site4)
			b.expect("syn", conn.syn(), verdict.Egress, byRule("a.example"))
			b.expect(c.name, c.frame, verdict.Egress, unreadable)
			b.expect("whole", data, verdict.Egress, byRule("a.example"))
		})
	}
}

// TestConnectionsOlderThanTheirName meet the rules that ask for no name; one
// that began here and was forgotten does not.
func TestConnectionsOlderThanTheirName(t *testing.T) {
	b := newNamesBench(t, "", verifyNamed, "name: rest, action: allow")
	b.learn("a.example", site4)
	old := connect(site4, 50000, 443)
	b.expect("unseen", old.data(0, []byte("in the middle")), verdict.Egress, byRule("a.example"))
	b.expect("unseen, goes on", old.data(13, []byte("of it")), verdict.Egress, decided{verdict.Allow, verdict.ReasonRule, ""})

	begun := connect(site4, 50001, 443)
	evil := hello("evil.example")
	b.expect("syn", begun.syn(), verdict.Egress, byRule("a.example"))
	b.expect("half a hello", begun.data(0, evil[:100]), verdict.Egress, byRule("a.example"))
	var key abiEgateFlowKey
	for iterator := b.state[streamRoomsMap].Iterate(); iterator.Next(&key, new([]byte)); {
		if err := b.state[streamRoomsMap].Delete(&key); err != nil {
			t.Fatal(err)
		}
	}
	b.expect("the other half", begun.data(100, evil[100:]), verdict.Egress, refusedFor(verdict.ReasonNameUnreadable, "a.example"))
}

// TestQuestionsThatCannotBeRead do not leave where only listed names may be
// asked for.
func TestQuestionsThatCannotBeRead(t *testing.T) {
	const anything = "name: anything, action: allow, to: {addresses: [10.0.0.0/8]}"
	question := ask("a.example", dns.TypeA).question()
	for _, c := range []struct {
		name, dns string
		frame     []byte
		want      decided
	}{
		{"listed", ", names: listed", cutTransport(frames.TCP(here4, server4, 40000, 53, 0, nil)), decided{verdict.Drop, verdict.ReasonDNSQuestion, ""}},
		{"fragment", ", names: listed", fragmented(question, 0), decided{verdict.Drop, verdict.ReasonDNSQuestion, ""}},
		{"any", "", cutTransport(frames.TCP(here4, server4, 40000, 53, 0, nil)), byRule("")},
		{"another address", ", names: listed", cutTransport(frames.TCP(here4, other4, 40000, 53, 0, nil)), byRule("")},
	} {
		t.Run(c.name, func(t *testing.T) {
			newNamesBench(t, c.dns, anything).expect(c.name, c.frame, verdict.Egress, c.want)
		})
	}
}

// TestAnswersOfAnotherInterfaceOpenNothing: who is behind one interface could
// forge the answer to what was asked by another.
func TestAnswersOfAnotherInterfaceOpenNothing(t *testing.T) {
	b := newNamesBench(t, "", allowNamed)
	x := ask("a.example", dns.TypeA)
	b.judge(x.question(), verdict.Egress)
	var key abiEgateQuestionKey
	var asked abiEgateQuestion
	iterator := b.state[questionsMap].Iterate()
	if !iterator.Next(&key, &asked) {
		t.Fatalf("no question is remembered: %v", iterator.Err())
	}
	asked.Ifindex++
	if err := b.state[questionsMap].Put(&key, &asked); err != nil {
		t.Fatal(err)
	}
	b.judge(x.answer("a.example. 60 IN A 192.0.2.80"), verdict.Ingress)
	b.expect("first packet", connect(site4, 50000, 443).syn(), verdict.Egress, dropped)
	if n := b.outcome(abiEgateDnsOutcomeEGATE_DNS_UNASKED); n != 1 {
		t.Errorf("%d answers were unasked, want 1", n)
	}
}

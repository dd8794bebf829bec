package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"egate/internal/compile"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// TestRefusedConnectionsAreForgotten: a SYN to a closed port is answered by a
// reset, which passes as a reply and takes the connection out of the table, so
// that such SYNs don't crowd out connections that live. A reset within a
// connection does not.
func TestRefusedConnectionsAreForgotten(t *testing.T) {
	testutil.RequireRoot(t)
	p := &policy.Policy{Name: "replies", MaxFlows: policy.MinFlows}
	p.Chains[verdict.Egress] = policy.Chain{Default: verdict.Drop, Replies: true, Events: policy.AllEvents}
	p.Chains[verdict.Ingress] = policy.Chain{Default: verdict.Allow, Events: policy.AllEvents}
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBench(t, set)
	defer b.Close()
	here, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9")
	syn := frames.TCP(peer, here, 40000, 81, packet.FlagSYN, nil)
	reset := frames.TCP(here, peer, 81, 40000, packet.FlagRST|packet.FlagACK, nil)
	refusal := append([]byte{}, reset...)
	binary.BigEndian.PutUint32(refusal[14+20+4:], 0)

	for i, c := range []struct {
		frame  []byte
		dir    verdict.Direction
		action verdict.Action
		reason verdict.Reason
	}{
		{reset, verdict.Egress, verdict.Drop, verdict.ReasonDefault}, // nobody asked
		{syn, verdict.Ingress, verdict.Allow, verdict.ReasonDefault},
		{reset, verdict.Egress, verdict.Allow, verdict.ReasonReply},
		{refusal, verdict.Egress, verdict.Allow, verdict.ReasonReply}, // still known
		{refusal, verdict.Egress, verdict.Drop, verdict.ReasonDefault},
		{syn, verdict.Ingress, verdict.Allow, verdict.ReasonDefault}, // the peer tries again
		{refusal, verdict.Egress, verdict.Allow, verdict.ReasonReply},
	} {
		b.Run(t, c.frame, c.dir)
		e := b.NextEvent(t)
		if verdict.Action(e.Action) != c.action || verdict.Reason(e.Reason) != c.reason {
			t.Errorf("packet %d: %v for %v, want %v for %v", i, verdict.Action(e.Action), verdict.Reason(e.Reason), c.action, c.reason)
		}
	}
}

// TestRepliesUseUpNoEvents: under a default of drop, what passes all the same
// is not reported at the default's rate, and leaves it to what is dropped.
func TestRepliesUseUpNoEvents(t *testing.T) {
	testutil.RequireRoot(t)
	p := &policy.Policy{Name: "events", MaxFlows: policy.MinFlows}
	p.Chains[verdict.Egress] = policy.Chain{Default: verdict.Drop, Replies: true, Events: policy.DefaultEvents}
	p.Chains[verdict.Ingress] = policy.Chain{Default: verdict.Allow}
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBench(t, set)
	defer b.Close()
	here, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9")
	b.Run(t, frames.UDP(peer, here, 40000, 53, nil), verdict.Ingress)
	for range 100 {
		b.Run(t, frames.UDP(here, peer, 53, 40000, nil), verdict.Egress)
	}
	b.Run(t, frames.UDP(here, peer, 9, 9, nil), verdict.Egress)
	if e := b.NextEvent(t); verdict.Action(e.Action) != verdict.Drop || e.SourcePort != 9 {
		t.Errorf("the first event is %v from port %d, want the dropped packet", verdict.Action(e.Action), e.SourcePort)
	}
	if n := b.Totals(t, verdict.Egress); n.EventsSent != 1 || n.EventsSuppressed != 0 || n.Reason[verdict.ReasonReply].Packets != 100 {
		t.Errorf("%d events sent, %d suppressed, %d replies; want 1, 0, 100", n.EventsSent, n.EventsSuppressed, n.Reason[verdict.ReasonReply].Packets)
	}
}

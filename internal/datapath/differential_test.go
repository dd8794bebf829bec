package datapath

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"egate/internal/compile"
	"egate/internal/ipset"
	"egate/internal/oracle"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

var differentialPairs = flag.Int("egate.pairs", 20_000, "pairs of a random policy and a random frame to compare")

// TestDifferential holds three judges against each other on the same frames: a
// naive walk over the model, tables.Lookup and the BPF program. Action, rule,
// reason and what is remembered must agree packet by packet, and all counters
// to the last packet and byte policy by policy.
func TestDifferential(t *testing.T) {
	testutil.RequireRoot(t)
	seed, err := oracle.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s=%d", oracle.SeedVariable, seed)
	g := oracle.NewGenerator(seed)

	const perPolicy = 2500
	for done := 0; done < *differentialPairs; done += perPolicy {
		p := g.Policy()
		for d := range p.Chains { // every decision must come back as an event
			p.Chains[d].Events = policy.AllEvents
			for r := range p.Chains[d].Rules {
				p.Chains[d].Rules[r].Events = policy.AllEvents
				p.Chains[d].Rules[r].Verify = policy.VerifyNone // what requests do, other tests tell
			}
		}
		compareJudges(t, g, p, perPolicy)
		if t.Failed() {
			t.Fatalf("after %d pairs; repeat with %s=%d", done, oracle.SeedVariable, seed)
		}
	}
}

// judged is one frame and what the model side says of it.
type judged struct {
	frame  []byte
	key    packet.Key
	state  tables.State
	result tables.Result
}

func compareJudges(t *testing.T, g *oracle.Generator, p *policy.Policy, pairs int) {
	t.Helper()
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	bench := newTestBench(t, set)
	defer bench.Close()

	fg := frames.New(g.Rand())
	takeFromPolicy(g, fg, p)
	seen := newMemory(set, oracle.WorldOf(p))
	want := newTally(set)
	const batch = 2000
	for pairs > 0 {
		var batched []judged
		for range min(batch, pairs) {
			j := judged{frame: runnable(fg.Frame())}
			if n := len(batched); n > 0 && g.Rand().IntN(3) == 0 {
				// The program remembers what rules a packet met: see bpf/include/cache.h.
				j.frame = batched[n-1-g.Rand().IntN(min(n, 8))].frame
			}
			dir := verdict.Direction(g.Rand().IntN(2))
			info := packet.FrameInfo{Direction: dir}
			j.key = packet.Decode(j.frame, info)
			st := seen.state(&j.key, j.frame, info)
			if st.Resolver && j.key.Proto == packet.ProtoTCP {
				continue // DNS over TCP is read as a stream
			}
			j.result = oracle.InTables(&set.Chains[dir], oracle.Walk(p, &j.key, st))
			if byTables := set.Lookup(&j.key, st); !sameResult(byTables, j.result) {
				t.Fatalf("walk says %+v, tables %+v of %v", j.result, byTables, &j.key)
			}
			seen.remember(&j.key, j.frame, j.result)
			j.state = st
			seen.bind(&j.key, st, j.result)
			bench.know(t, seen, &j.key)
			want.count(&j)
			bench.Run(t, j.frame, dir)
			batched = append(batched, j)
		}
		for i := range batched {
			j := &batched[i]
			e := bench.NextEvent(t)
			if err := sameDecision(e, j); err != nil {
				t.Fatalf("packet %d of %d: %v\n%v\nframe %x", i, len(batched), err, &j.key, j.frame)
			}
			if err := sameName(e, j); err != nil {
				t.Fatalf("packet %d of %d: %v\n%v\nframe %x", i, len(batched), err, &j.key, j.frame)
			}
			want.correct(j, verdict.Reason(e.Reason))
		}
		pairs -= len(batched)
	}
	if err := want.compare(t, bench); err != nil {
		t.Fatal(err)
	}
}

// runnable puts a tag before an IP header that is cut short: newer kernels
// refuse test runs of a frame that ends before the header its type promises.
func runnable(frame []byte) []byte {
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == frames.TypeIPv4 && len(frame) < 14+20, kind == frames.TypeIPv6 && len(frame) < 14+40:
		return frames.VLAN(frame, frames.TypeVLAN, 1)
	}
	return frame
}

func sameResult(a, b tables.Result) bool {
	return a.Action == b.Action && a.Rule == b.Rule && a.Reason == b.Reason && fmt.Sprint(a.Continues) == fmt.Sprint(b.Continues)
}

// sameDecision compares an event with what the model says. A rejected packet's
// reason becomes that of its answer where it gets none.
func sameDecision(e *abiEgateEvent, j *judged) error {
	rule := tables.NoRule
	if e.Rule != uint32(abiEgateLimitEGATE_LIMIT_NO_RULE) {
		rule = int(e.Rule)
	}
	action, reason := verdict.Action(e.Action), verdict.Reason(e.Reason)
	wantReason := []verdict.Reason{j.result.Reason}
	if j.result.Action == verdict.Reject && j.result.Reason != verdict.ReasonFragment {
		if answerable(&j.key, j.frame) {
			wantReason = append(wantReason, verdict.ReasonRejectLimited)
		} else {
			wantReason = []verdict.Reason{verdict.ReasonRejectUnanswerable}
		}
	}
	for _, r := range wantReason {
		if action == j.result.Action && reason == r && rule == j.result.Rule {
			return sameFields(e, &j.key)
		}
	}
	return fmt.Errorf("program says %v by rule %d for %v, model %v by rule %d for %v",
		action, rule, reason, j.result.Action, j.result.Rule, wantReason)
}

func sameFields(e *abiEgateEvent, k *packet.Key) error {
	got := packet.Key{Have: packet.Have(e.Have), Family: e.Family, EtherType: e.EtherType, Fragment: packet.Fragment(e.Fragment),
		IP: e.IsIp != 0, Direction: verdict.Direction(e.Direction)}
	want := packet.Key{Have: k.Have, Family: k.Family, EtherType: k.EtherType, Fragment: k.Fragment, IP: k.IP, Direction: k.Direction}
	if k.Has(packet.HaveSrc) {
		got.Src, want.Src = ipset.Addr{Hi: e.Src.Hi, Lo: e.Src.Lo}, k.Src
	}
	if k.Has(packet.HaveDst) {
		got.Dst, want.Dst = ipset.Addr{Hi: e.Dst.Hi, Lo: e.Dst.Lo}, k.Dst
	}
	if k.Has(packet.HaveProto) {
		got.Proto, want.Proto = e.Proto, k.Proto
	}
	if k.Has(packet.HaveTransport) {
		got.Selector, want.Selector = e.Selector, k.Selector
		got.SourcePort, want.SourcePort = e.SourcePort, k.SourcePort
		got.TCPFlags, want.TCPFlags = e.TcpFlags, k.TCPFlags
	}
	if got != want {
		return fmt.Errorf("program read %+v, model %+v", got, want)
	}
	return nil
}

// answerable is bpf/include/answer.h in Go: what RFC 1122 and RFC 4443 let be
// answered.
func answerable(k *packet.Key, frame []byte) bool {
	if !k.Has(packet.HaveSrc|packet.HaveDst|packet.HaveProto) || k.Fragment == packet.LaterFragment ||
		k.Problem != verdict.ReasonRule || frame[0]&1 != 0 {
		return false
	}
	for i, a := range []netip.Addr{k.Src.Netip(), k.Dst.Netip()} {
		if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 224) || a.Is6() && a.IsMulticast() || i == 0 && a.IsUnspecified() {
			return false
		}
	}
	kind := k.Selector >> 8
	switch k.Proto {
	case packet.ProtoTCP:
		return k.TCPFlags&packet.FlagRST == 0
	case packet.ProtoICMP:
		return kind == 0 || kind == 8 || kind >= 13 && kind <= 18
	case packet.ProtoICMPv6:
		return kind >= 128 && kind != 137
	}
	return true
}

// takeFromPolicy puts the policy's boundaries into the frame generator's pools.
func takeFromPolicy(g *oracle.Generator, fg *frames.Generator, p *policy.Policy) {
	addAddress := func(a ipset.Addr) {
		if n := a.Netip(); n.Is4() {
			fg.V4 = append(fg.V4, n)
		} else {
			fg.V6 = append(fg.V6, n)
		}
	}
	var rules []policy.Rule
	for _, c := range p.Chains {
		rules = append(rules, c.Rules...)
	}
	for range min(len(rules), 60) {
		r := rules[g.Rand().IntN(len(rules))]
		for _, s := range []*ipset.Set{r.To, r.From} {
			if s == nil || s.IsEmpty() {
				continue
			}
			one := s.Ranges()[g.Rand().IntN(len(s.Ranges()))]
			addAddress(one.First)
			addAddress(one.Last)
			addAddress(one.Last.Next())
		}
		for _, s := range append(append([]policy.Service{}, r.Services...), r.SourcePorts...) {
			fg.Ports = append(fg.Ports, s.First, s.Last, s.Last+1)
		}
	}
}

// memory is what the program remembers, told again in Go: who opened a
// connection, and what first fragments got.
type memory struct {
	set       *tables.Set
	openers   map[abiEgateFlowKey]verdict.Direction
	fragments map[abiEgateFragmentKey]tables.Result

	world *oracle.World
	bound map[abiEgateFlowKey]string // the names that connections go by
	known map[ipset.Addr]bool        // addresses whose names the program was told of
}

func newMemory(set *tables.Set, world *oracle.World) *memory {
	return &memory{
		set: set, openers: map[abiEgateFlowKey]verdict.Direction{}, fragments: map[abiEgateFragmentKey]tables.Result{},
		world: world, bound: map[abiEgateFlowKey]string{}, known: map[ipset.Addr]bool{},
	}
}

func icmpProto(proto uint8) bool { return proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 }

func isEchoRequest(k *packet.Key) bool {
	return k.Proto == packet.ProtoICMP && k.Selector>>8 == 8 || k.Proto == packet.ProtoICMPv6 && k.Selector>>8 == 128
}

func isEchoReply(k *packet.Key) bool {
	return k.Proto == packet.ProtoICMP && k.Selector>>8 == 0 || k.Proto == packet.ProtoICMPv6 && k.Selector>>8 == 129
}

func isOpening(k *packet.Key) bool {
	return k.TCPFlags&(packet.FlagSYN|packet.FlagACK) == packet.FlagSYN
}

func flowOf(dir verdict.Direction, src, dst ipset.Addr, proto uint8, srcPort, dstPort uint16) abiEgateFlowKey {
	local, remote := src, dst
	localPort, remotePort := srcPort, dstPort
	if dir == verdict.Ingress {
		local, remote, localPort, remotePort = dst, src, dstPort, srcPort
	}
	var key abiEgateFlowKey
	key.Local.Hi, key.Local.Lo = local.Hi, local.Lo
	key.Remote.Hi, key.Remote.Lo = remote.Hi, remote.Lo
	key.LocalPort, key.RemotePort, key.Proto = localPort, remotePort, proto
	return key
}

func (m *memory) flow(k *packet.Key) (abiEgateFlowKey, bool) {
	var none abiEgateFlowKey
	if !k.Has(packet.HaveSrc|packet.HaveDst|packet.HaveProto) || k.Fragment == packet.LaterFragment {
		return none, false
	}
	switch {
	case icmpProto(k.Proto):
		if !k.HasICMP() {
			return none, false
		}
		key := flowOf(k.Direction, k.Src, k.Dst, k.Proto, 0, 0)
		key.LocalPort = k.SourcePort
		return key, true
	case k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP || k.Proto == packet.ProtoSCTP:
		if !k.HasPorts() {
			return none, false
		}
		return flowOf(k.Direction, k.Src, k.Dst, k.Proto, k.SourcePort, k.Selector), true
	}
	return flowOf(k.Direction, k.Src, k.Dst, k.Proto, 0, 0), true
}

func (m *memory) fragment(k *packet.Key) (abiEgateFragmentKey, bool) {
	var key abiEgateFragmentKey
	if !k.Has(packet.HaveSrc | packet.HaveDst) {
		return key, false
	}
	key.Src.Hi, key.Src.Lo = k.Src.Hi, k.Src.Lo
	key.Dst.Hi, key.Dst.Lo = k.Dst.Hi, k.Dst.Lo
	key.Id, key.Direction, key.Family = k.FragmentID, uint8(k.Direction), k.Family
	return key, true
}

func (m *memory) openedByOther(key abiEgateFlowKey, dir verdict.Direction) bool {
	opener, known := m.openers[key]
	return known && opener != dir
}

func (m *memory) state(k *packet.Key, frame []byte, info packet.FrameInfo) tables.State {
	st := tables.State{FragmentRule: tables.NoRule}
	if !k.IP {
		return st
	}
	if key, ok := m.fragment(k); ok && k.Fragment == packet.LaterFragment {
		if first, known := m.fragments[key]; known {
			st.FragmentSeen, st.FragmentAction, st.FragmentRule = true, first.Action, first.Rule
		}
	}
	if key, ok := m.flow(k); ok {
		wrongKind := k.Proto == packet.ProtoTCP && isOpening(k) || icmpProto(k.Proto) && !isEchoReply(k)
		st.Reply = !wrongKind && m.openedByOther(key, k.Direction)
	}
	if q, ok := packet.Quoted(frame, info, k); ok && k.Has(packet.HaveDst) && k.Dst == q.Src {
		// the quoted packet went the other way
		key := flowOf(k.Direction.Opposite(), q.Src, q.Dst, q.Proto, q.SourcePort, q.DestPort)
		if icmpProto(q.Proto) {
			key.LocalPort, key.RemotePort = q.SourcePort, 0
		}
		st.ReplyError = m.openedByOther(key, k.Direction)
	}
	m.tellNames(k, &st)
	return st
}

// refusesConnection tells a reset that answers a SYN to a closed port. Frames
// of the generator have fixed sequence numbers, so a damaged one is needed.
func refusesConnection(k *packet.Key, frame []byte) bool {
	const refusal = packet.FlagRST | packet.FlagACK
	if k.Proto != packet.ProtoTCP || k.TCPFlags&refusal != refusal {
		return false
	}
	tcp := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP)
	return tcp != nil && tcp.(*layers.TCP).Seq == 0
}

func (m *memory) remember(k *packet.Key, frame []byte, r tables.Result) {
	if !k.IP || r.Reason == verdict.ReasonFragment {
		return
	}
	if key, ok := m.fragment(k); ok && k.Fragment == packet.FirstFragment {
		m.fragments[key] = r
	}
	tracking := m.set.Chains[0].Track || m.set.Chains[1].Track
	key, ok := m.flow(k)
	if ok && r.Reason == verdict.ReasonReply && refusesConnection(k, frame) {
		delete(m.openers, key)
		return
	}
	if !ok || !tracking || r.Action != verdict.Allow && !m.set.Audit {
		return
	}
	_, known := m.openers[key]
	switch {
	case k.Proto == packet.ProtoTCP:
		if isOpening(k) {
			m.openers[key] = k.Direction
		}
	case icmpProto(k.Proto):
		if isEchoRequest(k) {
			m.openers[key] = k.Direction
		}
	case !known:
		m.openers[key] = k.Direction
	}
}

// tally counts what the program must have counted.
type tally struct {
	set     *tables.Set
	rules   [2][]abiEgateRuleCounter // the default behind the last rule
	reasons [2][verdict.ReasonCount]abiEgateReasonCounter
	protos  [2][256]abiEgateProtoCounter
}

func newTally(set *tables.Set) *tally {
	n := &tally{set: set}
	for d := range n.rules {
		n.rules[d] = make([]abiEgateRuleCounter, len(set.Chains[d].Rules)+1)
	}
	return n
}

func (n *tally) count(j *judged) {
	d, bytes := j.key.Direction, uint64(len(j.frame))
	for _, r := range j.result.Continues {
		n.rules[d][r].Packets[verdict.Continue]++
		n.rules[d][r].Bytes[verdict.Continue] += bytes
	}
	decider := j.result.Rule
	if decider == tables.NoRule {
		decider = len(n.rules[d]) - 1
	}
	n.rules[d][decider].Packets[j.result.Action]++
	n.rules[d][decider].Bytes[j.result.Action] += bytes
	n.reasons[d][j.result.Reason].Packets++
	n.reasons[d][j.result.Reason].Bytes += bytes
	if !j.key.IP {
		return
	}
	proto := uint8(255)
	if j.key.Has(packet.HaveProto) {
		proto = j.key.Proto
	}
	if c := &n.protos[d][proto]; j.result.Action == verdict.Allow {
		c.PassedPackets++
		c.PassedBytes += bytes
	} else {
		c.BlockedPackets++
		c.BlockedBytes += bytes
	}
}

// correct moves a rejected packet to the reason that its answer got.
func (n *tally) correct(j *judged, got verdict.Reason) {
	if want := j.result.Reason; got != want {
		d, bytes := j.key.Direction, uint64(len(j.frame))
		n.reasons[d][want].Packets--
		n.reasons[d][want].Bytes -= bytes
		n.reasons[d][got].Packets++
		n.reasons[d][got].Bytes += bytes
	}
}

func (n *tally) compare(t *testing.T, b *testBench) error {
	t.Helper()
	var errs []error
	for d := range n.rules {
		for r, want := range n.rules[d] {
			if got := b.RuleCounter(t, verdict.Direction(d), r); got != want {
				errs = append(errs, fmt.Errorf("%v rule %d counted %+v, want %+v", verdict.Direction(d), r, got, want))
			}
		}
		totals := b.Totals(t, verdict.Direction(d))
		for r, want := range n.reasons[d] {
			if got := totals.Reason[r]; got != want {
				errs = append(errs, fmt.Errorf("%v reason %v counted %+v, want %+v", verdict.Direction(d), verdict.Reason(r), got, want))
			}
		}
		for p, want := range n.protos[d] {
			if got := totals.Proto[p]; got != want {
				errs = append(errs, fmt.Errorf("%v protocol %d counted %+v, want %+v", verdict.Direction(d), p, got, want))
			}
		}
		if totals.EventsLost != 0 {
			errs = append(errs, fmt.Errorf("%v lost %d events", verdict.Direction(d), totals.EventsLost))
		}
	}
	return errors.Join(errs...)
}

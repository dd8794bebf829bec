package datapath

import (
	"math/rand/v2"
	"testing"

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

// FuzzProgram gives any bytes to the BPF program as a frame, in both
// directions: it must read what packet.Decode reads, decide what the walk over
// the model decides, and, where it rejects, send what can be read again.
func FuzzProgram(f *testing.F) {
	testutil.RequireRoot(f)
	g := frames.New(rand.New(rand.NewPCG(1, 2)))
	for range 64 {
		f.Add(g.Frame(), false)
	}
	p := &policy.Policy{Name: "fuzz", MaxFlows: policy.MinFlows}
	ports := []policy.Service{{Proto: packet.ProtoTCP, First: 80, Last: 443}, {Proto: packet.ProtoUDP, First: 53, Last: 53}}
	odd := ipset.New([]ipset.Range{{First: ipset.From4(1), Last: ipset.From4(0x7fffffff)}, {Last: ipset.Addr{Hi: 1 << 62}}})
	for d := range p.Chains {
		p.Chains[d] = policy.Chain{Default: verdict.Reject, Events: policy.AllEvents, Rules: []policy.Rule{
			{Name: "count", Action: verdict.Continue, Events: policy.NoEvents},
			{Name: "odd", Action: verdict.Allow, To: odd, Events: policy.AllEvents},
			{Name: "ports", Action: verdict.Drop, Services: ports, Events: policy.AllEvents},
			{Name: "udp", Action: verdict.Allow, From: odd, Services: []policy.Service{{Proto: packet.ProtoUDP, Whole: true}}, Events: policy.AllEvents},
		}}
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		f.Fatal(err)
	}
	bench := newTestBench(f, set)
	f.Cleanup(bench.Close)

	f.Fuzz(func(t *testing.T, frame []byte, inward bool) {
		if len(frame) < frames.MinFrame || len(frame) > frames.MaxFrame {
			t.Skip("BPF_PROG_TEST_RUN takes no such frame")
		}
		frame = runnable(frame)
		dir := verdict.Egress
		if inward {
			dir = verdict.Ingress
		}
		j := judged{frame: frame, key: packet.Decode(frame, packet.FrameInfo{Direction: dir})}
		// nothing is remembered here: replies are off
		j.result = oracle.Walk(p, &j.key, tables.State{FragmentRule: tables.NoRule})
		returned, out := bench.Run(t, frame, dir)
		e := bench.NextEvent(t)
		if verdict.Reason(e.Reason) == verdict.ReasonFragment {
			return // it follows the first fragment of some earlier input
		}
		if err := sameDecision(e, &j); err != nil {
			t.Fatalf("%v\n%v\nframe %x", err, &j.key, frame)
		}
		if returned != actRedirect {
			return
		}
		answer := packet.Decode(out, packet.FrameInfo{Direction: dir.Opposite()})
		if answer.Problem != verdict.ReasonRule || !answer.Has(packet.HaveTransport) {
			t.Fatalf("answer %x to %x reads as %v", out, frame, &answer)
		}
		if answer.Src != j.key.Dst || answer.Dst != j.key.Src {
			t.Fatalf("answer goes from %v to %v for %v", answer.Src, answer.Dst, &j.key)
		}
	})
}

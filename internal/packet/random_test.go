package packet

import (
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"egate/internal/ipset"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// checkInvariants holds a Key to what no packet may break.
func checkInvariants(t *testing.T, k *Key) {
	t.Helper()
	fail := func(what string) {
		t.Helper()
		t.Errorf("%s: %+v", what, *k)
	}
	if !k.IP {
		if *k != (Key{Direction: k.Direction, EtherType: k.EtherType, Control: k.Control}) {
			fail("not IP, but more is set than the type")
		}
		return
	}
	readable := k.Has(HaveSrc | HaveDst | HaveProto)
	switch {
	case k.Control:
		fail("IP and link control")
	case k.Has(HaveTransport) && !k.Has(HaveProto):
		fail("a transport header of no protocol")
	case k.Has(HaveTransport) && !hasPorts(k.Proto) && !isICMP(k.Proto):
		fail("a transport header of a protocol that has none")
	case k.Fragment == LaterFragment && k.Has(HaveTransport):
		fail("a later fragment with a transport header")
	case k.Has(HaveDst) && !k.Has(HaveSrc):
		fail("a destination without a source")
	case k.Have == 0 && k.Problem == verdict.ReasonRule:
		fail("nothing readable and no problem")
	case k.Problem != verdict.ReasonRule && readable && (k.Has(HaveTransport) || k.Fragment == LaterFragment):
		fail("all readable and a problem")
	case k.Problem == verdict.ReasonRule && !readable && k.Fragment != LaterFragment:
		fail("not all readable and no problem")
	case k.Problem == verdict.ReasonSourceRoute && k.Has(HaveDst):
		fail("a source route that hides nothing")
	case !k.Has(HaveTransport) && (k.Selector != 0 || k.SourcePort != 0 || k.TCPFlags != 0),
		!k.Has(HaveProto) && k.Proto != 0,
		!k.Has(HaveSrc) && k.Src != ipset.Addr{}, !k.Has(HaveDst) && k.Dst != ipset.Addr{},
		k.Fragment == NotFragment && k.FragmentID != 0, k.TCPFlags != 0 && k.Proto != ProtoTCP:
		fail("a field that could not be read is set")
	case k.Has(HaveSrc) && k.Src.Is4() != (k.Family == 4), k.Has(HaveDst) && k.Dst.Is4() != (k.Family == 4):
		fail("an address of the other family")
	}
}

// TestDecodeRandom holds Decode to its invariants, and text to a round trip, on
// random frames, and sees to it that they reach every problem.
func TestDecodeRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := frames.New(rand.New(rand.NewPCG(seed, 0)))
	problems := map[verdict.Reason]int{}
	fragments := map[Fragment]int{}
	complete, quotes := 0, 0
	for range 200_000 {
		frame := g.Frame()
		if len(frame) < frames.MinFrame || len(frame) > frames.MaxFrame {
			t.Fatalf("a frame of %d bytes", len(frame))
		}
		in := FrameInfo{Direction: verdict.Direction(g.Rand.IntN(2)), GSO: g.Rand.IntN(8) == 0}
		k := Decode(frame, in)
		checkInvariants(t, &k)
		back, _, err := ParseText(k.String())
		if err != nil || back != k {
			t.Fatalf("%s came back as %s, %v", &k, &back, err)
		}
		if _, ok := Quoted(frame, in, &k); ok {
			quotes++
		}
		if t.Failed() {
			t.Fatalf("frame %x", frame)
		}
		problems[k.Problem]++
		fragments[k.Fragment]++
		if k.Has(all) {
			complete++
		}
	}
	t.Logf("problems %v, fragments %v, %d read as a whole, %d quotations", problems, fragments, complete, quotes)
	for _, r := range textReasons {
		if problems[r] < 100 {
			t.Errorf("only %d of 200,000 frames have problem %s", problems[r], r)
		}
	}
	if complete < 60_000 || fragments[FirstFragment] < 1000 || fragments[LaterFragment] < 1000 || quotes < 1000 {
		t.Errorf("the frames are too one-sided")
	}
}

// TestDecodeLikeGopacket compares with another decoder on sound packets, and
// checks the checksums of what package frames makes.
func TestDecodeLikeGopacket(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := frames.New(rand.New(rand.NewPCG(seed, 0)))
	// Dynamic ports only: gopacket reads on behind the UDP ports of tunnels.
	port := func() uint16 { return 0xc000 | uint16(g.Rand.Uint32()) }
	for range 20_000 {
		src, dst := g.V4[1+g.Rand.IntN(3)], g.V4[1+g.Rand.IntN(3)]
		if g.Rand.IntN(2) == 0 {
			src, dst = g.V6[1+g.Rand.IntN(5)], g.V6[1+g.Rand.IntN(5)]
		}
		payload := make([]byte, g.Rand.IntN(100))
		var frame []byte
		switch g.Rand.IntN(5) {
		case 0:
			frame = frames.TCP(src, dst, port(), port(), uint8(g.Rand.Uint32()), payload)
		case 1:
			frame = frames.UDP(src, dst, port(), port(), payload)
		case 2:
			frame = frames.SCTP(src, dst, port(), port(), payload)
		case 3:
			frame = frames.ICMPEcho(src, dst, g.Rand.IntN(2) == 0, port(), port(), payload)
		case 4:
			frame = frames.ICMPFrame(src, dst, 3, uint8(g.Rand.IntN(5)), 0, payload)
		}
		for range g.Rand.IntN(3) {
			frame = frames.VLAN(frame, frames.TypeVLAN, uint16(g.Rand.IntN(4096)))
		}
		k, want := Decode(frame, FrameInfo{}), gopacketKey(t, frame)
		if k != want {
			t.Fatalf("%s\nwant %s\nframe %x", &k, &want, frame)
		}
	}
}

// gopacketKey makes the Key of a sound packet from gopacket's layers.
func gopacketKey(t *testing.T, frame []byte) Key {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	k := Key{IP: true, Have: all}
	for _, layer := range p.Layers() {
		if l, ok := layer.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
		switch l := layer.(type) {
		case *layers.IPv4:
			k.Family, k.EtherType, k.HopLimit, k.Proto = 4, 0x0800, l.TTL, uint8(l.Protocol)
			k.Src, k.Dst = addr4(l.SrcIP.To4()), addr4(l.DstIP.To4())
		case *layers.IPv6:
			k.Family, k.EtherType, k.HopLimit, k.Proto = 6, 0x86dd, l.HopLimit, uint8(l.NextHeader)
			k.Src, k.Dst = addr6(l.SrcIP.To16()), addr6(l.DstIP.To16())
		case *layers.TCP:
			k.SourcePort, k.Selector, k.TCPFlags = uint16(l.SrcPort), uint16(l.DstPort), l.Contents[13]
		case *layers.UDP:
			k.SourcePort, k.Selector = uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.SCTP:
			k.SourcePort, k.Selector = uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.ICMPv4:
			k.Selector = uint16(l.TypeCode)
			if t := l.TypeCode.Type(); t == 8 || t == 0 {
				k.SourcePort = l.Id
			}
		case *layers.ICMPv6:
			k.Selector = uint16(l.TypeCode)
		case *layers.ICMPv6Echo:
			k.SourcePort = l.Identifier
		}
	}
	if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
		t.Fatalf("checksums of %x: %v %v", frame, mismatches, err)
	}
	return k
}

func TestFragmentsCarryTheDatagram(t *testing.T) {
	for _, frame := range [][]byte{frames.UDP(a4, b4, 1, 2, make([]byte, 100)), frames.UDP(a6, b6, 1, 2, make([]byte, 100))} {
		parts := frames.Fragment(frame, 40, 5) // 108 bytes in 40 + 40 + 28
		if len(parts) != 3 {
			t.Fatalf("%d fragments, want 3", len(parts))
		}
		for i, part := range parts {
			k := Decode(part, FrameInfo{})
			want := Fragment(LaterFragment)
			if i == 0 {
				want = FirstFragment
			}
			if k.Fragment != want || k.FragmentID != 5 || k.Problem != 0 || k.Proto != ProtoUDP || k.HasPorts() != (i == 0) {
				t.Errorf("fragment %d is %s", i, &k)
			}
		}
	}
}

package datapath

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"egate/internal/compile"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

func rejectAll(t testing.TB) *testBench {
	t.Helper()
	p := &policy.Policy{Name: "reject", MaxFlows: policy.MinFlows}
	for d := range p.Chains {
		p.Chains[d] = policy.Chain{Default: verdict.Reject, Events: policy.AllEvents}
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBench(t, set)
	t.Cleanup(b.Close)
	return b
}

// TestAnswers looks at the answer to each kind of rejected packet: addresses,
// ports and MACs turned round, checksums right, sequence numbers those that
// make the sender believe it.
func TestAnswers(t *testing.T) {
	testutil.RequireRoot(t)
	b := rejectAll(t)
	a4, z4 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9")
	a6, z6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::9")
	data := []byte("hello, egate")
	const syn, ack, fin, push = 0x02, 0x10, 0x01, 0x08

	for _, c := range []struct {
		name     string
		src, dst netip.Addr
		frame    []byte
		tcpLen   int // sequence space of the rejected segment; -1: no TCP
	}{
		{"tcp syn", a4, z4, frames.TCP(a4, z4, 1000, 443, syn, nil), 1},
		{"tcp syn 6", a6, z6, frames.TCP(a6, z6, 1000, 443, syn, nil), 1},
		{"tcp data", a4, z4, frames.TCP(a4, z4, 1000, 443, ack|push, data), len(data)},
		{"tcp data and fin 6", a6, z6, frames.TCP(a6, z6, 1000, 443, ack|fin, data), len(data) + 1},
		{"tcp in a vlan", a4, z4, frames.VLAN(frames.TCP(a4, z4, 1000, 443, syn, nil), frames.TypeVLAN, 7), 1},
		{"tcp in qinq 6", a6, z6, frames.VLAN(frames.VLAN(frames.TCP(a6, z6, 1000, 443, syn, nil), frames.TypeVLAN, 7), frames.TypeQinQ, 8), 1},
		{"tcp behind options", a4, z4, frames.IPv4{Src: a4, Dst: z4, Proto: packet.ProtoTCP, Options: bytes.Repeat([]byte{1}, 40)}.Frame(frames.TCPSegment(a4, z4, 1000, 443, syn, nil)), 1},
		{"udp", a4, z4, frames.UDP(a4, z4, 1000, 53, data), -1},
		{"udp 6", a6, z6, frames.UDP(a6, z6, 1000, 53, data), -1},
		{"udp without data", a4, z4, frames.UDP(a4, z4, 1000, 53, nil), -1},
		{"udp behind options", a4, z4, frames.IPv4{Src: a4, Dst: z4, Proto: packet.ProtoUDP, Options: bytes.Repeat([]byte{1}, 12)}.Frame(frames.UDPDatagram(a4, z4, 1000, 53, data)), -1},
		{"udp behind destination options", a6, z6, frames.IPv6{Src: a6, Dst: z6, Proto: packet.ProtoUDP, Extensions: []frames.Extension{frames.Options(frames.Destination, 5)}}.Frame(frames.UDPDatagram(a6, z6, 1000, 53, data)), -1},
		{"echo", a4, z4, frames.ICMPEcho(a4, z4, false, 7, 1, data), -1},
		{"echo 6", a6, z6, frames.ICMPEcho(a6, z6, false, 7, 1, data), -1},
		{"gre with four bytes", a4, z4, frames.IPv4{Src: a4, Dst: z4, Proto: 47}.Frame(make([]byte, 4)), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			// a burst of 250 and 1,000 a second: 15 cases pass, whatever ran before
			returned, out := b.Run(t, c.frame, verdict.Egress)
			if e := b.NextEvent(t); returned != actRedirect {
				t.Fatalf("returned %d for reason %v", returned, verdict.Reason(e.Reason))
			}
			if !bytes.Equal(out[:6], c.frame[6:12]) || !bytes.Equal(out[6:12], c.frame[:6]) {
				t.Errorf("MAC addresses are %x", out[:12])
			}
			answer := gopacket.NewPacket(out, layers.LayerTypeEthernet, gopacket.Default)
			for _, l := range answer.Layers() {
				if l, ok := l.(interface {
					SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
				}); ok {
					if err := l.SetNetworkLayerForChecksum(answer.NetworkLayer()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err, wrong := answer.VerifyChecksums(); err != nil || len(wrong) > 0 {
				t.Errorf("checksums: %v, %v in %x", err, wrong, out)
			}
			k := packet.Decode(out, packet.FrameInfo{})
			if k.Src.Netip() != c.dst || k.Dst.Netip() != c.src || k.Problem != verdict.ReasonRule {
				t.Fatalf("answer is %v, %x", &k, out)
			}
			if c.tcpLen < 0 {
				q, ok := packet.Quoted(out, packet.FrameInfo{}, &k)
				want := map[uint8]uint16{packet.ProtoICMP: 3<<8 | 13, packet.ProtoICMPv6: 1<<8 | 1}[k.Proto]
				if k.Selector != want {
					t.Errorf("answer is %v", &k)
				}
				if c.name != "udp behind destination options" && (!ok && c.name != "gre with four bytes" || ok && q.Src.Netip() != c.src) {
					t.Errorf("answer quotes %+v, %v", q, ok)
				}
				return
			}
			was := gopacket.NewPacket(c.frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
			got := answer.Layer(layers.LayerTypeTCP).(*layers.TCP)
			if !got.RST || !got.ACK || got.SYN || got.SrcPort != was.DstPort || got.DstPort != was.SrcPort {
				t.Errorf("answer is %+v", got)
			}
			if want := was.Seq + uint32(c.tcpLen); got.Ack != want {
				t.Errorf("acknowledges %d, want %d", got.Ack, want)
			}
			if want := map[bool]uint32{true: was.Ack}[was.ACK]; got.Seq != want {
				t.Errorf("sequence number %d, want %d", got.Seq, want)
			}
		})
	}
}

// TestUnanswered checks that what must not be answered is dropped under a
// reason of its own.
func TestUnanswered(t *testing.T) {
	testutil.RequireRoot(t)
	b := rejectAll(t)
	a4, z4 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9")
	a6 := netip.MustParseAddr("2001:db8::1")
	multicast := frames.UDP(a4, z4, 1, 2, nil)
	multicast[0] = 1
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"reset", frames.TCP(a4, z4, 1, 2, packet.FlagRST, nil)},
		{"icmp error", frames.ICMPFrame(a4, z4, 3, 3, 0, make([]byte, 28))},
		{"to multicast", frames.UDP(a4, netip.MustParseAddr("224.0.0.251"), 5353, 5353, nil)},
		{"to multicast 6", frames.UDP(a6, netip.MustParseAddr("ff02::fb"), 5353, 5353, nil)},
		{"to broadcast", frames.UDP(a4, netip.MustParseAddr("255.255.255.255"), 1, 2, nil)},
		{"link-layer multicast", multicast},
		{"from nobody", frames.UDP(netip.IPv4Unspecified(), z4, 1, 2, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			returned, _ := b.Run(t, c.frame, verdict.Egress)
			if e := b.NextEvent(t); returned != actShot || verdict.Reason(e.Reason) != verdict.ReasonRejectUnanswerable {
				t.Errorf("returned %d for reason %v", returned, verdict.Reason(e.Reason))
			}
		})
	}
}

// TestAnswersAreLimited sends more than the rate lets be answered.
func TestAnswersAreLimited(t *testing.T) {
	testutil.RequireRoot(t)
	b := rejectAll(t)
	frame := frames.UDP(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9"), 1, 2, nil)
	start, answered, limited := time.Now(), 0, 0
	const sent = 2000
	for range sent {
		returned, _ := b.Run(t, frame, verdict.Egress)
		switch reason := verdict.Reason(b.NextEvent(t).Reason); {
		case returned == actRedirect && reason == verdict.ReasonDefault:
			answered++
		case returned == actShot && reason == verdict.ReasonRejectLimited:
			limited++
		default:
			t.Fatalf("returned %d for reason %v", returned, reason)
		}
	}
	// 250 at once and one each millisecond
	most := 250 + int(time.Since(start).Milliseconds()) + 1
	if answered < 250 || answered > most || answered+limited != sent {
		t.Errorf("%d answered, %d limited; want 250 to %d answered", answered, limited, most)
	}
}

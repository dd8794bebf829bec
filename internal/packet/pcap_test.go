package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"egate/internal/testutil/frames"
)

type record struct {
	data   []byte
	length int
}

// capture writes a pcap file, or a pcapng one.
func capture(t testing.TB, ng bool, linkType layers.LinkType, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var write func(gopacket.CaptureInfo, []byte) error
	flush := func() error { return nil }
	if ng {
		w, err := pcapgo.NewNgWriter(&b, linkType)
		check(err)
		write, flush = w.WritePacket, w.Flush
	} else {
		w := pcapgo.NewWriter(&b)
		check(w.WriteFileHeader(65535, linkType))
		write = w.WritePacket
	}
	for _, r := range records {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(r.data), Length: max(r.length, len(r.data))}
		check(write(info, r.data))
	}
	check(flush())
	return b.Bytes()
}

// cooked puts a Linux "any" header before an IP packet.
func cooked(version int, etherType uint16, packet []byte) []byte {
	h := make([]byte, 16)
	at := 14
	if version == 2 {
		h, at = make([]byte, 20), 0
	}
	binary.BigEndian.PutUint16(h[at:], etherType)
	return append(h, packet...)
}

func TestReadCapture(t *testing.T) {
	whole, whole6 := tcp4(), tcp6()
	ip, ip6 := frames.NoLink(whole), frames.NoLink(whole6)
	arp := Key{EtherType: 0x0806, Control: true}
	tagged := append([]byte{0, 7, 0x08, 0x00}, ip...)
	for _, c := range []struct {
		name     string
		linkType layers.LinkType
		record   record
		want     Key
	}{
		{"ethernet", layers.LinkTypeEthernet, record{data: whole}, Decode(whole, FrameInfo{})},
		{"ethernet, cut", layers.LinkTypeEthernet, record{whole[:54], 1514}, Decode(whole[:54], FrameInfo{Length: 1514})},
		{"ethernet, nothing", layers.LinkTypeEthernet, record{}, Decode(nil, FrameInfo{})},
		{"raw", layers.LinkTypeRaw, record{data: ip}, Decode(ip, FrameInfo{Link: NoLink})},
		{"raw 6", layers.LinkTypeRaw, record{data: ip6}, Decode(ip6, FrameInfo{Link: NoLink})},
		{"raw as 12", 12, record{data: ip}, Decode(ip, FrameInfo{Link: NoLink})},
		{"raw as 14", 14, record{data: ip}, Decode(ip, FrameInfo{Link: NoLink})},
		{"ipv4", layers.LinkTypeIPv4, record{data: ip}, Decode(ip, FrameInfo{Link: NoLink})},
		{"ipv6", layers.LinkTypeIPv6, record{data: ip6}, Decode(ip6, FrameInfo{Link: NoLink})},
		{"null", layers.LinkTypeNull, record{data: append([]byte{2, 0, 0, 0}, ip...)}, Decode(ip, FrameInfo{Link: NoLink})},
		{"loop", layers.LinkTypeLoop, record{data: append([]byte{0, 0, 0, 24}, ip6...)}, Decode(ip6, FrameInfo{Link: NoLink})},
		{"null, cut in its header", layers.LinkTypeNull, record{data: []byte{2, 0}}, Key{}},
		{"cooked", layers.LinkTypeLinuxSLL, record{data: cooked(1, 0x0800, ip)}, Decode(whole, FrameInfo{})},
		{"cooked 6", layers.LinkTypeLinuxSLL, record{data: cooked(1, 0x86dd, ip6)}, Decode(whole6, FrameInfo{})},
		{"cooked, tagged", layers.LinkTypeLinuxSLL, record{data: cooked(1, 0x8100, tagged)}, Decode(whole, FrameInfo{})},
		{"cooked arp", layers.LinkTypeLinuxSLL, record{data: cooked(1, 0x0806, nil)}, arp},
		{"cooked, cut", layers.LinkTypeLinuxSLL, record{data: cooked(1, 0x0800, ip)[:15]}, Decode(nil, FrameInfo{})},
		{"cooked, packet cut", layers.LinkTypeLinuxSLL, record{cooked(1, 0x0800, ip)[:40], 56}, Decode(whole[:38], FrameInfo{Length: 54})},
		{"cooked 2", layers.LinkTypeLinuxSLL2, record{data: cooked(2, 0x0800, ip)}, Decode(whole, FrameInfo{})},
		{"cooked 2, 6", layers.LinkTypeLinuxSLL2, record{data: cooked(2, 0x86dd, ip6)}, Decode(whole6, FrameInfo{})},
		{"cooked 2 arp", layers.LinkTypeLinuxSLL2, record{data: cooked(2, 0x0806, nil)}, arp},
		{"cooked 2, cut", layers.LinkTypeLinuxSLL2, record{data: cooked(2, 0x0800, ip)[:19]}, Decode(nil, FrameInfo{})},
	} {
		for _, ng := range []bool{false, true} {
			t.Run(c.name+map[bool]string{false: " pcap", true: " pcapng"}[ng], func(t *testing.T) {
				calls := 0
				err := ReadCapture(bytes.NewReader(capture(t, ng, c.linkType, c.record, c.record)), func(n int, frame []byte, link LinkLayer, length int) error {
					calls++
					if n != calls {
						t.Errorf("packet %d comes as number %d", calls, n)
					}
					if k := Decode(frame, FrameInfo{Link: link, Length: length}); k != c.want {
						t.Errorf("%s, want %s", &k, &c.want)
					}
					return nil
				})
				if err != nil || calls != 2 {
					t.Errorf("%d packets, want 2: %v", calls, err)
				}
			})
		}
	}
}

func TestReadCaptureMixedLinkTypes(t *testing.T) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{Name: "tun0", LinkType: layers.LinkTypeRaw, SnapLength: 65535})
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range [][]byte{tcp4(), frames.NoLink(tcp4())} {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(data), Length: len(data), InterfaceIndex: i * second}
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var links []LinkLayer
	err = ReadCapture(&b, func(_ int, frame []byte, link LinkLayer, length int) error {
		links = append(links, link)
		if k := Decode(frame, FrameInfo{Link: link, Length: length}); !hasTCP(&k) {
			t.Errorf("unexpected packet %s", &k)
		}
		return nil
	})
	if err != nil || len(links) != 2 || links[0] != Ethernet || links[1] != NoLink {
		t.Errorf("link layers %v, %v", links, err)
	}
}

func TestReadCaptureErrors(t *testing.T) {
	good := capture(t, false, layers.LinkTypeEthernet, record{data: tcp4()}, record{data: tcp4()})
	goodNG := capture(t, true, layers.LinkTypeEthernet, record{data: tcp4()}, record{data: tcp4()})
	wifi := capture(t, false, layers.LinkTypeIEEE802_11, record{data: tcp4()})
	for _, c := range []struct {
		name    string
		file    []byte
		visited int
		is      error
		say     string
	}{
		{"empty file", nil, 0, io.EOF, "no pcap or pcapng file"},
		{"text", []byte("this is no capture file at all"), 0, nil, "pcap: Unknown magic"},
		{"cut in the file header", good[:20], 0, io.ErrUnexpectedEOF, "pcap: "},
		{"cut in a record's header", good[:24+8], 0, io.ErrUnexpectedEOF, "packet 1: "},
		{"cut behind a record's header", good[:24+16], 0, io.ErrUnexpectedEOF, "packet 1: "},
		{"cut in a record", good[:len(good)-1], 1, io.ErrUnexpectedEOF, "packet 2: "},
		{"pcapng cut in its header", goodNG[:20], 0, io.ErrUnexpectedEOF, "pcapng: "},
		{"pcapng cut in a record", goodNG[:len(goodNG)-30], 1, io.ErrUnexpectedEOF, "packet 2: "},
		{"unknown link type", wifi, 0, ErrLinkType, "packet 1: unknown link type 105 (802.11): egate reads Ethernet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			visited := 0
			err := ReadCapture(bytes.NewReader(c.file), func(int, []byte, LinkLayer, int) error { visited++; return nil })
			if err == nil || visited != c.visited || !strings.HasPrefix(err.Error(), "read capture: "+c.say) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%d visited, error %v; want %d, %q, %v", visited, err, c.visited, c.say, c.is)
			}
		})
	}
	t.Run("the visitor's error", func(t *testing.T) {
		visited := 0
		err := ReadCapture(bytes.NewReader(good), func(int, []byte, LinkLayer, int) error { visited++; return os.ErrExist })
		if err != os.ErrExist || visited != 1 {
			t.Errorf("%v after %d packets", err, visited)
		}
	})
}

package packet

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/gopacket/gopacket/layers"

	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// FuzzDecode holds Decode and Quoted to their invariants, and every Key to its
// text. A file that was found goes to testdata/fuzz.
func FuzzDecode(f *testing.F) {
	g := frames.New(rand.New(rand.NewPCG(1, 2)))
	for range 50 {
		f.Add(g.Frame(), byte(0), uint16(0))
	}
	f.Fuzz(func(t *testing.T, frame []byte, bits byte, length uint16) {
		in := FrameInfo{Direction: verdict.Direction(bits & 1), Link: LinkLayer(bits >> 1 & 1), GSO: bits&4 != 0, Length: int(length)}
		k := Decode(frame, in)
		checkInvariants(t, &k)
		if q, ok := Quoted(frame, in, &k); !ok && q != (QuotedFlow{}) {
			t.Errorf("quotation %+v, %v", q, ok)
		}
		back, extras, err := ParseText(k.String())
		if err != nil || back != k || !reflect.DeepEqual(extras, Extras{}) {
			t.Errorf("%s came back as %s, %v", &k, &back, err)
		}
	})
}

// FuzzParseText wants a Key that comes back from its own text, or an error
// with a place in the text.
func FuzzParseText(f *testing.F) {
	for _, s := range []string{
		"tcp 10.0.0.5:40000 -> 93.184.216.34:443 flags=SA in", "udp [2001:db8::1]:5353 -> [2001:db8::2]:53 ttl=3",
		"icmp 10.0.0.1 -> 10.0.0.2 echo-request id=7", "icmpv6 fe80::1 -> ff02::1 type=135 code=0", "47 * -> * ipv4 no-link",
		"* * -> * problem=truncated", "non-ip type=0x88b5", "arp in", "udp 10.0.0.1 -> 10.0.0.2 fragment=later fragment-id=9 reply",
		"tcp 10.0.0.5 -> 93.184.216.34:443 name=www.example.com,bücher.example name=x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, extras, err := ParseText(s)
		if err != nil {
			var textErr *TextError
			if !errors.As(err, &textErr) || textErr.Column < 1 || textErr.Column > utf8.RuneCountInString(s)+1 {
				t.Fatalf("error %#v", err)
			}
			return
		}
		back, _, err := ParseText(k.String())
		if err != nil || back != k {
			t.Errorf("%q is %s, which came back as %s, %v", s, &k, &back, err)
		}
		for _, name := range extras.Names {
			if _, again, err := ParseText("tcp 10.0.0.1 -> 10.0.0.2:80 name=" + name); err != nil || !reflect.DeepEqual(again.Names, []string{name}) {
				t.Errorf("name %q of %q came back as %q, %v", name, s, again.Names, err)
			}
		}
	})
}

// FuzzReadCapture wants packets or an error, never more than the file holds.
func FuzzReadCapture(f *testing.F) {
	for _, linkType := range []layers.LinkType{layers.LinkTypeEthernet, layers.LinkTypeLinuxSLL, layers.LinkTypeLinuxSLL2} {
		f.Add(capture(f, false, linkType, record{data: tcp4()}))
		f.Add(capture(f, true, linkType, record{data: tcp6()}, record{data: tcp4()}))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if bytes.HasPrefix(file, []byte{0x1f, 0x8b}) {
			t.Skip("compressed: holds more than its length")
		}
		total := 0
		_ = ReadCapture(bytes.NewReader(file), func(n int, frame []byte, link LinkLayer, length int) error {
			total += len(frame)
			Decode(frame, FrameInfo{Link: link, Length: length})
			return nil
		})
		if total > len(file) {
			t.Errorf("%d bytes of packets in a file of %d", total, len(file))
		}
	})
}

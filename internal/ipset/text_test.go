package ipset

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAppendElement(t *testing.T) {
	tests := []struct {
		text string
		want []string // nil where problem is set
		err  string
	}{
		{"192.0.2.1", []string{"192.0.2.1-192.0.2.1"}, ""},
		{"10.0.0.0/8", []string{"10.0.0.0-10.255.255.255"}, ""},
		{"0.0.0.0/0", []string{"0.0.0.0-255.255.255.255"}, ""},
		{"192.0.2.3-192.0.2.9", []string{"192.0.2.3-192.0.2.9"}, ""},
		{"192.0.2.3-192.0.2.3", []string{"192.0.2.3-192.0.2.3"}, ""},
		{"2001:DB8::/32", []string{"2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"}, ""},
		{"fe80::1-fe80::ff", []string{"fe80::1-fe80::ff"}, ""},
		{"::-1::", []string{"::-::fffe:ffff:ffff", "::1:0:0:0-1::"}, ""},
		{"::-::1:0:0:0", []string{"::-::fffe:ffff:ffff", "::1:0:0:0-::1:0:0:0"}, ""},
		{"::ffff:192.0.2.1", []string{"192.0.2.1-192.0.2.1"}, ""},
		{"192.0.2.1-::ffff:192.0.2.9", []string{"192.0.2.1-192.0.2.9"}, ""},
		{"", nil, `"" is not an address`},
		{"-", nil, `"-" is not an address`},
		{"/8", nil, `"/8" is not an address`},
		{"example.com", nil, `"example.com" is not an address`},
		{"deadbeef", nil, `"deadbeef" is not an address`},
		{"any", nil, `"any" is not an address`},
		{"192.0.2.256", nil, `"192.0.2.256" has a part above 255`},
		{"192.0.2.01", nil, `"192.0.2.01" has a part with a leading zero`},
		{"10.0.0/8", nil, `"10.0.0/8" has fewer than four parts`},
		{"10.0.0.0.0", nil, `"10.0.0.0.0" has more than four parts`},
		{"10.0.0.1/8", nil, `"10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8`},
		{"2001:db8::1/32", nil, `"2001:db8::1/32" has host bits set; the prefix is 2001:db8::/32`},
		{"::ffff:10.0.0.1/104", nil, `"::ffff:10.0.0.1/104" has host bits set; the prefix is ::ffff:10.0.0.0/104`},
		{"10.0.0.0/", nil, `"10.0.0.0/" has no prefix length`},
		{"10.0.0.0/33", nil, `"10.0.0.0/33" has a prefix length above 32`},
		{"2001:db8::/129", nil, `"2001:db8::/129" has a prefix length above 128`},
		{"10.0.0.0/08", nil, `"10.0.0.0/08" has a prefix length with a leading zero`},
		{"10.0.0.0/255.0.0.0", nil, `"10.0.0.0/255.0.0.0" has a prefix length that is not a number`},
		{"10.0.0.9-10.0.0.1", nil, `"10.0.0.9-10.0.0.1" is a range that ends before it begins`},
		{"10.0.0.1-2001:db8::", nil, `"10.0.0.1-2001:db8::" is a range from one address family to the other`},
		{"::1-::ffff:0.0.0.1", nil, `"::1-::ffff:0.0.0.1" is a range from one address family to the other`},
		{"10.0.0.1-9", nil, `"10.0.0.1-9" is a range whose end is not an address`},
		{"10.0.0.1-10.0.0.300", nil, `"10.0.0.1-10.0.0.300" is a range whose end has a part above 255`},
		{"10.0.0.1-10.0.0.3-10.0.0.4", nil, `"10.0.0.1-10.0.0.3-10.0.0.4" is not an address, a prefix or a range a-b`},
		{"10.0.0.0-10.0.0.8/30", nil, `"10.0.0.0-10.0.0.8/30" is not an address, a prefix or a range a-b`},
		{"10.0.0.1 - 10.0.0.9", nil, `"10.0.0.1 - 10.0.0.9" has text after it; a comment begins with #`},
		{"fe80::1%eth0", nil, `"fe80::1%eth0" has a zone; egate tells interfaces apart by the interfaces key only`},
		{"1::2::3", nil, `"1::2::3" has "::" twice`},
		{"1:2:3:4:5:6:7", nil, `"1:2:3:4:5:6:7" has fewer than eight groups`},
		{"1:2:3:4:5:6:7:8:9", nil, `"1:2:3:4:5:6:7:8:9" has more than eight groups`},
		{"1:2:3:4::5:6:7:8", nil, `"1:2:3:4::5:6:7:8" has "::" beside eight groups`},
		{"12345::", nil, `"12345::" has a group of more than four digits`},
		{"1::1.2.3", nil, `"1::1.2.3" has fewer than four parts`},
		{"1:1.2.3.4", nil, `"1:1.2.3.4" has an IPv4 part at the wrong place`},
		{strings.Repeat("x", 100), nil, `"` + strings.Repeat("x", 60) + `"... is not an address`},
	}
	for _, tt := range tests {
		got, err := AppendElement(nil, []byte(tt.text))
		switch {
		case err == nil && tt.err != "" || err != nil && err.Error() != tt.err:
			t.Errorf("%q: error %v, want %q", tt.text, err, tt.err)
		case err == nil && !slices.Equal(text(got), tt.want):
			t.Errorf("%q: %v, want %v", tt.text, text(got), tt.want)
		case err != nil && got != nil:
			t.Errorf("%q: gave %v beside an error", tt.text, got)
		}
	}
}

// oracle reads an element with package netip.
func oracle(text string) ([]Range, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		if p.Masked() != p {
			return nil, false
		}
		return PrefixRanges(p), true
	}
	if first, last, ok := strings.Cut(text, "-"); ok {
		a, errA := netip.ParseAddr(first)
		b, errB := netip.ParseAddr(last)
		if errA != nil || errB != nil || a.Zone() != "" || b.Zone() != "" {
			return nil, false
		}
		if a, b = a.Unmap(), b.Unmap(); a.Is4() != b.Is4() || b.Less(a) {
			return nil, false
		}
		family := All6()
		if a.Is4() {
			family = All4()
		}
		return New([]Range{{FromNetip(a), FromNetip(b)}}).Intersect(family).Ranges(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return nil, false
	}
	return []Range{{FromNetip(a), FromNetip(a)}}, true
}

// FuzzElement holds the reader against package netip.
func FuzzElement(f *testing.F) {
	for _, s := range []string{
		"192.0.2.1", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.1-10.0.0.9", "::", "::1", "1::", "::/0", "::/80", "fe80::1%eth0",
		"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "::ffff:1.2.3.4", "::ffff:1.2.3.4/120", "::-1::", "1::2-1::3", "01.2.3.4", "1.2.3.4/08",
		"1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::2::3", ":::", ":1", "1:", "1.2.3.4.", "a.b.c.d", "::1.2.3.4.5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := AppendElement(nil, []byte(text))
		want, ok := oracle(text)
		if ok != (err == nil) || !slices.Equal(got, want) {
			t.Fatalf("%q: %v, %v; netip gives %v, %v", text, got, err, want, ok)
		}
		for _, r := range got {
			if r.Last.Less(r.First) || r.First.Is4() != r.Last.Is4() {
				t.Fatalf("%q: range %v is no range of one family", text, r)
			}
		}
	})
}

package domain

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

var label63 = strings.Repeat("a", MaxLabel)

func TestParse(t *testing.T) {
	name253 := strings.Repeat(label63+".", 3) + strings.Repeat("b", MaxName-3*(MaxLabel+1))
	tests := []struct{ text, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com.", "example.com"},
		{"*.example.com", "*.example.com"},
		{"*.EXAMPLE.com.", "*.example.com"},
		{"*.com", "*.com"},
		{"localhost", "localhost"},
		{"_dmarc.example.com", "_dmarc.example.com"},
		{"*._domainkey.example", "*._domainkey.example"},
		{"r3---sn-4g5e.example", "r3---sn-4g5e.example"},
		{"-a-.example", "-a-.example"},
		{"4.3.2.1.in-addr.arpa", "4.3.2.1.in-addr.arpa"},
		{"1e100.net", "1e100.net"},
		{"1.a1", "1.a1"},
		{"b\u00fccher.example", "xn--bcher-kva.example"},
		{"B\u00dcCHER.example", "xn--bcher-kva.example"},
		{"bu\u0308cher.example", "xn--bcher-kva.example"},
		{"stra\u00dfe.example", "xn--strae-oqa.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.Example.", "xn--bcher-kva.example"},
		{"*.\u4f8b\u3048.\u30c6\u30b9\u30c8", "*.xn--r8jz45g.xn--zckzah"},
		{"example\u3002com", "example.com"},
		{"\uff45xample\uff0ecom\uff61", "example.com"},
		{"_sip.b\u00fccher.example", "_sip.xn--bcher-kva.example"},
		{"xn--i-7iq.ws", "xn--i-7iq.ws"}, // of an older IDNA
		{label63 + ".example", label63 + ".example"},
		{name253, name253},
		{name253 + ".", name253},
	}
	for _, tt := range tests {
		got, err := Parse(tt.text)
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: %v, %v; want %s", tt.text, got, err, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	const characters = "; a name has letters, digits, '-' and '_'"
	tests := []struct{ text, want string }{
		{"", `"" is empty`},
		{".", `"." is the root of all names; write the names that you mean`},
		{"*", `"*" would be every name; leave domains out, for rules without them match whatever the name`},
		{"*.", `"*." would be every name; leave domains out, for rules without them match whatever the name`},
		{"**", `"**" would be every name; leave domains out, for rules without them match whatever the name`},
		{"*.*", `"*.*" would be every name; leave domains out, for rules without them match whatever the name`},
		{"**.example", `"**.example" has two '*'; "*.example" is every name below already, at any depth`},
		{"*.*.example", `"*.*.example" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`},
		{"*example.com", `"*example.com" has a '*' that is not a label by itself; write "*.example.com" for the names below it, and "example.com" for the name itself`},
		{"www.*.com", `"www.*.com" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`},
		{"example.*", `"example.*" has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`},
		{".example.com", `".example.com" begins with a dot; write "*.example.com" for the names below it, and "example.com" for the name itself`},
		{"..example", `"..example" has an empty label: two dots in a row`},
		{"a..b", `"a..b" has an empty label: two dots in a row`},
		{"a..", `"a.." has an empty label: two dots in a row`},
		{"*..a", `"*..a" begins with a dot; write "*.a" for the names below it, and "a" for the name itself`},
		{"a.\u00ad", `"a.\u00ad" has an empty label`},
		{label63 + "b.example", `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"... has a label longer than 63 bytes`},
		{strings.Repeat("ab.", 84) + "ab", `"ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab.ab."... is longer than the 253 bytes of a name`},
		{strings.Repeat("\u00fc", 1<<20), `is longer than the 253 bytes of a name`},
		{"192.0.2.1", `"192.0.2.1" is an address and not a name; write it under addresses`},
		{"*.192.0.2.1", `"*.192.0.2.1" is an address and not a name; write it under addresses`},
		{"2001:db8::1", `"2001:db8::1" is an address and not a name; write it under addresses`},
		{"[::1]", `"[::1]" is an address and not a name; write it under addresses`},
		{"fe80::1%eth0", `"fe80::1%eth0" is an address and not a name; write it under addresses`},
		{"10.0.0.0/8", `"10.0.0.0/8" is an address and not a name; write it under addresses`},
		{"\uff11.2.3.4", "\"\uff11.2.3.4\" is an address and not a name; write it under addresses"},
		{"1.2.3", `"1.2.3" ends in a number, as no name does`},
		{"example.12", `"example.12" ends in a number, as no name does`},
		{"12", `"12" ends in a number, as no name does`},
		{"https://www.example.com/a?b", `"https://www.example.com/a?b" is a URL; write the name in it alone, "www.example.com"`},
		{"ftp://u:p@example.com:21/", `"ftp://u:p@example.com:21/" is a URL; write the name in it alone, "example.com"`},
		{"example.com:443", `"example.com:443" has a port; write "example.com" here and the port in ports`},
		{"example.com/", `"example.com/" has a path; write the name alone, "example.com"`},
		{"||ads.example^", `"||ads.example^" is a filter of a web browser; write "*.ads.example" for the names below it, and "ads.example" for the name itself`},
		{"exam ple", `"exam ple" has the character ' '` + characters},
		{"user@example.com", `"user@example.com" has the character '@'` + characters},
		{"a\nb", `"a\nb" has the character '\n'` + characters},
		{"a.b\x00", `"a.b\x00" has the character '\x00'` + characters},
		{"a\xff.example", `"a\xff.example" has the label "a\xff", which is no internationalised name`},
		{"a\u2028b.example", `"a\u2028b.example" has the label "a\u2028b", which is no internationalised name`},
		{"xn--.example", `"xn--.example" has the label "xn--", which begins as an internationalised name does but is none`},
		{"xn--0000h.example", `"xn--0000h.example" has the label "xn--0000h", which begins as an internationalised name does but is none`},
		{strings.Repeat("\u00fc", 60) + ".example", `has a label longer than 63 bytes`},
	}
	for _, tt := range tests {
		p, err := Parse(tt.text)
		switch {
		case err == nil:
			t.Errorf("%q is %v, want %s", tt.text, p, tt.want)
		case err.Error() != tt.want && !(tt.want[0] != '"' && strings.HasSuffix(err.Error(), tt.want)):
			t.Errorf("%q: %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestParseName(t *testing.T) {
	for text, want := range map[string]string{"Example.COM.": "example.com", "b\u00fccher.example": "xn--bcher-kva.example"} {
		if got, err := ParseName(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"*.example.com": `"*.example.com" is a pattern; one name is wanted here`,
		"":              `"" is empty`,
		"a..b":          `"a..b" has an empty label: two dots in a row`,
	} {
		if got, err := ParseName(text); err == nil || err.Error() != want || got != "" {
			t.Errorf("%q: %q, %v; want %s", text, got, err, want)
		}
	}
}

func TestMatches(t *testing.T) {
	set := New([]Pattern{{"b.example", true}, {"a.example", false}, {"c.example", false}, {"c.example", true}, {"a.example", false}})
	if set.Len() != 4 {
		t.Errorf("%d patterns, want 4", set.Len())
	}
	for name, want := range map[string]bool{
		"a.example": true, "x.a.example": false, "xa.example": false,
		"b.example": false, "x.b.example": true, "y.x.b.example": true, "xb.example": false,
		"c.example": true, "x.c.example": true,
		"example": false, "": false,
	} {
		if got := set.Matches(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
		one := false
		for _, p := range set.Patterns() {
			one = one || p.Matches(name)
		}
		if one != want {
			t.Errorf("%q: one of the patterns matches: %v", name, one)
		}
	}
}

// FuzzParse: no panic; what is accepted is in egate's form, which is read as
// itself, and is a name to DNS as well; and what DNS takes for a name of plain
// letters is accepted.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"example.com", "*.Example.COM.", "b\u00fccher.example", "xn--bcher-kva.example", "_dmarc.a", "1.2.3.4", "a..b", ".", "*", "*.*",
		"\uff45xample\u3002com", "xn--", "https://a.b/c", "a:1", "||a^", "[::1]", strings.Repeat("a.", 127), label63, "\u0628.1", "a\u200db",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("%q: the error %q does not fit a line", text, err)
			}
			if isPlainName(text) {
				t.Fatalf("%q is a name to DNS: %v", text, err)
			}
			return
		}
		checkForm(t, text, p)
		again, err := Parse(p.String())
		if err != nil || again != p {
			t.Fatalf("%q: %v is read as %v, %v", text, p, again, err)
		}
		if name, err := ParseName(p.Name); err != nil || name != p.Name {
			t.Fatalf("%q: the name %v is read as %q, %v", text, p, name, err)
		}
	})
}

// isPlainName tells a name that DNS knows and IDNA has nothing to say of. The
// oracle lets one byte too many pass.
func isPlainName(text string) bool {
	_, ok := dns.IsDomainName(text)
	lower := strings.ToLower(strings.TrimSuffix(text, "."))
	if !ok || lower == "" || len(lower) > MaxName || strings.Contains(lower, "xn--") || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return false
	}
	last := lower[strings.LastIndexByte(lower, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

func checkForm(t *testing.T, text string, p Pattern) {
	if labels, ok := dns.IsDomainName(p.Name); !ok || labels != 1+strings.Count(p.Name, ".") {
		t.Fatalf("%q: %q is no name to DNS, or has other labels", text, p.Name)
	}
	packed := make([]byte, 256)
	if n, err := dns.PackDomainName(dns.Fqdn(p.Name), packed, 0, nil, false); err != nil || n != len(p.Name)+2 {
		t.Fatalf("%q: %q does not fit a DNS message: %d bytes, %v", text, p.Name, n, err)
	}
	if len(p.Name) > MaxName || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || p.Name[0] == '.' {
		t.Fatalf("%q: %q is not in egate's form", text, p.Name)
	}
	for label := range strings.SplitSeq(p.Name, ".") {
		if len(label) == 0 || len(label) > MaxLabel {
			t.Fatalf("%q: %q has the label %q", text, p.Name, label)
		}
	}
	for _, name := range []string{p.Name, "x." + p.Name} {
		if p.Matches(name) != (p.Below == (name != p.Name)) {
			t.Fatalf("%v and %s", p, name)
		}
	}
}

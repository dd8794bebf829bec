package packet

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"egate/internal/verdict"
)

func TestParseText(t *testing.T) {
	type want struct {
		proto      uint8
		have       Have
		src, dst   string
		srcPort    uint16
		selector   uint16
		family     uint8
		ttl, flags uint8
	}
	for text, w := range map[string]want{
		"tcp 10.0.0.5:40000 -> 93.184.216.34:443":            {6, all, "10.0.0.5", "93.184.216.34", 40000, 443, 4, 64, FlagSYN},
		"udp [2001:db8::1]:5353 -> [2001:db8::2]:53":         {17, all, "2001:db8::1", "2001:db8::2", 5353, 53, 6, 64, 0},
		"  sctp\t10.0.0.1   ->  10.0.0.2:9 ":                 {132, all, "10.0.0.1", "10.0.0.2", 0, 9, 4, 64, 0},
		"tcp 2001:db8::1 -> [2001:db8::2]:53 flags=SA":       {6, all, "2001:db8::1", "2001:db8::2", 0, 53, 6, 64, FlagSYN | FlagACK},
		"tcp [2001:db8::1] -> [2001:db8::2]:53 flags=none":   {6, all, "2001:db8::1", "2001:db8::2", 0, 53, 6, 64, 0},
		"tcp * -> 10.0.0.2:80":                               {6, all &^ HaveSrc, "", "10.0.0.2", 0, 80, 4, 64, FlagSYN},
		"tcp *:99 -> *:80 ipv6 ttl=3":                        {6, HaveProto | HaveTransport, "", "", 99, 80, 6, 3, FlagSYN},
		"tcp 10.0.0.1 -> 10.0.0.2:*":                         {6, header, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
		"icmp 10.0.0.1 -> 10.0.0.2 echo-request id=7":        {1, all, "10.0.0.1", "10.0.0.2", 7, 8 << 8, 4, 64, 0},
		"icmp 10.0.0.1 -> 10.0.0.2 type=8 code=0":            {1, all, "10.0.0.1", "10.0.0.2", 0, 8 << 8, 4, 64, 0},
		"icmp 10.0.0.1 -> 10.0.0.2 code=13 type=3":           {1, all, "10.0.0.1", "10.0.0.2", 0, 3<<8 | 13, 4, 64, 0},
		"icmp 10.0.0.1 -> 10.0.0.2 port-unreachable":         {1, all, "10.0.0.1", "10.0.0.2", 0, 3<<8 | 3, 4, 64, 0},
		"icmpv6 fe80::1 -> fe80::2 port-unreachable":         {58, all, "fe80::1", "fe80::2", 0, 1<<8 | 4, 6, 64, 0},
		"icmpv6 fe80::1 -> fe80::2 echo-reply":               {58, all, "fe80::1", "fe80::2", 0, 129 << 8, 6, 64, 0},
		"icmpv6 fe80::1 -> ff02::1 neighbour-solicitation":   {58, all, "fe80::1", "ff02::1", 0, 135 << 8, 6, 255, 0},
		"icmpv6 fe80::1 -> ff02::1 mld2-report":              {58, all, "fe80::1", "ff02::1", 0, 143 << 8, 6, 1, 0},
		"icmpv6 fe80::1 -> ff02::1 mld2-report hop-limit=64": {58, all, "fe80::1", "ff02::1", 0, 143 << 8, 6, 64, 0},
		"icmp 10.0.0.1 -> 10.0.0.2 type=*":                   {1, header, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
		"1 fe80::1 -> fe80::2 type=8":                        {1, all, "fe80::1", "fe80::2", 0, 8 << 8, 6, 64, 0},
		"gre 10.0.0.1 -> 10.0.0.2":                           {47, header, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
		"47 10.0.0.1 -> 10.0.0.2":                            {47, header, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
		"* 10.0.0.1 -> 10.0.0.2":                             {0, addresses, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
		"0 10.0.0.1 -> 10.0.0.2":                             {0, header, "10.0.0.1", "10.0.0.2", 0, 0, 4, 64, 0},
	} {
		t.Run(text, func(t *testing.T) {
			k, extras, err := ParseText(text)
			if err != nil {
				t.Fatal(err)
			}
			got := want{k.Proto, k.Have, "", "", k.SourcePort, k.Selector, k.Family, k.HopLimit, k.TCPFlags}
			if k.Has(HaveSrc) {
				got.src = k.Src.String()
			}
			if k.Has(HaveDst) {
				got.dst = k.Dst.String()
			}
			if got != w || !k.IP || k.Direction != verdict.Egress || k.Problem != 0 || !reflect.DeepEqual(extras, Extras{}) {
				t.Errorf("%+v, want %+v: %+v", got, w, k)
			}
			if etherType := map[uint8]uint16{4: 0x0800, 6: 0x86dd}[w.family]; k.EtherType != etherType {
				t.Errorf("EtherType %#04x, want %#04x", k.EtherType, etherType)
			}
		})
	}
}

func TestParseTextWords(t *testing.T) {
	for text, check := range map[string]func(k Key, e Extras) bool{
		"tcp 10.0.0.1 -> 10.0.0.2:80 in":                           func(k Key, e Extras) bool { return k.Direction == verdict.Ingress },
		"tcp 10.0.0.1 -> 10.0.0.2:80 out":                          func(k Key, e Extras) bool { return k.Direction == verdict.Egress },
		"tcp 10.0.0.1 -> 10.0.0.2:80 fragment=first":               func(k Key, e Extras) bool { return k.Fragment == FirstFragment && k.HasPorts() },
		"tcp 10.0.0.1 -> 10.0.0.2 fragment=later":                  func(k Key, e Extras) bool { return k.Fragment == LaterFragment && k.Have == header },
		"icmp 10.0.0.1 -> 10.0.0.2 fragment=later fragment-id=0x9": func(k Key, e Extras) bool { return k.FragmentID == 9 && k.Have == header },
		"tcp 10.0.0.1 -> 10.0.0.2:80 no-link":                      func(k Key, e Extras) bool { return k.EtherType == 0 && k.Family == 4 },
		"tcp 10.0.0.1 -> *:80 problem=source-route":                func(k Key, e Extras) bool { return k.Problem == verdict.ReasonSourceRoute },
		"* * -> * problem=truncated":                               func(k Key, e Extras) bool { return k == Key{IP: true, Problem: verdict.ReasonTruncated} },
		"tcp 10.0.0.1 -> 10.0.0.2:80 reply":                        func(k Key, e Extras) bool { return reflect.DeepEqual(e, Extras{Reply: true}) },
		"icmp 10.0.0.1 -> 10.0.0.2 time-exceeded reply-error":      func(k Key, e Extras) bool { return reflect.DeepEqual(e, Extras{ReplyError: true}) },
		"tcp 10.0.0.1 -> 10.0.0.2:80 name=Registry.Example.COM.": func(k Key, e Extras) bool {
			return reflect.DeepEqual(e, Extras{Names: []string{"registry.example.com"}})
		},
		"udp 10.0.0.1 -> 10.0.0.2:443 name=a.example,bücher.example reply name=c.example": func(k Key, e Extras) bool {
			return reflect.DeepEqual(e, Extras{Reply: true, Names: []string{"a.example", "xn--bcher-kva.example", "c.example"}})
		},
		"arp":                           func(k Key, e Extras) bool { return k == Key{EtherType: 0x0806, Control: true} },
		"lldp in":                       func(k Key, e Extras) bool { return k.Direction == verdict.Ingress && k.EtherType == 0x88cc },
		"non-ip":                        func(k Key, e Extras) bool { return k == Key{} },
		"non-ip type=0x88b5":            func(k Key, e Extras) bool { return k == Key{EtherType: 0x88b5} },
		"non-ip type=0x0806":            func(k Key, e Extras) bool { return k == Key{EtherType: 0x0806, Control: true} },
		"non-ip control type=38":        func(k Key, e Extras) bool { return k == Key{EtherType: 38, Control: true} },
		"non-ip type=0x88cc control in": func(k Key, e Extras) bool { return k.Control && k.EtherType == 0x88cc },
	} {
		t.Run(text, func(t *testing.T) {
			k, extras, err := ParseText(text)
			if err != nil {
				t.Fatal(err)
			}
			if !check(k, extras) {
				t.Errorf("%+v %+v", k, extras)
			}
			if again, _, err := ParseText(k.String()); err != nil || again != k {
				t.Errorf("%s came back as %s, %v", &k, &again, err)
			}
		})
	}
}

func TestParseTextErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		column int
		say    string // a part of the message
	}{
		{"", 1, "the text ends is no protocol"},
		{"   ", 4, "expected a protocol"},
		{"tpc 10.0.0.1 -> 10.0.0.2:80", 1, `"tpc" is no protocol; expected a protocol name or number, e.g. tcp`},
		{"256 10.0.0.1 -> 10.0.0.2", 1, "is no protocol"},
		{"tcp", 4, "expected ADDRESS or ADDRESS:PORT, e.g."},
		{"tcp 10.0.0.300:5 -> 10.0.0.2:80", 5, `"10.0.0.300:5" is no address`},
		{"tcp 10.0.0.1: -> 10.0.0.2:80", 5, "no port behind its colon"},
		{"tcp fe80::1%eth0 -> fe80::2", 5, "zone"},
		{"tcp ::ffff:10.0.0.1 -> 10.0.0.2:80", 5, "IPv4 written as IPv6"},
		{"tcp [10.0.0.1]:5 -> 10.0.0.2:80", 5, "is no address"},
		{"tcp []:5 -> 10.0.0.2:80", 5, "is no address"},
		{"tcp 10.0.0.1", 13, "the text ends where the arrow should be"},
		{"tcp 10.0.0.1 > 10.0.0.2:80", 14, `">" where the arrow should be`},
		{"tcp 10.0.0.1 ->", 16, "expected ADDRESS"},
		{"tcp 10.0.0.1 -> fe80::1", 17, "different families"},
		{"tcp 10.0.0.1 -> 10.0.0.2", 17, "tcp needs a destination port; expected a destination port, e.g."},
		{"tcp 10.0.0.1:70000 -> 10.0.0.2:80", 5, `"70000" is no port`},
		{"tcp 10.0.0.1 -> 10.0.0.2:-1", 17, `"-1" is no port`},
		{"tcp 10.0.0.1:5 -> 10.0.0.2:*", 5, "together or not at all"},
		{"tcp 10.0.0.1:* -> 10.0.0.2:5", 5, "together or not at all"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=", 29, "expected domain names, e.g. name=registry.example.com"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=a.example,", 29, "expected domain names"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=*.example", 29, "is a pattern"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=10.0.0.2", 29, "expected domain names"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=a.example name=A.example.", 44, "says a.example again"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=a,b,c,d,e,f,g,h name=i", 50, "up to 8 names"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 name=a.example in", 29, "this packet comes in"},
		{"tcp 10.0.0.1 -> *:80 problem=source-route name=a.example", 43, "a destination that cannot be read has no name"},
		{"arp name=a.example", 5, "is no word for this frame"},
		{"gre 10.0.0.1 -> 10.0.0.2:80", 17, "protocol gre has no ports"},
		{"* 10.0.0.1:5 -> 10.0.0.2", 3, "has no ports"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 fragment=later", 17, "a later fragment carries no ports"},
		{"icmp 10.0.0.1 -> 10.0.0.2", 26, "icmp needs a message; expected an ICMP name"},
		{"icmp 10.0.0.1 -> 10.0.0.2 code=1", 27, "code says nothing without a type"},
		{"icmp 10.0.0.1 -> 10.0.0.2 type=* code=1", 34, "code says nothing without a type"},
		{"icmp 10.0.0.1 -> 10.0.0.2 type=256", 27, "type=N, a number up to 255"},
		{"icmp 10.0.0.1 -> 10.0.0.2 type=3 id=5", 34, "only echo messages"},
		{"icmp 10.0.0.1 -> 10.0.0.2 port-unreachable code=4", 44, "port-unreachable tells the code already"},
		{"icmp 10.0.0.1 -> 10.0.0.2 neighbour-solicitation", 27, "protocol icmp has no neighbour-solicitation"},
		{"icmp 10.0.0.1 -> 10.0.0.2 echo-request type=8", 40, "says again"},
		{"icmp 10.0.0.1 -> 10.0.0.2 type=8 fragment=later", 27, "has no ICMP header"},
		{"icmp fe80::1 -> fe80::2 type=8", 1, "icmp does not go with IPv6"},
		{"icmpv6 10.0.0.1 -> 10.0.0.2 echo-request", 1, "icmpv6 does not go with IPv4"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 type=8", 29, "has no ICMP header"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 echo-request", 29, "protocol tcp has no echo-request"},
		{"* 10.0.0.1 -> 10.0.0.2 echo-request", 24, "protocol * has no echo-request"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 flags=X", 29, "letters of FSRPAUEC"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 flags=SS", 29, "once each"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 flags=", 29, "no such flags"},
		{"udp 10.0.0.1 -> 10.0.0.2:80 flags=S", 29, "no TCP flags"},
		{"tcp 10.0.0.1 -> 10.0.0.2:* flags=S", 28, "no TCP flags"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 fragment=second", 29, "fragment=first or fragment=later"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 fragment=", 29, "fragment=first or fragment=later"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 fragment-id=7", 29, "only a fragment"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 ttl=300", 29, "ttl=N, a number up to 255, e.g. ttl=7"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 ttl=64 hop-limit=64", 36, "says again"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 in out", 32, "says again"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 uid=1000", 29, "this version knows no uid"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 process", 29, "this version knows no process"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 ipv4", 29, "the addresses tell the family"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 problem=truncated", 29, "all of this packet is readable"},
		{"tcp 10.0.0.1 -> 10.0.0.2 fragment=later problem=truncated", 41, "all of this packet is readable"},
		{"tcp 10.0.0.1 -> 10.0.0.2:* problem=default", 28, "one of truncated, bad-ip-header"},
		{"* * -> * no-link", 10, "no-link says nothing"},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 föö", 29, `unknown word "föö"`},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 in föö wörd", 32, `unknown word "föö"`},
		{"tcp 10.0.0.1 -> 10.0.0.2:80 a=b", 29, `unknown word "a=b"`},
		{"arp 10.0.0.1", 5, "is no word for this frame"},
		{"arp control", 5, "is no word for this frame"},
		{"non-ip type=0x0800", 8, "is IP or a VLAN tag"},
		{"non-ip type=0x8100", 8, "is IP or a VLAN tag"},
		{"non-ip type=0x88b5 control", 20, "no link-control protocol"},
		{"non-ip type=0x10000", 8, "number up to 65535"},
	} {
		t.Run(c.text, func(t *testing.T) {
			k, _, err := ParseText(c.text)
			var textErr *TextError
			if !errors.As(err, &textErr) {
				t.Fatalf("error %v, key %s; want a TextError", err, &k)
			}
			if textErr.Column != c.column || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%v\nwant column %d and %q", err, c.column, c.say)
			}
			if k != (Key{}) {
				t.Errorf("a key beside the error: %+v", k)
			}
		})
	}
}

func TestKeyString(t *testing.T) {
	for text, k := range map[string]Key{
		"tcp 10.0.0.5:40000 -> 93.184.216.34:443":           mustParse(t, "tcp 10.0.0.5:40000 -> 93.184.216.34:443"),
		"udp [2001:db8::1]:1 -> [2001:db8::2]:53 in ttl=2":  mustParse(t, "17 [2001:db8::1]:1 -> [2001:db8::2]:53 ttl=2 in"),
		"icmp 10.0.0.1 -> 10.0.0.2 echo-request id=7":       mustParse(t, "icmp 10.0.0.1 -> 10.0.0.2 type=8 id=7"),
		"icmp 10.0.0.1 -> 10.0.0.2 type=8 code=1":           mustParse(t, "icmp 10.0.0.1 -> 10.0.0.2 echo-request code=1"),
		"icmp 10.0.0.1 -> 10.0.0.2 admin-prohibited":        mustParse(t, "1 10.0.0.1 -> 10.0.0.2 type=3 code=13"),
		"icmpv6 fe80::1 -> fe80::2 neighbour-advertisement": mustParse(t, "icmpv6 fe80::1 -> fe80::2 neighbor-advertisement"),
		"* * -> * problem=vlan-depth":                       {IP: true, Problem: verdict.ReasonVLANDepth},
		"* * -> * ipv6 problem=bad-length":                  {IP: true, EtherType: 0x86dd, Family: 6, Problem: verdict.ReasonBadLength},
		"* * -> * ipv6 no-link problem=bad-length":          {IP: true, Family: 6, Problem: verdict.ReasonBadLength},
		"arp":                           {EtherType: 0x0806, Control: true},
		"non-ip type=0x0026 control in": {EtherType: 38, Control: true, Direction: verdict.Ingress},
		"non-ip type=0x0000":            {},
		"tcp 10.0.0.1 -> 10.0.0.2 fragment=later":               mustParse(t, "tcp 10.0.0.1 -> 10.0.0.2:* fragment=later"),
		"tcp 10.0.0.1 -> 10.0.0.2:* fragment=first ttl=9":       mustParse(t, "tcp 10.0.0.1 -> 10.0.0.2:* ttl=9 fragment=first"),
		"tcp [fe80::1] -> [fe80::2]:80 flags=FSRPAUEC":          mustParse(t, "tcp fe80::1 -> [fe80::2]:80 flags=CEUAPRSF"),
		"icmp 10.0.0.1 -> 10.0.0.2 type=*":                      mustParse(t, "icmp 10.0.0.1 -> 10.0.0.2 type=*"),
		"58 10.0.0.1 -> 10.0.0.2 echo-request":                  mustParse(t, "58 10.0.0.1 -> 10.0.0.2 echo-request"),
		"sctp *:9 -> 10.0.0.2:10":                               mustParse(t, "132 *:9 -> 10.0.0.2:10"),
		"gre 10.0.0.1 -> 10.0.0.2 fragment=later fragment-id=3": mustParse(t, "gre 10.0.0.1 -> 10.0.0.2 fragment-id=3 fragment=later"),
	} {
		if got := k.String(); got != text {
			t.Errorf("%s, want %s", got, text)
		}
	}
}

func mustParse(t *testing.T, text string) Key {
	t.Helper()
	k, _, err := ParseText(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNames(t *testing.T) {
	for _, name := range ProtoNames() {
		n, ok := ProtoNumber(name)
		if !ok || ProtoName(n) != name {
			t.Errorf("%s is number %d, which is %s", name, n, ProtoName(n))
		}
	}
	seen := map[string]bool{}
	for _, name := range ICMPNames() {
		messages, ok := ICMPMessages(name)
		if !ok || len(messages) == 0 || len(messages) > 2 || seen[name] {
			t.Errorf("%s stands for %v", name, messages)
		}
		seen[name] = true
		for i, m := range messages {
			if !isICMP(m.Proto) || i > 0 && m.Proto == messages[0].Proto {
				t.Errorf("%s stands for %v", name, messages)
			}
			first, _ := m.Selectors()
			printed, _ := ICMPName(m.Proto, first)
			if s, ok := namedSelector(m.Proto, printed); !ok || s != first {
				t.Errorf("%s of protocol %d is printed as %s, which is another message", name, m.Proto, printed)
			}
		}
	}
	if _, ok := ICMPName(ProtoICMP, 200<<8); ok {
		t.Error("type 200 has a name")
	}
	if ProtoName(200) != "200" {
		t.Error("protocol 200 has a name")
	}
}

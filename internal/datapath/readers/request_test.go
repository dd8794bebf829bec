package readers

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/testutil"
)

// check reads bytes with the program, whole and cut at every length, and holds
// the answers to those of the twin and of servers.
func (r *requestReader) check(t testing.TB, b []byte) requestAnswer {
	t.Helper()
	r.put(t, b)
	last := min(len(b), requestRoomBytes)
	answer := r.readPut(t, last)
	if want := requestTwin(b[:last]); answer != want {
		t.Fatalf("%s: %+v, want %+v", show(b), answer, want)
	}
	for n := range last {
		if got := r.readPut(t, n); got != answer && got.kind != requestMore {
			t.Fatalf("first %d bytes of %s: %+v, but of all: %+v", n, show(b), got, answer)
		}
	}
	checkServer(t, b[:last], answer)
	return answer
}

// checkServer holds an answer to what a server sees.
func checkServer(t testing.TB, b []byte, a requestAnswer) {
	t.Helper()
	sees := httpServerSees
	if len(b) > 0 && b[0] == 22 {
		sees = tlsServerSees
	}
	seen, accepted := sees(b)
	if !accepted {
		return
	}
	name, valid := asName(seen)
	switch a.kind {
	case requestNamed:
		if a.name != name {
			t.Fatalf("%s: a server sees %q, not %q", show(b), seen, a.name)
		}
	case requestNameless:
		if valid {
			t.Fatalf("%s: a server sees %q, we see no name", show(b), seen)
		}
	case requestMore:
		t.Fatalf("%s: a server sees %q, we want more", show(b), seen)
	}
}

func show(b []byte) string {
	if len(b) > 0 && b[0] == 22 {
		return fmt.Sprintf("%d bytes %x", len(b), b)
	}
	return fmt.Sprintf("%q", b)
}

func named(name string) requestAnswer { return requestAnswer{kind: requestNamed, name: name} }

func withECH(a requestAnswer) requestAnswer {
	a.ech = true
	return a
}

func TestRequestReaderLoads(t *testing.T) {
	t.Log(strings.TrimSpace(newRequestReader(t).program.VerifierLog))
}

func TestClientHello(t *testing.T) {
	r := newRequestReader(t)
	name := serverName("www.Example.com")
	ech := extension{extECH, []byte{0}}
	other := extension{0x1234, []byte("data")}
	long := strings.Repeat("a234567.", 31) + "bcdef" // 253 bytes
	is := named("www.example.com")

	for _, c := range []struct {
		what string
		in   []byte
		want requestAnswer
	}{
		{"a name", simpleHello(name).bytes(), is},
		{"a name behind others", simpleHello(other, keyShare(groupX25519MLKEM768), name).bytes(), is},
		{"a name before others", simpleHello(name, keyShare(groupX25519MLKEM768), other).bytes(), is},
		{"what was sent behind the record", append(simpleHello(name).bytes(), "early data"...), is},
		{"another record behind it", append(simpleHello(name).bytes(), simpleHello(serverName("b.example")).bytes()...), is},
		{"no session id, TLS 1.0", hello{0x0301, 0x0301, nil, []uint16{0x2f}, []byte{0}, []extension{name}, false}.bytes(), is},
		{"a dot at the end", simpleHello(serverName("www.example.com.")).bytes(), is},
		{"one label", simpleHello(serverName("localhost")).bytes(), named("localhost")},
		{"underscores and hyphens", simpleHello(serverName("_dmarc.a-b.example")).bytes(), named("_dmarc.a-b.example")},
		{"the longest name", simpleHello(serverName(long)).bytes(), named(long)},
		{"the longest label", simpleHello(serverName(strings.Repeat("x", 63) + ".example")).bytes(), named(strings.Repeat("x", 63) + ".example")},
		{"the longest session id", hello{0x0303, 0x0303, make([]byte, 32), []uint16{1}, []byte{0, 1}, []extension{name}, false}.bytes(), is},
		{"ECH before the name", simpleHello(ech, name).bytes(), withECH(is)},
		{"ECH behind the name", simpleHello(name, ech).bytes(), withECH(is)},
		{"ECH and no name", simpleHello(ech).bytes(), withECH(nameless)},
		{"1,000 extensions", simpleHello(append(slices.Repeat([]extension{{0x1234, nil}}, 1000), name, ech)...).bytes(), withECH(is)},
		{"as many extensions as fit", filledHello(name).bytes(), is},

		{"no extension", simpleHello().bytes(), nameless},
		{"no list of extensions", bareHello().bytes(), nameless},
		{"other extensions", simpleHello(other).bytes(), nameless},
		{"an empty name", simpleHello(serverName("")).bytes(), nameless},
		{"an IPv4 address", simpleHello(serverName("192.0.2.1")).bytes(), nameless},
		{"an IPv6 address", simpleHello(serverName("2001:db8::1")).bytes(), nameless},
		{"a number", simpleHello(serverName("example.1")).bytes(), nameless},
		{"an empty label", simpleHello(serverName("www..example")).bytes(), nameless},
		{"a dot in front", simpleHello(serverName(".example")).bytes(), nameless},
		{"a dot alone", simpleHello(serverName(".")).bytes(), nameless},
		{"a label of 64 bytes", simpleHello(serverName(strings.Repeat("x", 64) + ".example")).bytes(), nameless},
		{"a name of 254 bytes", simpleHello(serverName("x" + long)).bytes(), nameless},
		{"a name of 1,000 bytes", simpleHello(serverName(strings.Repeat("a.", 500))).bytes(), nameless},
		{"a zero in the name", simpleHello(serverName("www.example.com\x00.org")).bytes(), nameless},
		{"a name with a port", simpleHello(serverName("www.example.com:443")).bytes(), nameless},
		{"a name in UTF-8", simpleHello(serverName("bücher.example")).bytes(), nameless},
		{"a pattern", simpleHello(serverName("*.example.com")).bytes(), nameless},

		{"two server_name extensions", simpleHello(name, name).bytes(), unreadable},
		{"two server_name extensions apart", simpleHello(name, other, ech, name).bytes(), withECH(unreadable)},
		{"two names in one", simpleHello(extension{0, list16(append(name.data[2:], name.data[2:]...)...)}).bytes(), unreadable},
		{"a name of another type in front", simpleHello(extension{0, list16(append([]byte{1, 0, 1, 'x'}, name.data[2:]...)...)}).bytes(), unreadable},
		{"a name of another type", simpleHello(extension{0, []byte{0, 4, 1, 0, 1, 'x'}}).bytes(), unreadable},
		{"an empty server_name extension", simpleHello(extension{0, nil}).bytes(), unreadable},
		{"an empty list of names", simpleHello(extension{0, []byte{0, 0}}).bytes(), unreadable},
		{"a list longer than its extension", simpleHello(extension{0, []byte{0, 5, 0, 0, 1, 'x'}}).bytes(), unreadable},
		{"a list shorter than its extension", simpleHello(extension{0, []byte{0, 4, 0, 0, 1, 'x', 'y'}}).bytes(), unreadable},
		{"a name longer than its list", simpleHello(extension{0, []byte{0, 4, 0, 0, 2, 'x'}}).bytes(), unreadable},
		{"a name shorter than its list", simpleHello(extension{0, []byte{0, 5, 0, 0, 1, 'x', 'y'}}).bytes(), unreadable},

		{"an extension longer than the list", edited(simpleHello(name), -18, 0, 20), unreadable},
		{"a list of extensions longer than the hello", edited(simpleHello(other), -10, 0, 9), unreadable},
		{"a list of extensions shorter than the hello", edited(simpleHello(other), -10, 0, 7), unreadable},
		{"half an extension's header", record(0x0301, handshake(append(bareHello().body(), 0, 2, 0, 0))), unreadable},
		{"half a list's length", record(0x0301, handshake(append(bareHello().body(), 0))), unreadable},
		{"a session id of 33 bytes", hello{0x0301, 0x0303, make([]byte, 33), []uint16{1}, []byte{0}, []extension{name}, false}.bytes(), unreadable},
		{"no cipher suite", hello{0x0301, 0x0303, nil, nil, []byte{0}, []extension{name}, false}.bytes(), unreadable},
		{"half a cipher suite", record(0x0301, handshake(append(bareHello().body()[:34:34], 0, 0, 3, 0, 1, 2, 1, 0))), unreadable},
		{"the same, whole", record(0x0301, handshake(append(bareHello().body()[:34:34], 0, 0, 2, 0, 1, 1, 0))), nameless},
		{"more cipher suites than bytes", edited(simpleHello(name), 5+4+2+32+1+32, 1, 0), unreadable},
		{"no compression method", hello{0x0301, 0x0303, nil, []uint16{1}, nil, []extension{name}, false}.bytes(), unreadable},
		{"more compression methods than bytes", hello{0x0301, 0x0303, nil, []uint16{1}, nil, nil, true}.bytes()[:5+4+2+32+1+4], more},
		{"nothing behind the random", record(0x0301, handshake(bareHello().body()[:34])), unreadable},
		{"a session id longer than the rest", record(0x0301, handshake(append(bareHello().body()[:34], 32, 0, 0, 0))), unreadable},

		{"a hello over two records", slices.Concat(record(0x0301, simpleHello(name).bytes()[5:60]), record(0x0301, simpleHello(name).bytes()[60:])), unreadable},
		{"a hello over two records, cut in its header", slices.Concat(record(0x0301, simpleHello(name).bytes()[5:7]), record(0x0301, simpleHello(name).bytes()[7:])), unreadable},
		{"two hellos in a record", record(0x0301, slices.Concat(simpleHello(name).bytes()[5:], simpleHello(name).bytes()[5:])), unreadable},
		{"a byte behind the hello in its record", record(0x0301, append(simpleHello(name).bytes()[5:], 0)), unreadable},
		{"an empty record in front", append(record(0x0301, nil), simpleHello(name).bytes()...), unreadable},
		{"a ServerHello", edited(simpleHello(name), 5, 2), unreadable},
		{"an alert", []byte{21, 3, 1, 0, 2, 1, 0}, unreadable},
		{"another record version", edited(simpleHello(name), 1, 2), unreadable},
		{"another version", edited(simpleHello(name), 9, 2), unreadable},
		{"SSL 2.0", []byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, unreadable},
		{"a hello of 16 MB", edited(simpleHello(name), 6, 1), unreadable},
		{"a record longer than the room", edited(simpleHello(name), 3, 0x40, 0), unreadable},
		{"nothing", nil, more},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := r.check(t, c.in); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func bareHello() hello {
	h := simpleHello()
	h.bare = true
	return h
}

// filledHello fills the room to its last byte, the extension at the end.
func filledHello(last extension) hello {
	h := simpleHello(last)
	for {
		left := requestRoomBytes - len(h.bytes())
		if left == 0 {
			return h
		}
		e := extension{0x1234, nil}
		if left < 8 {
			e.data = make([]byte, left-4)
		}
		h.extensions = append([]extension{e}, h.extensions...)
	}
}

// edited writes bytes at an offset, from the end if that is negative.
func edited(h hello, offset int, values ...byte) []byte {
	b := h.bytes()
	if offset < 0 {
		offset += len(b)
	}
	copy(b[offset:], values)
	return b
}

func TestHTTPRequest(t *testing.T) {
	r := newRequestReader(t)
	is := named("www.example.com")
	long := strings.Repeat("a234567.", 31) + "bcdef"
	for _, c := range []struct {
		what, in string
		want     requestAnswer
	}{
		{"a host", "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", is},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: www.example.com\r\n\r\n", is},
		{"in capitals", "GET / HTTP/1.1\r\nHOST: WWW.EXAMPLE.COM\r\n\r\n", is},
		{"in lower case", "GET / HTTP/1.1\r\nhost: www.example.com\r\n\r\n", is},
		{"no white space", "GET / HTTP/1.1\r\nHost:www.example.com\r\n\r\n", is},
		{"much white space", "GET / HTTP/1.1\r\nHost: \t  www.example.com \t \r\n\r\n", is},
		{"a port", "GET / HTTP/1.1\r\nHost: www.example.com:8080\r\n\r\n", is},
		{"an empty port", "GET / HTTP/1.1\r\nHost: www.example.com:\r\n\r\n", is},
		{"a dot at the end and a port", "GET / HTTP/1.1\r\nHost: www.example.com.:80\r\n\r\n", is},
		{"newlines alone", "GET / HTTP/1.1\nHost: www.example.com\n\n", is},
		{"newlines of both kinds", "GET / HTTP/1.1\nHost: www.example.com\r\n\n", is},
		{"a body", "POST /x HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\n\r\nHost:", is},
		{"a second request", "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n", is},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: www.example.com\r\n\r\n", is},
		{"a long target", "GET /" + strings.Repeat("x", 3000) + " HTTP/1.1\r\nHost: www.example.com\r\n\r\n", is},
		{"behind other fields", "GET / HTTP/1.1\r\nAccept: */*\r\nX:\r\nHosts: b\r\nHost-X: b\r\nhos: b\r\nHost: www.example.com\r\nX: Host: b\r\n\r\n", is},
		{"a tab in a field", "GET / HTTP/1.1\r\nX: a\tb\t\r\nHost: www.example.com\r\n\r\n", is},
		{"UTF-8 in a field", "GET / HTTP/1.1\r\nX: \u00fc\r\nHost: www.example.com\r\n\r\n", is},
		{"the longest name", "GET / HTTP/1.1\r\nHost: " + long + ".:65535\r\n\r\n", named(long)},
		{"the longest method", strings.Repeat("M", 32) + " / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", is},
		{"a field at every place in a word", "GET / HTTP/1.1\r\nA:\r\nAB:\r\nABC:\r\nABCD:\r\nABCDE:\r\nABCDEF:\r\nHost: www.example.com\r\n\r\n", is},

		{"no Host", "GET / HTTP/1.0\r\nAccept: */*\r\n\r\n", nameless},
		{"no field", "GET / HTTP/1.0\r\n\r\n", nameless},
		{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", nameless},
		{"white space as Host", "GET / HTTP/1.1\r\nHost:  \r\n\r\n", nameless},
		{"an IPv4 address", "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", nameless},
		{"an IPv4 address and a port", "GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", nameless},
		{"an IPv6 address", "GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", nameless},
		{"an IPv6 address and a port", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", nameless},
		{"a bare IPv6 address", "GET / HTTP/1.1\r\nHost: 2001:db8::1\r\n\r\n", nameless},
		{"a port alone", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", nameless},
		{"a port of letters", "GET / HTTP/1.1\r\nHost: www.example.com:http\r\n\r\n", nameless},
		{"a port of six digits", "GET / HTTP/1.1\r\nHost: www.example.com:000080\r\n\r\n", nameless},
		{"two ports", "GET / HTTP/1.1\r\nHost: www.example.com:80:80\r\n\r\n", nameless},
		{"two hosts in a line", "GET / HTTP/1.1\r\nHost: www.example.com, b\r\n\r\n", nameless},
		{"a user", "GET / HTTP/1.1\r\nHost: a@www.example.com\r\n\r\n", nameless},
		{"a name in percents", "GET / HTTP/1.1\r\nHost: www.%65xample.com\r\n\r\n", nameless},
		{"a name of 254 bytes", "GET / HTTP/1.1\r\nHost: x" + long + "\r\n\r\n", nameless},
		{"a name of 1,000 bytes", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a.", 500) + "\r\n\r\n", nameless},

		{"two Hosts", "GET / HTTP/1.1\r\nHost: www.example.com\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"two Hosts, one empty", "GET / HTTP/1.1\r\nHost:\r\nX: y\r\nhost: www.example.com\r\n\r\n", unreadable},
		{"white space before the colon", "GET / HTTP/1.1\r\nHost : www.example.com\r\n\r\n", unreadable},
		{"a tab before the colon", "GET / HTTP/1.1\r\nHost\t: www.example.com\r\n\r\n", unreadable},
		{"a Host without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", unreadable},
		{"a folded line", "GET / HTTP/1.1\r\nX: a\r\n b\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a folded Host", "GET / HTTP/1.1\r\nHost:\r\n www.example.com\r\n\r\n", unreadable},
		{"white space before a field", "GET / HTTP/1.1\r\n\tHost: www.example.com\r\n\r\n", unreadable},
		{"a zero", "GET / HTTP/1.1\r\nX: \x00\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a zero in Host", "GET / HTTP/1.1\r\nHost: www.example.com\x00.org\r\n\r\n", unreadable},
		{"a carriage return alone", "GET / HTTP/1.1\r\nX: y\rHost: www.example.com\r\n\r\n", unreadable},
		{"two carriage returns", "GET / HTTP/1.1\r\nHost: www.example.com\r\r\n\r\n", unreadable},
		{"a vertical tab", "GET / HTTP/1.1\r\nX:\vy\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"33 spaces", "GET / HTTP/1.1\r\nHost:" + strings.Repeat(" ", 33) + "www.example.com\r\n\r\n", unreadable},
		{"32 spaces", "GET / HTTP/1.1\r\nHost:" + strings.Repeat(" ", 32) + "www.example.com\r\n\r\n", is},
		{"33 tabs behind", "GET / HTTP/1.1\r\nHost:www.example.com" + strings.Repeat("\t", 33) + "\r\n\r\n", unreadable},
		{"33 spaces alone", "GET / HTTP/1.1\r\nHost:" + strings.Repeat(" ", 33) + "\r\n\r\n", unreadable},

		{"absolute form", "GET http://b.example/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"CONNECT", "CONNECT b.example:443 HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", unreadable},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"HTTP/0.9", "GET /\r\n", unreadable},
		{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a space in the target", "GET /a b HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a tab in the request line", "GET /\tHTTP/1.1 HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a space behind the version", "GET / HTTP/1.1 \r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a target that begins with an asterisk", "OPTIONS *x HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"no target", "GET HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a method in lower case", "get / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a method with a hyphen", "M-SEARCH * HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a method of 33 letters", strings.Repeat("M", 33), unreadable},
		{"no method", " / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"a line in front", "\r\nGET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", unreadable},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", unreadable},
		{"SMTP", "EHLO client.example\r\n", unreadable},
		{"a line of text", "hello\n", unreadable},
		{"binary", "\x00\x01\x02", unreadable},
		{"a method", "GET", more},
		{"a method and a space", "GET ", more},
		{"half a version", "GET / HTTP/1", more},
		{"no empty line yet", "GET / HTTP/1.1\r\nHost: www.example.com\r\n", more},
		{"half an empty line", "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r", more},
		{"a header that fills the room", httpOf(requestRoomBytes), is},
		{"a header that is longer than the room", httpOf(requestRoomBytes + 1)[:requestRoomBytes], unreadable},
		{"a target that is longer than the room", "GET /" + strings.Repeat("x", requestRoomBytes-5), unreadable},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := r.check(t, []byte(c.in)); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// httpOf is a request of n bytes.
func httpOf(n int) string {
	b := []byte("GET / HTTP/1.1\r\nAccept: */*\r\nHost: www.example.com\r\nX: \r\n\r\n")
	return string(bytes.Replace(b, []byte("X: "), append([]byte("X: "), bytes.Repeat([]byte("y"), n-len(b))...), 1))
}

var requestSeed = flag.Uint64("egate.request-seed", 0, "seed of TestChangedRequests; 0: another one each time")

// TestChangedRequests changes some bytes of sound requests, and holds what the
// program says of them to the twin and to servers.
func TestChangedRequests(t *testing.T) {
	reader := newRequestReader(t)
	seed := *requestSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -args -egate.request-seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	rounds := 20_000
	if os.Getenv(testutil.EnvVM) != "" {
		rounds = 2_000 // guests are slow
	}
	var kinds [4]int
	for range rounds {
		b := randomRequest(r)
		for range r.IntN(4) {
			b = changed(r, b)
		}
		b = b[:min(len(b), requestRoomBytes)]
		got := reader.read(t, b)
		if want := requestTwin(b); got != want {
			t.Fatalf("%s: %+v, want %+v", show(b), got, want)
		}
		checkServer(t, b, got)
		kinds[got.kind]++
	}
	t.Logf("more %d, named %d, nameless %d, unreadable %d", kinds[0], kinds[1], kinds[2], kinds[3])
	if slices.Contains(kinds[:], 0) {
		t.Error("one of the answers was never given: the changes are of the wrong kind")
	}
}

func randomRequest(r *rand.Rand) []byte {
	name := []string{"a.example", "www.example.com", "192.0.2.1", "x", "a..b"}[r.IntN(5)]
	switch r.IntN(5) {
	case 0:
		return chromeHello(r, name, r.IntN(2) == 0).bytes()
	case 1:
		return firefoxHello(r, name).bytes()
	case 2:
		return paddedHello(r, name).bytes()
	case 3:
		return simpleHello(serverName(name), extension{uint16(r.IntN(3)), nil}).bytes()
	default:
		lines := []string{"Host: " + name, "Accept: */*", "Hosts: b", " folded", "host: b", "X-Host: c", "Cookie: " + strings.Repeat("x", r.IntN(40))}
		r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		lines = append(lines[:r.IntN(4)], "", "")
		return []byte("GET /x HTTP/1.1\r\n" + strings.Join(lines, "\r\n"))
	}
}

// changed cuts, repeats, inserts or writes over.
func changed(r *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	at := r.IntN(len(b))
	// Lengths and types stand in front.
	if r.IntN(2) == 0 {
		at = r.IntN(min(len(b), 120))
	}
	value := []byte{0, 1, 2, 3, ' ', '\t', '\r', '\n', ':', '.', 'H', 'x', 0xff, byte(r.IntN(256))}[r.IntN(14)]
	switch r.IntN(5) {
	case 0:
		return b[:at]
	case 1:
		return slices.Insert(b, at, value)
	case 2:
		return slices.Delete(b, at, at+1)
	default:
		b[at] = value
		return b
	}
}

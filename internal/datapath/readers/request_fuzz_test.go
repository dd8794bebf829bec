package readers

import (
	"math/rand/v2"
	"testing"
)

// FuzzClientHello gives the program a record of what the fuzzer makes up, whole
// and cut at every length.
func FuzzClientHello(f *testing.F) {
	reader := newRequestReader(f)
	r := rand.New(rand.NewPCG(1, 1))
	name := serverName("www.example.com")
	for _, h := range []hello{
		simpleHello(), bareHello(), simpleHello(name), simpleHello(name, name),
		simpleHello(extension{extECH, nil}, name), simpleHello(serverName("192.0.2.1")),
		chromeHello(r, "a.example", false), firefoxHello(r, "b.example"), paddedHello(r, "c.example"),
	} {
		f.Add(h.bytes())
	}
	f.Add(record(0x0301, simpleHello(name).bytes()[5:60]))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 {
			b[0] = 22
		}
		reader.check(t, b)
	})
}

// FuzzHTTPRequest does the same with anything but records.
func FuzzHTTPRequest(f *testing.F) {
	reader := newRequestReader(f)
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n",
		"OPTIONS * HTTP/1.0\nAccept: */*\nhost:a.example.\n\nbody",
		"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n c\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n",
		"POST /x HTTP/1.1\r\nHostname: a\r\nX:\t\x00\r\n\r\n",
		"SSH-2.0-x\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && b[0] == 22 {
			b[0] = 'G'
		}
		reader.check(t, b)
	})
}

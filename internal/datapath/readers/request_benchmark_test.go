package readers

import (
	"crypto/tls"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkRequest tells what reading a request costs in the kernel, by test
// runs, their own price (25 to 40 ns) and that of a copied name included.
func BenchmarkRequest(b *testing.B) {
	reader := newRequestReader(b)
	r := rand.New(rand.NewPCG(1, 1))
	goHello := func(name string, groups ...tls.CurveID) []byte {
		c := &firstWrite{sentNothingElse: sentNothingElse{strings.NewReader("")}}
		if err := tls.Client(c, &tls.Config{ServerName: name, CurvePreferences: groups}).Handshake(); err == nil {
			b.Fatal("a handshake with nobody succeeded")
		}
		return c.b
	}
	fields := "GET /some/path?query=1 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"nothing", nil},
		{"go-x25519", goHello("www.example.com", tls.X25519)},
		{"go-mlkem", goHello("www.example.com")},
		{"long-name", goHello(strings.Repeat("abcdefg.", 30)+"example", tls.X25519)},
		{"chrome", chromeHello(r, "www.example.com", false).bytes()},
		{"firefox", firefoxHello(r, "www.example.com").bytes()},
		{"most-extensions", filledHello(serverName("www.example.com")).bytes()},
		{"curl", []byte("GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n")},
		{"browser", []byte(fields + "\r\n")},
		{"browser-cookies", []byte(fields + "Cookie: " + strings.Repeat("a=b; ", 200) + "\r\n\r\n")},
		{"longest-header", []byte(httpOf(requestRoomBytes))},
	} {
		b.Run(c.name, func(b *testing.B) {
			reader.put(b, c.bytes)
			b.ReportMetric(0, "ns/op") // of one call; the request's price is ns/request
			b.ReportMetric(float64(len(c.bytes)), "bytes")
			for b.Loop() {
				_, ns := reader.run(b, len(c.bytes), 2_000)
				b.ReportMetric(ns, "ns/request")
			}
		})
	}
}

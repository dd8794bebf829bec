package readers

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

// BenchmarkDNS tells what the reader costs a message: copied into the room, the
// question read and hashed, the answers walked, with learn() only noting what it
// is told; the price of a test run itself (25 to 40 ns) included.
func BenchmarkDNS(b *testing.B) {
	r := newDNSReader(b)
	messages := serverMessages()
	messages["cname+2a"] = packed(answered("www.example.com", dns.TypeA, "www.example.com. 300 IN CNAME www.example.com.cdn.example.net.",
		"www.example.com.cdn.example.net. 20 IN A 192.0.2.1", "www.example.com.cdn.example.net. 60 IN A 192.0.2.2"))
	for _, bench := range []struct {
		name, message string
		records       int
	}{
		{"question", "question", 0},
		{"a", "one address", 1},
		{"cname+2a", "cname+2a", 3},
		{"3cname+8a", "chain of three, eight addresses", 11},
		{"https", "service", 1},
		{"cname+a-uncompressed", "chain without compression", 2},
		{"127-labels", "127 labels", 1},
		{"300a", "300 addresses", 300},
		{"300a-uncompressed", "300 addresses without compression", 300},
		{"1000a", "1000 addresses", 1000},
	} {
		msg, ok := messages[bench.message]
		if !ok {
			b.Fatalf("there is no message %q", bench.message)
		}
		b.Run(bench.name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // of one call; the message's price is ns/message
			for b.Loop() {
				ns := r.price(b, msg)
				b.ReportMetric(ns, "ns/message")
				if bench.records > 0 {
					b.ReportMetric(ns/float64(bench.records), "ns/record")
				}
			}
		})
	}
	for _, name := range []string{"www.example.com", "a-name.of-thirty-bytes.example"} {
		b.Run(fmt.Sprintf("dotted-%d", len(name)), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			for b.Loop() {
				b.ReportMetric(r.priceOf(b, r.dotted, []byte(name+"x")), "ns/message")
			}
		})
	}
}

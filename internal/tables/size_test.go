package tables_test

import (
	"testing"

	"egate/internal/tables"
	"egate/internal/verdict"
)

func TestSizeCountsWhatTheKernelHolds(t *testing.T) {
	size := compiled(t, office()).Size()
	want := tables.ChainSize{
		Rules:   4,
		Classes: [tables.DimensionCount]int{tables.Destination: 2, tables.Service: 3, tables.SourcePort: 2},
		// one for each family: 192.0.2.0/24 and 2001:db8::/32
		Lines: 2,
		// tcp destination ports; udp source ports
		Rows: 1 + 1,
		// 0-255 without and 256-511 with port 443; below 1024 and above
		Pages: 2 + 2,
		// 7 classes of a word
		VectorWords: 7,
		Bytes:       2*64 + 7*8 + 2*(2*(2*256)+(2+4)*256) + 4*32,
	}
	if got := size.Chains[verdict.Egress]; got != want {
		t.Errorf("egress: got %+v, want %+v", got, want)
	}
	if got, want := size.Chains[verdict.Ingress], (tables.ChainSize{}); got != want {
		t.Errorf("ingress has no rules: got %+v", got)
	}
	if size.Bytes != want.Bytes {
		t.Errorf("total %d bytes, want %d", size.Bytes, want.Bytes)
	}
}

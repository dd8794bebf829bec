package datapath

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// cEnum reads an enum of bpf/include/abi.h from the BTF of the embedded object.
func cEnum(t *testing.T, name string) map[string]uint64 {
	t.Helper()
	spec, err := loadAbi()
	if err != nil {
		t.Fatal(err)
	}
	var e *btf.Enum
	if err := spec.Types.TypeByName(name, &e); err != nil {
		t.Fatalf("find enum %s: %v", name, err)
	}
	values := map[string]uint64{}
	for _, v := range e.Values {
		values[v.Name] = v.Value
	}
	return values
}

// TestEnumsAgree holds the names and numbers of package verdict to the C enums.
func TestEnumsAgree(t *testing.T) {
	for _, c := range []struct {
		enum, prefix, end string // end: the enumerator that counts them
		name              func(uint8) string
	}{
		{"egate_direction", "EGATE_", "EGATE_DIRECTIONS", func(n uint8) string { return verdict.Direction(n).String() }},
		{"egate_action", "EGATE_", "EGATE_ACTIONS", func(n uint8) string { return verdict.Action(n).String() }},
		{"egate_reason", "EGATE_REASON_", "EGATE_REASONS", func(n uint8) string { return verdict.Reason(n).String() }},
	} {
		values := cEnum(t, c.enum)
		count, ok := values[c.end]
		if !ok || int(count) != len(values)-1 {
			t.Errorf("enum %s: %s is %d, of %d enumerators", c.enum, c.end, count, len(values))
		}
		for name, number := range values {
			if name == c.end {
				continue
			}
			want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, c.prefix)), "_", "-")
			if got := c.name(uint8(number)); got != want {
				t.Errorf("%s = %d is %q in Go, want %q", name, number, got, want)
			}
		}
		if got := c.name(uint8(count)); !strings.Contains(got, "(") {
			t.Errorf("%s %d has a name in Go, %q, and none in C", c.enum, count, got)
		}
	}
}

// TestNumbersAgree holds the limits and numbers that stand in Go and in C
// against each other.
func TestNumbersAgree(t *testing.T) {
	dimension, link := cEnum(t, "egate_dimension"), cEnum(t, "egate_link")
	kind := cEnum(t, "egate_line_kind")
	have, fragment, limit := cEnum(t, "egate_have"), cEnum(t, "egate_fragment"), cEnum(t, "egate_limit")
	for _, c := range []struct {
		what string
		c    uint64
		g    int
	}{
		{"destination", dimension["EGATE_DIM_DESTINATION"], int(tables.Destination)},
		{"source", dimension["EGATE_DIM_SOURCE"], int(tables.Source)},
		{"service", dimension["EGATE_DIM_SERVICE"], int(tables.Service)},
		{"source port", dimension["EGATE_DIM_SOURCE_PORT"], int(tables.SourcePort)},
		{"name", dimension["EGATE_DIM_NAME"], int(tables.Name)},
		{"dimensions", dimension["EGATE_DIMENSIONS"], int(tables.DimensionCount)},
		{"ethernet", link["EGATE_LINK_ETHERNET"], int(packet.Ethernet)},
		{"no link header", link["EGATE_LINK_NONE"], int(packet.NoLink)},
		{"have src", have["EGATE_HAVE_SRC"], int(packet.HaveSrc)},
		{"have dst", have["EGATE_HAVE_DST"], int(packet.HaveDst)},
		{"have proto", have["EGATE_HAVE_PROTO"], int(packet.HaveProto)},
		{"have transport", have["EGATE_HAVE_TRANSPORT"], int(packet.HaveTransport)},
		{"no fragment", fragment["EGATE_NOT_FRAGMENT"], int(packet.NotFragment)},
		{"first fragment", fragment["EGATE_FIRST_FRAGMENT"], int(packet.FirstFragment)},
		{"later fragment", fragment["EGATE_LATER_FRAGMENT"], int(packet.LaterFragment)},
		{"VLAN tags", limit["EGATE_LIMIT_VLAN_TAGS"], packet.MaxVLANTags},
		{"extension headers", limit["EGATE_LIMIT_EXTENSION_HEADERS"], packet.MaxExtensionHeaders},
		{"header bytes", limit["EGATE_LIMIT_HEADER_BYTES"], packet.MaxHeaderBytes},
		{"continue rules", limit["EGATE_LIMIT_CONTINUE_RULES"], policy.MaxContinueRules},
		{"words", limit["EGATE_LIMIT_WORDS"], (tables.MaxRules + 63) / 64},
		{"depth of an address table", limit["EGATE_LIMIT_DEPTH"], tables.MaxDepth},
		{"bytes of a name", limit["EGATE_LIMIT_NAME_BYTES"], domain.MaxName + 3}, // length of the first label, the root, one to spare
		{"labels of a name", limit["EGATE_LIMIT_NAME_LABELS"], (domain.MaxName + 1) / 2},
		{"steps", kind["EGATE_LINE_STEPS"], int(tables.LineSteps)},
		{"short", kind["EGATE_LINE_SHORT"], int(tables.LineShort)},
		{"index", kind["EGATE_LINE_INDEX"], int(tables.LineIndex)},
		{"wide", kind["EGATE_LINE_WIDE"], int(tables.LineWide)},
		{"size of a line", uint64(unsafe.Sizeof(abiEgateLine{})), int(unsafe.Sizeof(tables.Line{}))},
		{"no row", limit["EGATE_LIMIT_NO_ROW"], tables.NoRow},
		{"abi version", limit["EGATE_LIMIT_ABI_VERSION"], int(ABIVersion)},
	} {
		if int(c.c) != c.g {
			t.Errorf("%s: %d in C, %d in Go", c.what, c.c, c.g)
		}
	}
	if slots := limit["EGATE_LIMIT_REASON_SLOTS"]; slots < uint64(verdict.ReasonCount) || slots&(slots-1) != 0 {
		t.Errorf("%d slots for %d reasons; want a power of two that holds them", slots, verdict.ReasonCount)
	}
}

// TestNamesOfMapsAndProgramsFit: the kernel cuts names at 15 characters.
func TestNamesOfMapsAndProgramsFit(t *testing.T) {
	for _, load := range []func() (m, p []string){
		func() (m, p []string) {
			spec, err := loadPolicy()
			if err != nil {
				t.Fatal(err)
			}
			for name := range spec.Maps {
				m = append(m, name)
			}
			for name := range spec.Programs {
				p = append(p, name)
			}
			return m, p
		},
		func() (m, p []string) {
			spec, err := loadDispatch()
			if err != nil {
				t.Fatal(err)
			}
			for name := range spec.Maps {
				m = append(m, name)
			}
			for name := range spec.Programs {
				p = append(p, name)
			}
			return m, p
		},
	} {
		maps, programs := load()
		for _, name := range append(maps, programs...) {
			if len(name) > 15 {
				t.Errorf("name %q has %d characters", name, len(name))
			}
		}
	}
}

func TestEncodePositionsOfTheSecondChain(t *testing.T) {
	chain := tables.Chain{
		Default: verdict.Reject,
		Rules:   []tables.Rule{{Action: verdict.Drop}, {Action: verdict.Allow}},
		Words:   1,
		Used:    [tables.DimensionCount]bool{tables.Destination: true, tables.Service: true},
	}
	chain.Vectors[tables.Destination] = tables.VectorTable{Stride: 1, Words: []uint64{0, 3}}
	chain.Vectors[tables.Service] = tables.VectorTable{Stride: 1, Words: []uint64{1}}
	chain.Addresses[tables.Destination] = tables.AddressTable{
		Root4: tables.Index{Shift: 31, Last: 1},
		Root6: tables.Index{Shift: 30, Low: 1, Last: 2, Base: 2},
		Lines: make([]tables.Line, 5),
	}
	chain.Selectors[0].Rows = make([][256]uint16, 1)
	chain.Selectors[0].Pages = make([][256]uint16, 2)
	chain.Selectors[0].Pages[1][255] = 7
	set := &tables.Set{Chains: [2]tables.Chain{chain, chain}}
	c := encode(set, 5, 9, domain.Key{})
	e, i := c.config.Chain[0], c.config.Chain[1]
	for _, n := range []struct {
		what      string
		got, want uint32
	}{
		{"egress rules", e.Rules, 0}, {"ingress rules", i.Rules, 3}, // two rules and a default
		// Each table begins on a cache line.
		{"egress service vectors", e.Vectors[tables.Service], 8},
		{"ingress destination vectors", i.Vectors[tables.Destination], 16},
		{"ingress service vectors", i.Vectors[tables.Service], 24},
		{"stride", i.Strides[tables.Service], 1},
		{"ingress lines", i.Addr[0].Lines, 5}, {"lines", uint32(c.lines.count), 10},
		{"ingress shift4", i.Addr[0].Root4.Shift, 31}, {"ingress last4", i.Addr[0].Root4.Last, 1},
		{"ingress low6", i.Addr[0].Root6.Low, 1}, {"ingress base6", i.Addr[0].Root6.Base, 2},
		{"ingress protos", i.Sel[0].Protos, 256},
		{"ingress rows", i.Sel[0].Rows, 768}, {"ingress pages", i.Sel[0].Pages, 1024},
		{"ingress rejects", uint32(i.Rejects), 1}, {"words", i.Words, 1}, {"generation", c.config.Generation, 5},
		{"last selector", uint32(c.pages[len(c.pages)-1].V[3]), 7},
	} {
		if n.got != n.want {
			t.Errorf("%s: %d, want %d", n.what, n.got, n.want)
		}
	}
	if a, b := addrKey(ipset.From4(0x0a000001).Netip()), (abiEgateAddr{Lo: 0xffff0a000001}); a != b {
		t.Errorf("key of 10.0.0.1: %+v, want %+v", a, b)
	}
}

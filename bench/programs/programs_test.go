package programs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"egate/bench/result"
	"egate/bench/world"
	"egate/internal/datapath"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
)

// tiny is enough to go through all of a sheet.
var tiny = Form{
	Name: "tiny", Rounds: 1, Runs: 512, Targets: 256,
	Prefixes: []int{10, 300}, Destinations: []int{1, 64}, Rules: []int{1, 20}, Flows: []int{1, 64},
	Names: []int{1, 20}, Learned: []int{1, 64}, Lookups: 128,
}

// Every sheet is measured, each contender decides right there, and none is
// missing.
func TestSheets(t *testing.T) {
	testutil.RequireRoot(t)
	seen := map[string]bool{}
	for _, s := range Sheets() {
		t.Run(s.ID, func(t *testing.T) {
			if seen[s.ID] {
				t.Error("another sheet has this ID")
			}
			seen[s.ID] = true
			sheet, err := s.Measure(context.Background(), tiny)
			if err != nil {
				t.Fatal(err)
			}
			if sheet.ID != s.ID || sheet.Title == "" || sheet.Size == "" {
				t.Errorf("sheet %q, title %q, size %q", sheet.ID, sheet.Title, sheet.Size)
			}
			wanted := []string{result.Empty, result.ICMPDrop, result.Egate}
			switch {
			case sheet.Size == "prefixes" || sheet.Size == "destinations":
				wanted = append(wanted, result.Trie)
			case sheet.Size == "flows":
				wanted = append(wanted, nameNoTrack)
			case strings.HasPrefix(sheet.ID, "names-lookup"):
				wanted = []string{result.Empty, nameQuestion, shapes[0].name, shapes[1].name, shapes[2].name}
			case strings.HasPrefix(sheet.ID, "names"):
				wanted = append(wanted, nameByAddress)
			}
			for _, name := range wanted {
				points := slices.DeleteFunc(slices.Clone(sheet.Points), func(p result.Point) bool { return p.Contender != name })
				if len(points) != 2 {
					t.Errorf("%s has %d points, want one for each of 2 sizes", name, len(points))
				}
				for _, p := range points {
					if p.Value.Median <= 0 || p.Added == nil {
						t.Errorf("%s at %d: %+v", name, p.Size, p)
					}
				}
			}
		})
	}
	if path, is := os.LookupEnv(datapath.EnvBPFFS); is {
		t.Errorf("%s=%s is left in the environment", datapath.EnvBPFFS, path)
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Sheets()[0].Measure(ctx, tiny); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want one of the context", err)
	}
}

// What decides something else than it must is not measured.
func TestCheckFindsWrongDecisions(t *testing.T) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		name string
		to   string
		drop bool
		list string
		want string // of the error; "" for none
	}{
		{"dropped, rightly", "20.1.2.3:53", true, "20.1.2.0/24", ""},
		{"passed, rightly", "20.1.3.3:53", false, "20.1.2.0/24", ""},
		{"dropped, wrongly", "20.1.2.3:53", false, "20.1.2.0/24", "20.1.2.3:53 returned 0x2"},
		{"passed, wrongly", "20.1.3.3:53", true, "20.1.2.0/24", "20.1.3.3:53 returned 0xffffffff"},
		{"IPv6 dropped, rightly", "[2a00:1::7]:53", true, "2a00:1::/64", ""},
		{"IPv6 passed, wrongly", "[2a00:1:0:1::7]:53", true, "2a00:1::/64", "returned 0xffffffff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, closer, err := LoadTrie([]netip.Prefix{netip.MustParsePrefix(c.list)})
			if err != nil {
				t.Fatal(err)
			}
			defer closer.Close()
			r := newTestRunner(t, p, []target{{netip.MustParseAddrPort(c.to), c.drop}})
			err = r.check(1, true)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
		})
	}
}

// The frame goes to one target after the other, and from the last one to the
// first again.
func TestScatterGoesThroughTheTargets(t *testing.T) {
	testutil.RequireRoot(t)
	for _, network := range []string{"20.1.0.0", "2a00:1::"} {
		targets := make([]target, 4)
		a := netip.MustParseAddr(network)
		for i := range targets {
			a = a.Next()
			targets[i].to = netip.AddrPortFrom(a, uint16(1000+i))
		}
		p, closer, err := LoadEmpty()
		if err != nil {
			t.Fatal(err)
		}
		defer closer.Close()
		r := newTestRunner(t, p, targets)
		for run := range 9 {
			want := targets[run%len(targets)].to
			opts := ebpf.RunOptions{Data: r.field.frame, DataOut: make([]byte, 256)}
			if _, err := r.objects.Scatter.Run(&opts); err != nil {
				t.Fatal(err)
			}
			length, at := 4, 14+16
			if r.field.v6 {
				length, at = 16, 14+24
			}
			out := opts.DataOut[at : at+length+4]
			got, _ := netip.AddrFromSlice(out[:length])
			port := uint16(out[length+2])<<8 | uint16(out[length+3])
			if netip.AddrPortFrom(got, port) != want {
				t.Errorf("run %d went to %v:%d, want %v", run, got, port, want)
			}
		}
	}
}

// Each look-up has another id, port and name, and its addresses go with the
// name.
func TestLookupsDiffer(t *testing.T) {
	testutil.RequireRoot(t)
	p, closer, err := LoadEmpty()
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	l, err := newLookups(p, p, shape{"", 1, 2}, 4, 21)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for run := range 6 {
		for _, w := range []*way{&l.questions, &l.answers} {
			opts := ebpf.RunOptions{Data: w.frame, DataOut: make([]byte, 1024)}
			if _, err := w.objects.Lookup.Run(&opts); err != nil {
				t.Fatal(err)
			}
			const udp = 14 + 20
			var m dns.Msg
			if err := m.Unpack(opts.DataOut[udp+8:]); err != nil {
				t.Fatal(err)
			}
			port := opts.DataOut[udp : udp+2]
			if m.Response {
				port = opts.DataOut[udp+2 : udp+4]
			}
			if got, want := binary.BigEndian.Uint16(port), uint16(0x8000+run); got != want {
				t.Errorf("run %d has port %d, want %d", run, got, want)
			}
			if int(m.Id) != run {
				t.Errorf("run %d has id %d", run, m.Id)
			}
			if got, want := m.Question[0].Name, "aaaaaaa"+string(rune('a'+run%4))+".cdn.example.com."; got != want {
				t.Errorf("run %d is about %s, want %s", run, got, want)
			}
			if !m.Response {
				continue
			}
			for i, want := range []string{fmt.Sprintf("21.0.0.%d", run%4*8), fmt.Sprintf("21.0.0.%d", run%4*8+1)} {
				if got := m.Answer[1+i].(*dns.A).A.String(); got != want {
					t.Errorf("run %d has address %s, want %s", run, got, want)
				}
			}
		}
	}
}

// Answers that open nothing are not measured as if they did.
func TestAnswersToOtherNamesAreFound(t *testing.T) {
	testutil.RequireRoot(t)
	namespace, err := world.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	err = namespace.Run(func() error {
		all, err := newGates()
		if err != nil {
			return err
		}
		defer all.Close()
		g, err := all.apply(NamePolicy(guardedLink, resolver, "names.txt", ""), NameList("another.example", 1))
		if err != nil {
			return err
		}
		defer g.Close()
		l, err := newLookups(g.egress, g.ingress, shapes[0], 0, 20)
		if err != nil {
			return err
		}
		defer l.Close()
		if _, _, err := l.price(8); err != nil {
			return err
		}
		return g.checkLearned(l)
	})
	if !errors.Is(err, errNotLearned) {
		t.Errorf("err = %v, want %v", err, errNotLearned)
	}
}

func TestICMPDrop(t *testing.T) {
	testutil.RequireRoot(t)
	p, closer, err := LoadICMPDrop()
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	own4, to4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("20.1.2.3")
	own6, to6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2a00:1::7")
	for _, c := range []struct {
		name  string
		frame []byte
		drop  bool
	}{
		{"ping", frames.ICMPEcho(own4, to4, false, 1, 1, make([]byte, 8)), true},
		{"IPv6 ping", frames.ICMPEcho(own6, to6, false, 1, 1, make([]byte, 8)), true},
		{"UDP", frames.UDP(own4, to4, 1, 2, make([]byte, 8)), false},
		{"UDP over IPv6", frames.UDP(own6, to6, 1, 2, make([]byte, 8)), false},
	} {
		got, err := p.Run(&ebpf.RunOptions{Data: c.frame})
		if err != nil {
			t.Fatal(err)
		}
		if (got == dropped) != c.drop {
			t.Errorf("%s: returned %#x, dropped should be %v", c.name, got, c.drop)
		}
	}
}

func newTestRunner(t *testing.T, p *ebpf.Program, targets []target) *runner {
	t.Helper()
	f, err := newField(targets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r, err := newRunner(p, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"egate/internal/compile"
	"egate/internal/datapath"
	"egate/internal/packet"
	"egate/internal/policy"
	"egate/internal/testutil"
	"egate/internal/verdict"
)

// world is a guarded loopback interface; bpffs is the test's own.
type world struct {
	t *testing.T
	n *testutil.Netns
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testutil.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	t.Setenv(datapath.EnvBPFFS, dir)
	return &world{t, testutil.NewNetns(t)}
}

func (w *world) apply(text string, replace bool) {
	w.t.Helper()
	p, problems := policy.Parse("test.yaml", []byte("version: 1\nname: test\ninterfaces: [lo]\n"+text), policy.OpenFile)
	if p == nil {
		w.t.Fatal(problems)
	}
	set, _, err := compile.Compile(p)
	if err != nil {
		w.t.Fatal(err)
	}
	w.n.Run(func() {
		if _, err := datapath.Apply(set, datapath.ApplyOptions{Gate: "g", ReplaceState: replace}); err != nil {
			w.t.Fatal(err)
		}
	})
}

// send sends one UDP packet over loopback.
func (w *world) send(from, to string) {
	w.t.Helper()
	source, target := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	w.n.Run(func() {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(target))
		if err != nil {
			w.t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("12345678")); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) {
			w.t.Fatal(err)
		}
	})
}

func (w *world) open(options ...Option) *Reader {
	w.t.Helper()
	r, err := Open("g", options...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Close() })
	return r
}

func read(t *testing.T, r *Reader) Event {
	t.Helper()
	type result struct {
		e   Event
		err error
	}
	done := make(chan result, 1)
	go func() {
		e, err := r.Read()
		done <- result{e, err}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			t.Fatal(got.err)
		}
		return got.e
	case <-time.After(testutil.Patience(5 * time.Second)):
		t.Fatal("no event")
	}
	return Event{}
}

const dropUDP = "egress:\n  default: allow\n  rules:\n    - {name: no-udp, action: drop, to: {ports: [udp/9]}}\n    - {action: drop, to: {ports: [udp/10]}}\n"

func TestEventSaysWhatHappened(t *testing.T) {
	w := newWorld(t)
	w.apply(dropUDP, false)
	r := w.open()
	begin := time.Now()
	w.send("127.0.0.1:4000", "127.0.0.2:9")
	e := read(t, r)
	if e.Time.Before(begin.Add(-50*time.Millisecond)) || e.Time.After(time.Now().Add(50*time.Millisecond)) {
		t.Errorf("time %v, sent at %v", e.Time, begin)
	}
	e.Time = time.Time{}
	want := Event{
		Gate: "g", Generation: 1, Direction: verdict.Egress, Interface: "lo", Ifindex: 1,
		Action: verdict.Drop, Reason: verdict.ReasonRule, Rule: "no-udp",
		Source: netip.MustParseAddr("127.0.0.1"), Destination: netip.MustParseAddr("127.0.0.2"), Family: 4, EtherType: 0x0800,
		HasProto: true, Proto: packet.ProtoUDP, HasPorts: true, SourcePort: 4000, DestinationPort: 9,
		Segments: 1, Length: 14 + 20 + 8 + 8,
	}
	if e != want {
		t.Errorf("event\n%+v, want\n%+v", e, want)
	}
	w.send("[::1]:4000", "[::1]:10")
	if e := read(t, r); e.Rule != "#2" || e.Source != netip.IPv6Loopback() || e.Family != 6 {
		t.Errorf("event %+v, want rule #2 and ::1", e)
	}
}

// TestEventTellsTheNameAskedFor: it stands in the packet, and in no table.
func TestEventTellsTheNameAskedFor(t *testing.T) {
	w := newWorld(t)
	w.apply("egress:\n  default: drop\n  events: all\ndns: {servers: [127.0.0.1], names: listed}\n", false)
	r := w.open()
	question, err := new(dns.Msg).SetQuestion("Secret.Example.", dns.TypeTXT).Pack()
	if err != nil {
		t.Fatal(err)
	}
	w.n.Run(func() {
		c, err := net.Dial("udp", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(question); err != nil {
			t.Fatal(err)
		}
	})
	e := read(t, r)
	if e.Name != "secret.example" || e.Reason != verdict.ReasonDNSUnlisted || e.Action != verdict.Reject {
		t.Errorf("event %+v, want the name secret.example, rejected as not listed", e)
	}
	text, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(text), `"name":"secret.example"`) {
		t.Errorf("JSON %s, %v", text, err)
	}
}

func TestRulesOfThePolicyThatDecided(t *testing.T) {
	w := newWorld(t)
	w.apply(dropUDP, false)
	r := w.open()
	w.send("127.0.0.1:4000", "127.0.0.1:9")
	w.apply("egress:\n  default: allow\n  rules:\n    - {name: other, action: drop, to: {ports: [udp/9]}}\n", false)
	w.send("127.0.0.1:4000", "127.0.0.1:9")
	for _, want := range []string{"no-udp", "other"} {
		if e := read(t, r); e.Rule != want || e.Interface != "lo" {
			t.Errorf("event %+v, want rule %s on lo", e, want)
		}
	}
}

func TestOldEventsAreSkippedUnlessKept(t *testing.T) {
	w := newWorld(t)
	w.apply(dropUDP, false)
	w.send("127.0.0.1:4001", "127.0.0.1:9")
	r := w.open(KeepOld)
	if e := read(t, r); e.SourcePort != 4001 {
		t.Errorf("kept: %+v, want the packet from port 4001", e)
	}
	r.Close()
	w.send("127.0.0.1:4002", "127.0.0.1:9")
	r = w.open()
	w.send("127.0.0.1:4003", "127.0.0.1:9")
	if e := read(t, r); e.SourcePort != 4003 {
		t.Errorf("skipped: %+v, want the packet from port 4003", e)
	}
}

func TestOneReaderAtATime(t *testing.T) {
	w := newWorld(t)
	w.apply(dropUDP, false)
	r := w.open()
	_, err := Open("g")
	if !errors.Is(err, datapath.ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second reader: %v; want busy with the pid %d", err, os.Getpid())
	}
	r.Close()
	w.open()
}

func TestReaderEnds(t *testing.T) {
	w := newWorld(t)
	_, err := Open("g")
	if !errors.Is(err, datapath.ErrNoGate) {
		t.Errorf("open without a gate: %v", err)
	}
	for _, c := range []struct {
		how  string
		end  func(*Reader)
		want error
	}{
		{"close", func(r *Reader) { r.Close() }, os.ErrClosed},
		{"off", func(*Reader) {
			w.n.Run(func() {
				if err := datapath.Off("g"); err != nil {
					t.Error(err)
				}
			})
		}, io.EOF},
	} {
		w.apply(dropUDP, false)
		r := w.open()
		done := make(chan error, 1)
		go func() {
			_, err := r.Read()
			done <- err
		}()
		time.Sleep(20 * time.Millisecond)
		c.end(r)
		select {
		case err := <-done:
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.how, err, c.want)
			}
		case <-time.After(testutil.Patience(5 * time.Second)):
			t.Fatalf("%s: Read goes on waiting", c.how)
		}
		r.Close()
	}
}

func TestJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []struct {
		event Event
		want  string
	}{
		{
			Event{
				Time: at, Gate: "g", Generation: 3, Direction: verdict.Egress, Interface: "eth0", Ifindex: 2,
				Action: verdict.Reject, Reason: verdict.ReasonRule, Rule: "web",
				Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("1.1.1.1"), Family: 4, EtherType: 0x800,
				HasProto: true, Proto: 6, HasPorts: true, SourcePort: 0, DestinationPort: 443, TCPFlags: 2, Segments: 1, Length: 74,
			},
			`{"time":"2026-01-02T03:04:05.000000006Z","gate":"g","generation":3,"direction":"egress","interface":"eth0","ifindex":2,"action":"reject","reason":"rule","rule":"web","audit":false,"source":"10.0.0.1","destination":"1.1.1.1","family":4,"ether_type":2048,"protocol":6,"protocol_name":"tcp","source_port":0,"destination_port":443,"tcp_flags":2,"segments":1,"length":74}`,
		},
		{
			Event{Time: at, Gate: "g", Direction: verdict.Ingress, Action: verdict.Allow, Reason: verdict.ReasonControlFrame, Rule: "default", EtherType: 0x806, Segments: 1, Length: 42},
			`{"time":"2026-01-02T03:04:05.000000006Z","gate":"g","generation":0,"direction":"ingress","interface":"","ifindex":0,"action":"allow","reason":"control-frame","rule":"default","audit":false,"ether_type":2054,"segments":1,"length":42}`,
		},
		{
			Event{Time: at, HasProto: true, Proto: 1, HasICMP: true, ICMPType: 8, ICMPID: 77, Fragment: packet.FirstFragment},
			`{"time":"2026-01-02T03:04:05.000000006Z","gate":"","generation":0,"direction":"egress","interface":"","ifindex":0,"action":"allow","reason":"rule","rule":"","audit":false,"protocol":1,"protocol_name":"icmp","icmp_type":8,"icmp_code":0,"icmp_id":77,"fragment":"first","segments":0,"length":0}`,
		},
	} {
		got, err := json.Marshal(c.event)
		if err != nil || string(got) != c.want {
			t.Errorf("JSON of %+v\n%s, %v; want\n%s", c.event, got, err, c.want)
		}
	}
}

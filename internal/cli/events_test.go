package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/events"
	"egate/internal/packet"
	"egate/internal/verdict"
)

func tcpEvent() events.Event {
	return events.Event{
		Time: statusTime, Gate: "host", Generation: 7, Direction: verdict.Egress, Interface: "eth0", Ifindex: 2,
		Action: verdict.Reject, Reason: verdict.ReasonRule, Rule: "no-web",
		Source: netip.MustParseAddr("2001:db8::5"), Destination: netip.MustParseAddr("2001:db8::1"), Family: 6, EtherType: 0x86dd,
		HasProto: true, Proto: packet.ProtoTCP, HasPorts: true, SourcePort: 40000, DestinationPort: 443, TCPFlags: packet.FlagSYN,
		Fragment: packet.FirstFragment, Segments: 3, Length: 4000,
	}
}

func pingEvent() events.Event {
	return events.Event{
		Time: statusTime.Add(time.Millisecond), Gate: "host", Direction: verdict.Ingress, Ifindex: 9, Audit: true,
		Action: verdict.Drop, Reason: verdict.ReasonDefault, Rule: "default",
		Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.5"), Family: 4, EtherType: 0x0800,
		HasProto: true, Proto: packet.ProtoICMP, HasICMP: true, ICMPType: 8, ICMPID: 7, Segments: 1, Length: 98,
	}
}

func someEvents() []events.Event {
	strange := tcpEvent()
	strange.Rule, strange.Interface = "\x1b[31m-a-rule-with-a-long-name", "an-interface-name"
	truncated := events.Event{Time: statusTime, Family: 4, EtherType: 0x0800, Action: verdict.Drop, Reason: verdict.ReasonTruncated, Rule: "default", Interface: "eth0", Segments: 1}
	arp := events.Event{Time: statusTime, EtherType: 0x0806, Reason: verdict.ReasonControlFrame, Rule: "default", Interface: "eth0", Segments: 1}
	unreadable := events.Event{Time: statusTime, Action: verdict.Drop, Reason: verdict.ReasonNonIP, Rule: "default", Interface: "tun0", Segments: 1}
	return []events.Event{tcpEvent(), pingEvent(), strange, truncated, arp, unreadable}
}

// namedEvents are packets that go by a name, ask for one or tell of one.
func namedEvents() []events.Event {
	passed := tcpEvent()
	passed.Action, passed.Rule, passed.Fragment, passed.Segments, passed.Name = verdict.Allow, "registry", packet.NotFragment, 1, "registry.example.com"
	mismatch := passed
	mismatch.Action, mismatch.Reason, mismatch.Name = verdict.Reject, verdict.ReasonNameMismatch, `evil\007.example.net`
	nameless := mismatch
	nameless.Name = ""
	question := events.Event{
		Time: statusTime, Direction: verdict.Egress, Interface: "lo", Action: verdict.Reject, Reason: verdict.ReasonDNSUnlisted, Rule: "default",
		Source: netip.MustParseAddr("127.0.0.1"), Destination: netip.MustParseAddr("127.0.0.53"), Family: 4, EtherType: 0x0800,
		HasProto: true, Proto: packet.ProtoUDP, HasPorts: true, SourcePort: 40000, DestinationPort: 53, Segments: 1, Name: "secret.tunnel.example.net",
	}
	answer := question
	answer.Direction, answer.Action, answer.Reason = verdict.Ingress, verdict.Drop, verdict.ReasonDNSAnswer
	answer.Source, answer.Destination, answer.SourcePort, answer.DestinationPort = question.Destination, question.Source, 53, 40000
	escape := passed
	escape.Name = "\x1b[31m.example.com"
	incoming := passed
	incoming.Direction, incoming.Source, incoming.Destination = verdict.Ingress, passed.Destination, passed.Source
	return []events.Event{passed, mismatch, nameless, question, answer, escape, incoming}
}

// fakeEvents gives some events and then an error; with none it waits until it
// is closed.
type fakeEvents struct {
	list   []events.Event
	end    error
	closed chan struct{}
}

func newFakeEvents(list []events.Event, end error) *fakeEvents {
	return &fakeEvents{list: list, end: end, closed: make(chan struct{})}
}

func (f *fakeEvents) Read() (events.Event, error) {
	if len(f.list) > 0 {
		e := f.list[0]
		f.list = f.list[1:]
		return e, nil
	}
	if f.end != nil {
		return events.Event{}, f.end
	}
	<-f.closed
	return events.Event{}, fmt.Errorf("read events: %w", os.ErrClosed)
}

func (f *fakeEvents) Close() error {
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

func withEvents(width int, end error) func(*app) {
	return func(a *app) {
		a.width = func() int { return width }
		a.kernel.OpenEvents = func(string) (eventReader, error) { return newFakeEvents(someEvents(), end), nil }
	}
}

func TestEventsText(t *testing.T) {
	r := run(t, withEvents(80, io.EOF), "events")
	r.expect(t, ExitOK)
	golden(t, "events.golden", r.stdout)
	if r.stderr != "egate: gate host is off\n" {
		t.Errorf("stderr %q", r.stderr)
	}
	if r := run(t, withEvents(0, io.EOF), "events"); strings.Contains(r.stdout, "VERDICT") {
		t.Error("a heading where no terminal is")
	}
}

func TestEventsTextOfNames(t *testing.T) {
	r := run(t, func(a *app) {
		a.kernel.OpenEvents = func(string) (eventReader, error) { return newFakeEvents(namedEvents(), io.EOF), nil }
	}, "events")
	r.expect(t, ExitOK)
	golden(t, "eventnames.golden", r.stdout)
}

func TestEventsFilters(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 6},
		{[]string{"--count", "2"}, 2},
		{[]string{"--rule", "no-web"}, 1},
		{[]string{"--rule", "default"}, 4},
		{[]string{"--direction", "ingress"}, 1},
		{[]string{"--verdict", "reject"}, 2},
		{[]string{"--verdict", "drop", "--direction", "egress", "--rule", "default"}, 2},
		{[]string{"--verdict", "drop", "--count", "1"}, 1},
		{[]string{"--rule", "nothing"}, 0},
	} {
		r := run(t, withEvents(0, io.EOF), append([]string{"events"}, c.args...)...)
		r.expect(t, ExitOK)
		if got := strings.Count(r.stdout, "\n"); got != c.want {
			t.Errorf("%q: %d lines, want %d", c.args, got, c.want)
		}
	}
}

func TestEventsJSON(t *testing.T) {
	r := run(t, withEvents(80, io.EOF), "events", "-o", "json", "--count", "1")
	r.expect(t, ExitOK)
	var e struct {
		Rule, Action string
		Port         uint16 `json:"destination_port"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	if e.Rule != "no-web" || e.Action != "reject" || e.Port != 443 {
		t.Errorf("%s", r.stdout)
	}
}

func TestEventsEndWithTheContext(t *testing.T) {
	var stdout, stderr bytes.Buffer
	a := fakeApp("", &stdout, &stderr)
	fake := newFakeEvents(nil, nil)
	a.kernel.OpenEvents = func(string) (eventReader, error) { return fake, nil }
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if code := a.run(ctx, []string{"events"}); code != ExitOK {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}

func TestEventsFail(t *testing.T) {
	run(t, withEvents(0, errors.New("read events: broken")), "events").expect(t, ExitRefused, "egate: read events: broken")
	run(t, func(a *app) {
		a.kernel.OpenEvents = func(string) (eventReader, error) { return nil, datapath.ErrBusy }
	}, "events").expect(t, ExitRefused, "egate: busy")
}

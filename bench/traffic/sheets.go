package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/prefixes"
	"egate/bench/result"
)

// Form is how much is measured.
type Form struct {
	Rounds       int
	Destinations int           // different ones, of a sample
	Rules        []int         // sizes of the sheets over rules
	Prefixes     []int         // sizes of the sheets over prefixes
	FlowPrefixes int           // of the largest policy that a flow goes through
	Stream       time.Duration // one sample of throughput
	Streams      int           // samples of throughput
	Switches     int           // of policies
	SwitchSizes  []int         // prefixes of the policies that are switched
	Connections  int           // of a sample of first connections
}

// The forms.
var (
	Quick = Form{
		Rounds: 3, Destinations: 1 << 16,
		Rules: []int{10, 1000, 4096}, Prefixes: []int{10, 100_000}, FlowPrefixes: 100_000,
		Stream: time.Second, Streams: 2, Switches: 10, SwitchSizes: []int{1000},
		Connections: 30,
	}
	Full = Form{
		Rounds: 11, Destinations: 1 << 16,
		Rules: []int{1, 10, 20, 100, 1000, 4096}, Prefixes: []int{10, 100, 1000, 10_000, 100_000, 1_000_000}, FlowPrefixes: 1_000_000,
		Stream: 2 * time.Second, Streams: 13, Switches: 30, SwitchSizes: []int{1000, 100_000},
		Connections: 100,
	}
)

// everybody is who the sheets of packets compare.
var everybody = []string{
	result.Nothing, result.Empty, result.ICMPDrop, result.Trie, result.NFTRules,
	result.NFTSet, result.IPTablesRules, result.IPSet, result.Egate,
}

// how is the note of all sheets of packets.
const how = "64-byte UDP payloads by sendmmsg over a veth pair whose peer drops them at its TC ingress; " +
	"processor time of the sending thread, pinned to one processor: median over chunks of 256 packets"

// Groups are the sheets of this package.
func Groups(l *contender.Lineup, form Form) []measure.Group {
	b := &bench{l, form}
	return []measure.Group{
		{IDs: []string{"send-rules-v4"}, Measure: b.rules(prefixes.IPv4)},
		{IDs: []string{"send-rules-v6"}, Measure: b.rules(prefixes.IPv6)},
		{IDs: []string{"send-outside-v4", "send-one-v4"}, Measure: b.outside(prefixes.IPv4)},
		{IDs: []string{"send-outside-v6", "send-one-v6"}, Measure: b.outside(prefixes.IPv6)},
		{IDs: []string{"send-inside-v4"}, Measure: b.inside(prefixes.IPv4)},
		{IDs: []string{"send-inside-v6"}, Measure: b.inside(prefixes.IPv6)},
		{IDs: []string{"flow-udp", "flow-tcp"}, Measure: b.flows},
		{IDs: []string{"throughput", "latency-p50", "latency-p99"}, Measure: b.tcp},
		{IDs: []string{"switch-gap"}, Measure: b.switching},
		{IDs: []string{"lookup-time", "lookup-rate", "connect-time", "connect-lost"}, Measure: b.lookingUp},
	}
}

type bench struct {
	lineup *contender.Lineup
	form   Form
}

type wanted = func(id string) bool

// closing gives a field up and adds what goes wrong with that to err.
func closing(f *contender.Field, err *error) { *err = errors.Join(*err, f.Close()) }

func (b *bench) rules(family prefixes.Family) func(context.Context, wanted) ([]result.Sheet, error) {
	return func(ctx context.Context, _ wanted) (sheets []result.Sheet, err error) {
		var tasks []*contender.Task
		for _, n := range b.form.Rules {
			t := contender.Rules(family, contender.Drop, n, b.form.Destinations)
			tasks = append(tasks, &t)
		}
		f, err := b.lineup.Field(ctx, tasks, everybody...)
		if err != nil {
			return nil, err
		}
		defer closing(f, &err)
		sheet := packetSheet(fmt.Sprintf("send-rules-v%d", family),
			fmt.Sprintf("%v packet that no rule of a drop list matches (address, protocol, port)", family), "rules", f)
		err = b.send(ctx, sheet, f, func(t *contender.Task) []netip.AddrPort { return t.Unlisted })
		return []result.Sheet{*sheet}, err
	}
}

func (b *bench) tasks(family prefixes.Family, action contender.Action) []*contender.Task {
	var tasks []*contender.Task
	for _, n := range b.form.Prefixes {
		t := contender.Prefixes(prefixes.New(family, n), action, b.form.Destinations)
		tasks = append(tasks, &t)
	}
	return tasks
}

func (b *bench) outside(family prefixes.Family) func(context.Context, wanted) ([]result.Sheet, error) {
	return func(ctx context.Context, want wanted) (sheets []result.Sheet, err error) {
		f, err := b.lineup.Field(ctx, b.tasks(family, contender.Drop), everybody...)
		if err != nil {
			return nil, err
		}
		defer closing(f, &err)
		for _, s := range []struct {
			id, title string
			to        func(*contender.Task) []netip.AddrPort
		}{
			{
				fmt.Sprintf("send-outside-v%d", family), fmt.Sprintf("%v packet to random destinations outside a blocklist", family),
				func(t *contender.Task) []netip.AddrPort { return t.Unlisted },
			},
			{
				fmt.Sprintf("send-one-v%d", family), fmt.Sprintf("%v packet to one destination outside a blocklist", family),
				func(t *contender.Task) []netip.AddrPort { return t.Unlisted[:1] },
			},
		} {
			if !want(s.id) {
				continue
			}
			sheet := packetSheet(s.id, s.title, "prefixes", f)
			if err := b.send(ctx, sheet, f, s.to); err != nil {
				return nil, err
			}
			sheets = append(sheets, *sheet)
		}
		return sheets, nil
	}
}

func (b *bench) inside(family prefixes.Family) func(context.Context, wanted) ([]result.Sheet, error) {
	return func(ctx context.Context, _ wanted) (sheets []result.Sheet, err error) {
		f, err := b.lineup.Field(ctx, b.tasks(family, contender.Allow), append(everybody[:len(everybody):len(everybody)], result.EgateReplies)...)
		if err != nil {
			return nil, err
		}
		defer closing(f, &err)
		sheet := packetSheet(fmt.Sprintf("send-inside-v%d", family),
			fmt.Sprintf("%v packet to random destinations inside an allowlist", family), "prefixes", f)
		err = b.send(ctx, sheet, f, func(t *contender.Task) []netip.AddrPort { return t.Listed })
		return []result.Sheet{*sheet}, err
	}
}

func packetSheet(id, title, size string, f *contender.Field) *result.Sheet {
	return &result.Sheet{
		ID: id, Title: title, Size: size, Unit: "ns", Baseline: result.Empty, Better: "lower",
		Notes: append([]string{how}, f.Notes...),
	}
}

// send fills a sheet with what sending a packet takes at each stand.
func (b *bench) send(ctx context.Context, sheet *result.Sheet, f *contender.Field, to func(*contender.Task) []netip.AddrPort) (err error) {
	trains := map[*contender.Task]*Train{}
	var cells []measure.Cell
	for _, s := range f.Stands {
		if trains[s.Task] == nil {
			trains[s.Task] = NewTrain(to(s.Task))
		}
		sender, err := NewSender(s.World, trains[s.Task])
		if err != nil {
			return err
		}
		s.World.KeepUntilClose(sender)
		if err := s.World.Sink(); err != nil {
			return err
		}
		cells = append(cells, measure.Cell{Contender: s.Contender, Size: s.Task.Size(), Sample: sender.Sample})
	}
	b.lineup.Progress("measure %s: %d samples a round, rounds: %d", sheet.ID, len(cells), b.form.Rounds)
	sheet.Points, err = measure.Interleave(ctx, cells, b.form.Rounds, sheet.Baseline)
	return err
}

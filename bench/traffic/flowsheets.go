package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"time"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/prefixes"
	"egate/bench/result"
	"egate/bench/world"
)

// roundTripTime is how long one sample of round trips lasts.
const roundTripTime = 60 * time.Millisecond

// flows measures packets of flows that are open, through ever larger policies.
func (b *bench) flows(ctx context.Context, want wanted) (sheets []result.Sheet, err error) {
	few := contender.Rules(prefixes.IPv4, contender.Drop, 20, 1024)
	many := contender.Rules(prefixes.IPv4, contender.Drop, 4096, 1024)
	list := contender.Prefixes(prefixes.New(prefixes.IPv4, b.form.FlowPrefixes), contender.Drop, 1024)
	f, err := b.lineup.Field(ctx, []*contender.Task{&few, &many, &list}, result.Nothing, result.Empty, result.Egate)
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	size := fmt.Sprintf("20 rules, 4,096 rules, %d prefixes", b.form.FlowPrefixes)
	// First the connection: what follows has the peer drop all.
	if want("flow-tcp") {
		sheet := packetSheet("flow-tcp", "Round trip over an established TCP connection", size, f)
		sheet.Notes[0] = roundTripNote
		pairs, err := pingPongs(f)
		if err != nil {
			return nil, err
		}
		if err := b.roundTrips(ctx, f, pairs, 0.5, sheet); err != nil {
			return nil, err
		}
		sheets = append(sheets, *sheet)
	}
	if want("flow-udp") {
		sheet := packetSheet("flow-udp", "Packet of a connected UDP socket", size, f)
		err := b.send(ctx, sheet, f, func(t *contender.Task) []netip.AddrPort { return t.Passing()[:1] })
		if err != nil {
			return nil, err
		}
		sheets = append(sheets, *sheet)
	}
	slices.Reverse(sheets)
	return sheets, nil
}

const roundTripNote = "one byte there and one back over one TCP connection, both ends on one processor; time on the wall"

// pingPongs makes a connection at each stand; they end with the worlds.
func pingPongs(f *contender.Field) ([]*PingPong, error) {
	pairs := make([]*PingPong, len(f.Stands))
	for i, s := range f.Stands {
		p, err := NewPingPong(s.World)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Contender, err)
		}
		s.World.KeepUntilClose(p)
		pairs[i] = p
	}
	return pairs, nil
}

// roundTrips fills a sheet with a quantile of round trips at each stand.
func (b *bench) roundTrips(ctx context.Context, f *contender.Field, pairs []*PingPong, quantile float64, sheet *result.Sheet) (err error) {
	var cells []measure.Cell
	for i, s := range f.Stands {
		cells = append(cells, measure.Cell{Contender: s.Contender, Size: s.Task.Size(), Sample: func() (float64, error) {
			ns, err := pairs[i].RoundTrips(ctx, roundTripTime)
			return measure.Quantile(ns, quantile), err
		}})
	}
	b.lineup.Progress("measure %s: %d samples a round, rounds: %d", sheet.ID, len(cells), b.form.Rounds)
	sheet.Points, err = measure.Interleave(ctx, cells, b.form.Rounds, sheet.Baseline)
	return err
}

// tcp measures throughput and latency through a policy of 20 rules.
func (b *bench) tcp(ctx context.Context, want wanted) (sheets []result.Sheet, err error) {
	task := contender.Rules(prefixes.IPv4, contender.Drop, 20, 1024)
	f, err := b.lineup.Field(ctx, []*contender.Task{&task}, everybody...)
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	if want("throughput") {
		sheet, err := b.throughput(ctx, f)
		if err != nil {
			return nil, err
		}
		if sheet != nil {
			sheets = append(sheets, *sheet)
		}
	}
	pairs, err := pingPongs(f)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct {
		id, title string
		quantile  float64
	}{
		{"latency-p50", "TCP request and answer, median", 0.5},
		{"latency-p99", "TCP request and answer, 99th percentile", 0.99},
	} {
		if !want(s.id) {
			continue
		}
		sheet := packetSheet(s.id, s.title, "rules", f)
		sheet.Notes[0] = roundTripNote
		if err := b.roundTrips(ctx, f, pairs, s.quantile, sheet); err != nil {
			return nil, err
		}
		sheets = append(sheets, *sheet)
	}
	return sheets, nil
}

// streamers are who throughput is compared between: a sample of it takes long.
var streamers = []string{result.Nothing, result.NFTRules, result.NFTSet, result.IPTablesRules, result.Egate}

// throughput is nil where iperf3 is not installed.
func (b *bench) throughput(ctx context.Context, f *contender.Field) (*result.Sheet, error) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		if b.lineup.Strict {
			return nil, fmt.Errorf("iperf3 is %w", contender.ErrMissing)
		}
		b.lineup.Progress("throughput left out: iperf3 is not installed")
		return nil, nil
	}
	sheet := &result.Sheet{
		ID: "throughput", Title: "TCP throughput (iperf3, one connection)", Size: "rules", Unit: "Mbit/s",
		Baseline: result.Nothing, Better: "higher",
		Notes: append([]string{"nothing and egate through the same pair of devices, with the gate taken away and put back; " +
			"the others through pairs of their own, which differ by some per cent by themselves"}, f.Notes...),
	}
	var cells []measure.Cell
	for _, s := range f.Stands {
		if !slices.Contains(streamers, s.Contender) || s.Contender == result.Nothing {
			continue
		}
		t, err := NewThroughput(ctx, s.World)
		if err != nil {
			return nil, err
		}
		s.World.KeepUntilClose(t)
		cells = append(cells, measure.Cell{Contender: s.Contender, Size: s.Task.Size(), Sample: func() (float64, error) {
			return t.Run(ctx, b.form.Stream)
		}})
		if s.Contender != result.Egate {
			continue
		}
		gate, ok := world.Kept[*contender.Gate](s.World)
		if !ok {
			return nil, errors.New("find the gate of egate: it has none")
		}
		cells = append(cells, measure.Cell{Contender: result.Nothing, Size: s.Task.Size(), Sample: func() (mbits float64, err error) {
			if _, err := s.World.Sender.Measure(gate.Off(ctx)); err != nil {
				return 0, err
			}
			if mbits, err = t.Run(ctx, b.form.Stream); err != nil {
				return 0, err
			}
			_, err = s.World.Sender.Measure(gate.Apply(ctx, gate.Policy))
			return mbits, err
		}})
	}
	b.lineup.Progress("measure throughput: %d samples a round, rounds: %d", len(cells), b.form.Streams)
	var err error
	sheet.Points, err = measure.Interleave(ctx, cells, b.form.Streams, sheet.Baseline)
	return sheet, err
}

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/result"
	"egate/bench/world"
)

// resolving is who the sheets of look-ups compare.
var resolving = []string{result.Nothing, result.Dnsmasq, result.DnsmasqNFTSet, result.Sniffer, result.Egate}

const (
	lookupNote = "A questions about 4,096 names in turn, two addresses each; client, forwarder and server on one processor, with " +
		"a server that does nothing but answer; dnsmasq without its cache, so that each question reaches the server"
	connectNote = "connect() to the address in the answer, right after it, each time of a new name; "
	snifferNote = result.Sniffer + ": an AF_PACKET socket that a Go program reads, which enters addresses into a set while " +
		"the application already has the answer; on whatever processor is free"
)

// lookingUp measures look-ups and what follows them.
func (b *bench) lookingUp(ctx context.Context, want wanted) (sheets []result.Sheet, err error) {
	task := contender.Names(listedDomain)
	f, err := b.lineup.Field(ctx, []*contender.Task{&task}, resolving...)
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	askers, err := b.askers(f)
	if err != nil {
		return nil, err
	}
	sheet := func(id, title, unit, better, note string) *result.Sheet {
		return &result.Sheet{
			ID: id, Title: title, Size: "domains", Unit: unit, Baseline: result.Nothing, Better: better,
			Notes: append([]string{note, snifferNote}, f.Notes...),
		}
	}
	for _, s := range []struct {
		sheet  *result.Sheet
		sample func(*asker) (float64, error)
	}{
		{sheet("lookup-time", "One DNS look-up after another", "ns", "lower", lookupNote), (*asker).eachTime},
		{sheet("lookup-rate", fmt.Sprintf("DNS look-ups, %d at once", atOnce), "look-ups/s", "higher", lookupNote), (*asker).rate},
	} {
		if !want(s.sheet.ID) {
			continue
		}
		var cells []measure.Cell
		for i, a := range askers {
			cells = append(cells, measure.Cell{Contender: f.Stands[i].Contender, Size: 1, Sample: func() (float64, error) { return s.sample(a) }})
		}
		b.lineup.Progress("measure %s: %d samples a round, rounds: %d", s.sheet.ID, len(cells), b.form.Rounds)
		if s.sheet.Points, err = measure.Interleave(ctx, cells, b.form.Rounds, s.sheet.Baseline); err != nil {
			return nil, err
		}
		sheets = append(sheets, *s.sheet)
	}
	if !want("connect-time") && !want("connect-lost") {
		return sheets, nil
	}
	times := sheet("connect-time", "First connection to a name, after its look-up", "ns", "lower", connectNote+"of those that lost nothing")
	lost := sheet("connect-lost", "First connections to a name that lost their first packet", "%", "lower",
		connectNote+fmt.Sprintf("lost if it takes longer than %v, for the packet is sent again after a second", firstTry))
	if err := b.connecting(ctx, f, askers, times, lost); err != nil {
		return nil, err
	}
	for _, s := range []*result.Sheet{times, lost} {
		if want(s.ID) {
			sheets = append(sheets, *s)
		}
	}
	return sheets, nil
}

// askers makes a server and an asker at each stand, which end with the worlds,
// and shows that names open what they must.
func (b *bench) askers(f *contender.Field) ([]*asker, error) {
	askers := make([]*asker, len(f.Stands))
	for i, s := range f.Stands {
		server, err := newNameServer(s.World)
		if err != nil {
			return nil, err
		}
		s.World.KeepUntilClose(server)
		if askers[i], err = newAsker(s.World, contender.Resolver(s.Contender)); err != nil {
			return nil, err
		}
		s.World.KeepUntilClose(askers[i])
		if p, ok := world.Kept[*contender.Process](s.World); ok {
			if err := pinProcess(p.PID()); err != nil {
				return nil, err
			}
		}
		if err := askers[i].check(b.lineup.Filters(s.Contender)); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Contender, err)
		}
	}
	return askers, nil
}

// check shows that a name opens its address if it is listed, and no other one
// does (else contender.ErrWrongDecision).
func (a *asker) check(filters bool) error {
	unlisted := *a
	unlisted.question = newQuestion(unlistedDomain)
	return a.world.Sender.Run(func() error {
		if err := a.ready(); err != nil {
			return err
		}
		other, err := unlisted.lookUp(1)
		if err != nil {
			return err
		}
		a.id = unlisted.id
		unasked := netip.AddrFrom4([4]byte{listedNetwork, 255, 255, 255})
		for _, c := range []struct {
			what string
			to   netip.Addr
		}{{"a name that is not listed", other}, {"a name that was not asked for", unasked}} {
			_, err := connect(c.to)
			if err != nil && !errors.Is(err, errLost) {
				return err
			}
			if passes := err == nil; passes == filters {
				return fmt.Errorf("%w: a connection to the address of %s passes: %t", contender.ErrWrongDecision, c.what, passes)
			}
		}
		listed, err := a.lookUp(1)
		if err != nil {
			return err
		}
		// Some need a moment.
		for begin := time.Now(); ; {
			_, err := connect(listed)
			if err == nil || !errors.Is(err, errLost) {
				return err
			}
			if time.Since(begin) > patience {
				return fmt.Errorf("%w: no connection to the address of a listed name passes", contender.ErrWrongDecision)
			}
		}
	})
}

// ready waits until somebody answers: a process may just have been started.
func (a *asker) ready() error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, err := a.lookUp(0)
		if err == nil || !errors.Is(err, unix.ECONNREFUSED) || time.Since(begin) > patience {
			return err
		}
	}
}

// connecting fills the sheets of first connections.
func (b *bench) connecting(ctx context.Context, f *contender.Field, askers []*asker, times, lost *result.Sheet) (err error) {
	var cells []measure.Cell
	shares := make([][]float64, len(askers))
	for i, a := range askers {
		cells = append(cells, measure.Cell{Contender: f.Stands[i].Contender, Size: 1, Sample: func() (float64, error) {
			ns, lost, err := a.firstConnections(b.form.Connections)
			shares[i] = append(shares[i], 100*float64(lost)/float64(b.form.Connections))
			return ns, err
		}})
	}
	b.lineup.Progress("measure %s: %d samples a round, rounds: %d", times.ID, len(cells), b.form.Rounds)
	if times.Points, err = measure.Interleave(ctx, cells, b.form.Rounds, times.Baseline); err != nil {
		return err
	}
	lost.Baseline = ""
	for i, s := range f.Stands {
		lost.Points = append(lost.Points, measure.Point(s.Contender, 1, shares[i][1:], nil)) // the first round is not kept
	}
	return nil
}

package programs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"

	"egate/bench/measure"
	"egate/bench/result"
	"egate/bench/world"
)

// nameNoTrack is egate with a policy that remembers no connections.
const nameNoTrack = "egate, replies: false"

// checked is how many packets each contender must decide right before it is
// measured.
const checked = 1024

// Form is how much is measured.
type Form struct {
	Name         string
	Rounds       int
	Runs         int   // of a sample
	Targets      int   // different random destinations, a power of two
	Prefixes     []int // sizes of the sheets over prefixes
	Destinations []int // sizes of the sheets over destinations, powers of two
	Rules        []int // sizes of the sheets over rules
	Flows        []int // sizes of the sheet over flows, powers of two
	Names        []int // sizes of the sheets over names in the policy
	Learned      []int // sizes of the sheets over learned addresses, powers of two
	Lookups      int   // of a sample
}

// The forms. Random destinations are as many as it takes to meet the largest
// tables everywhere: ten times as many cost the same, while the tables that
// fewer than some ten thousand of them need stay in the caches.
var (
	Quick = Form{
		Name: "quick", Rounds: 5, Runs: 1 << 16, Targets: 1 << 16,
		Prefixes: []int{10, 1000, 100_000}, Destinations: []int{1, 1024, 65536},
		Rules: []int{10, 1000, 4096}, Flows: []int{1, 1024, 65536},
		Names: []int{1, 100_000}, Learned: []int{1, 16384}, Lookups: 1 << 13,
	}
	Full = Form{
		Name: "full", Rounds: 15, Runs: 1 << 18, Targets: 1 << 17,
		Prefixes: []int{10, 100, 1000, 10_000, 100_000, 1_000_000}, Destinations: []int{1, 64, 1024, 4096, 16384, 131072},
		Rules: []int{1, 10, 20, 100, 1000, 4096}, Flows: []int{1, 64, 1024, 16384, 65536, 262144},
		Names: []int{1, 100, 10_000, 100_000}, Learned: []int{1, 64, 1024, 16384}, Lookups: 1 << 15,
	}
)

// Sheet is one that this package can measure.
type Sheet struct {
	ID    string
	Title string
	Size  string
	build func(*bench, Form) error
}

// Measure makes the sheet. It needs root and, for the largest size, about a
// gigabyte of memory. It takes from seconds to half a minute, and ends early
// with the context's error.
func (s Sheet) Measure(ctx context.Context, form Form) (*result.Sheet, error) {
	sheet := &result.Sheet{
		ID: s.ID, Title: s.Title, Size: s.Size, Unit: "ns", Baseline: result.Empty, Better: "lower",
	}
	namespace, err := world.NewNamespace()
	if err != nil {
		return nil, err
	}
	err = namespace.Run(func() error {
		b := &bench{ctx: ctx, runs: form.Runs}
		err := b.open()
		if err == nil {
			err = s.build(b, form)
		}
		if err == nil {
			runs := fmt.Sprintf("BPF_PROG_TEST_RUN, %d runs a sample, %d rounds", b.runs, form.Rounds)
			sheet.Notes = append([]string{runs}, b.notes...)
			sheet.Points, err = measure.Interleave(ctx, b.cells, form.Rounds, result.Empty)
		}
		for _, check := range b.after {
			if err == nil {
				err = check()
			}
		}
		return errors.Join(err, b.Close())
	})
	if err := errors.Join(err, namespace.Close()); err != nil {
		return nil, fmt.Errorf("measure %s: %w", s.ID, err)
	}
	return sheet, nil
}

// bench is what stands while a sheet is measured.
type bench struct {
	closers
	ctx   context.Context
	gates *gates
	runs  int
	cells []measure.Cell
	after []func() error // shows, when all is measured, that it went as it should
	notes []string
}

func (b *bench) open() (err error) {
	if b.gates, err = newGates(); err != nil {
		return err
	}
	b.keep(b.gates)
	return nil
}

// field makes the targets of one size.
func (b *bench) field(targets []target) (*field, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := newField(targets)
	if err != nil {
		return nil, err
	}
	b.keep(f)
	return f, nil
}

// contend adds a cell for a program, after it has shown that it decides right.
func (b *bench) contend(name string, size int, f *field, p *ebpf.Program, filters bool) error {
	r, err := newRunner(p, f)
	if err != nil {
		return err
	}
	b.keep(r)
	if err := r.check(checked, filters); err != nil {
		return fmt.Errorf("%s of size %d: %w", name, size, err)
	}
	b.cells = append(b.cells, measure.Cell{Contender: name, Size: size, Sample: func() (float64, error) { return r.price(b.runs) }})
	return nil
}

// plain adds the two programs that know no list.
func (b *bench) plain(size int, f *field) error {
	for _, c := range []struct {
		name string
		load func() (*ebpf.Program, io.Closer, error)
	}{{result.Empty, LoadEmpty}, {result.ICMPDrop, LoadICMPDrop}} {
		p, closer, err := c.load()
		if err != nil {
			return err
		}
		b.keep(closer)
		if err := b.contend(c.name, size, f, p, false); err != nil {
			return err
		}
	}
	return nil
}

// apply puts a policy in force and gives its dispatcher for what leaves.
func (b *bench) apply(text, list string) (*ebpf.Program, error) {
	g, err := b.gate(text, list)
	if err != nil {
		return nil, err
	}
	return g.egress, nil
}

// gate puts a policy in force.
func (b *bench) gate(text, list string) (*gate, error) {
	if err := b.ctx.Err(); err != nil {
		return nil, err
	}
	g, err := b.gates.apply(text, list)
	if err != nil {
		return nil, err
	}
	b.keep(g)
	return g, nil
}

// note adds a line to what the sheet says of itself.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

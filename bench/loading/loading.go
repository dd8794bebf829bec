// Package loading stands beside the stages: it times how a policy is put in
// force and changed, and weighs what it takes of memory.
package loading

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/prefixes"
	"egate/bench/result"
	"egate/bench/world"
)

// Form is how much is measured.
type Form struct {
	Sizes  []int // prefixes
	Names  []int // sizes of the sheets over names
	Rounds int   // at least; smaller sizes, which take less, get more
}

// The forms.
var (
	Quick = Form{Sizes: []int{1000, 100_000}, Names: []int{1, 100_000}, Rounds: 1}
	Full  = Form{Sizes: []int{1000, 10_000, 100_000, 1_000_000}, Names: []int{1, 100, 10_000, 100_000}, Rounds: 3}
)

// rounds of a size.
func (f Form) rounds(size int) int {
	if size <= 10_000 {
		return 3 * f.Rounds
	}
	return f.Rounds
}

// patience is how long a loading and a change may take and still be repeated;
// what takes longer is measured once.
const patience = 15 * time.Second

// Groups are the sheets of this package, by family.
func Groups(l *contender.Lineup, form Form) []measure.Group {
	var groups []measure.Group
	for _, family := range []prefixes.Family{prefixes.IPv4, prefixes.IPv6} {
		b := &bench{lineup: l, form: form, family: family}
		groups = append(groups, measure.Group{IDs: b.ids(), Measure: b.measure})
	}
	b := &bench{lineup: l, form: form}
	return append(groups, measure.Group{IDs: []string{"names-load", "names-memory"}, Measure: b.names})
}

type bench struct {
	lineup *contender.Lineup
	form   Form
	family prefixes.Family
}

// The figures that one loading gives; each is a sheet.
const (
	loadTime = iota
	changeTime
	processMemory
	kernelMemory
	figures
)

var sheets = [figures]struct{ id, title, unit, note string }{
	loadTime: {"load", "Time to put a list in force", "ms",
		"from the start of the process to its end: egate apply, nft -f, ipset restore, of a text file"},
	changeTime: {"change", "Time to apply a list again, one element changed", "ms",
		"the whole text is given again, as what generates lists does; ipset fills a second set and swaps them"},
	processMemory: {"process-memory", "Peak memory of the loading process", "MB",
		"largest resident set of the process that loads"},
	kernelMemory: {"kernel-memory", "Kernel memory of a list in force", "MB",
		"egate: memory of its maps by their own account; ipset: \"size in memory\"; nft: growth of slab and vmalloc " +
			"memory of the whole machine, so of large lists only, and not exact"},
}

func (b *bench) id(figure int) string { return fmt.Sprintf("%s-v%d", sheets[figure].id, b.family) }

func (b *bench) ids() []string {
	var ids []string
	for figure := range sheets {
		ids = append(ids, b.id(figure))
	}
	return ids
}

// measure makes all sheets at once: one loading gives a figure for each.
func (b *bench) measure(ctx context.Context, wanted func(string) bool) ([]result.Sheet, error) {
	present, notes, err := b.lineup.Present(result.NFTSet, result.IPSet, result.Egate)
	if err != nil {
		return nil, err
	}
	var out [figures]result.Sheet
	for i, s := range sheets {
		out[i] = result.Sheet{
			ID: b.id(i), Title: fmt.Sprintf("%s, %v", s.title, b.family), Size: "prefixes", Unit: s.unit, Better: "lower",
			Notes: append([]string{s.note, fmt.Sprintf("measured once: what takes longer than %v for a loading and a change", patience)}, notes...),
		}
	}
	for _, n := range b.form.Sizes {
		samples, err := b.size(ctx, present, n)
		if err != nil {
			return nil, err
		}
		for _, c := range present {
			for i := range out {
				if s := samples[c.Name][i]; len(s) > 0 {
					out[i].Points = append(out[i].Points, measure.Point(c.Name, n, s, nil))
				}
			}
		}
	}
	var kept []result.Sheet
	for _, s := range out {
		if wanted(s.ID) {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

// size loads a list of n prefixes in rounds, in each by every contender, in
// random order.
func (b *bench) size(ctx context.Context, present []contender.Contender, n int) (map[string]*[figures][]float64, error) {
	task := contender.Prefixes(prefixes.New(b.family, n), contender.Drop, 512)
	changed := task
	changed.Prefixes = &prefixes.List{Family: b.family, Prefixes: append([]netip.Prefix{spare(b.family)}, task.Prefixes.Prefixes[1:]...)}
	samples := map[string]*[figures][]float64{}
	slow := map[string]bool{}
	for _, c := range present {
		samples[c.Name] = &[figures][]float64{}
	}
	for round := range b.form.rounds(n) {
		b.lineup.Progress("load %d prefixes of %v, round %d", n, b.family, round+1)
		for _, i := range rand.Perm(len(present)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c := present[i]
			if slow[c.Name] {
				continue
			}
			begin := time.Now()
			if err := load(ctx, &c, &task, &changed, samples[c.Name]); err != nil {
				return nil, fmt.Errorf("load %d into %s: %w", n, c.Name, err)
			}
			slow[c.Name] = time.Since(begin) > patience
		}
	}
	return samples, nil
}

// load puts a task in force in a new world, weighs it, changes it, and adds the
// figures.
func load(ctx context.Context, c *contender.Contender, task, changed *contender.Task, out *[figures][]float64) (err error) {
	w, err := world.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	m, err := newMethod(ctx, c, w, task)
	if err != nil {
		return err
	}
	first, err := m.write("first", task)
	if err != nil {
		return err
	}
	second, err := m.write("second", changed)
	if err != nil {
		return err
	}
	before, err := m.weigh(ctx)
	if err != nil {
		return err
	}
	loading, err := w.Sender.Measure(m.command(ctx, first))
	if err != nil {
		return err
	}
	after, err := m.weigh(ctx)
	if err != nil {
		return err
	}
	if err := c.Check(w, task); err != nil {
		return err
	}
	changing, err := w.Sender.Measure(m.command(ctx, second))
	if err != nil {
		return err
	}
	add := func(figure int, v float64) { out[figure] = append(out[figure], v) }
	add(loadTime, milliseconds(loading.Elapsed))
	add(changeTime, milliseconds(changing.Elapsed))
	add(processMemory, loading.PeakMB)
	if task.Size() >= m.weighable {
		add(kernelMemory, after-before)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

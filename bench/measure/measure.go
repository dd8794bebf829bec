// Package measure stands beside the stages: it decides in which order the
// benchmarks take their samples, and what becomes of them.
package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"egate/bench/result"
)

// ErrNoBaseline says that a sheet's baseline has no cell of some size.
var ErrNoBaseline = errors.New("no cell of the baseline")

// Cell is one contender at one size. Sample takes one measurement, in the
// unit of the sheet; it must not last long, because all other cells of the
// sheet wait for it.
type Cell struct {
	Contender string
	Size      int
	Sample    func() (float64, error)
}

// Interleave samples every cell once a round, each round in a fresh random
// order, so that what changes on the machine in the meantime (clock speed,
// neighbours, memory) hits all cells alike. One more round goes before and is
// not kept: it fills caches. The points come in the order of the cells.
//
// If baseline is not empty, each point says what was added over the baseline's
// sample of the same size in the same round. The baseline must then have a
// cell of every size (else ErrNoBaseline); one that does not depend on size
// is given once for each size. It ends early with the context's error.
func Interleave(ctx context.Context, cells []Cell, rounds int, baseline string) ([]result.Point, error) {
	if rounds < 1 {
		return nil, fmt.Errorf("interleave: %d rounds, want 1 or more", rounds)
	}
	bases, err := baselines(cells, baseline)
	if err != nil {
		return nil, err
	}
	samples := make([][]float64, len(cells))
	order := make([]int, len(cells))
	for i := range order {
		order[i] = i
	}
	for round := range rounds + 1 {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := cells[i].Sample()
			if err != nil {
				return nil, fmt.Errorf("sample %s at %d: %w", cells[i].Contender, cells[i].Size, err)
			}
			if round > 0 {
				samples[i] = append(samples[i], v)
			}
		}
	}
	points := make([]result.Point, len(cells))
	for i, c := range cells {
		points[i] = Point(c.Contender, c.Size, samples[i], nil)
		if bases != nil {
			points[i] = Point(c.Contender, c.Size, samples[i], samples[bases[i]])
		}
	}
	return points, nil
}

// baselines gives for each cell the index of its baseline's cell.
func baselines(cells []Cell, baseline string) ([]int, error) {
	if baseline == "" {
		return nil, nil
	}
	bases := make([]int, len(cells))
	for i, c := range cells {
		bases[i] = slices.IndexFunc(cells, func(b Cell) bool { return b.Contender == baseline && b.Size == c.Size })
		if bases[i] < 0 {
			return nil, fmt.Errorf("%w %s of size %d", ErrNoBaseline, baseline, c.Size)
		}
	}
	return bases, nil
}

// Point makes the point of one contender from its samples. Base holds the
// baseline's samples of the same rounds, or nil.
func Point(contender string, size int, samples, base []float64) result.Point {
	p := result.Point{Contender: contender, Size: size, Value: Spread(samples), Samples: samples}
	if base != nil {
		added := make([]float64, len(samples))
		for i := range samples {
			added[i] = samples[i] - base[i]
		}
		spread := Spread(added)
		p.Added = &spread
	}
	return p
}

// Spread is the median of the samples with the quartiles around it, all zero
// for no samples.
func Spread(samples []float64) result.Spread {
	sorted := slices.Clone(samples)
	slices.Sort(sorted)
	return result.Spread{
		Median: quantile(sorted, 0.5), Low: quantile(sorted, 0.25), High: quantile(sorted, 0.75),
	}
}

// Quantile is the value below which the share q of the samples lies, 0 for no
// samples. Between two samples it is interpolated.
func Quantile(samples []float64, q float64) float64 {
	sorted := slices.Clone(samples)
	slices.Sort(sorted)
	return quantile(sorted, q)
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

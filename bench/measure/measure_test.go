package measure

import (
	"context"
	"errors"
	"slices"
	"testing"

	"egate/bench/result"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []float64
		want    result.Spread
	}{
		{"none", nil, result.Spread{}},
		{"one", []float64{7}, result.Spread{Median: 7, Low: 7, High: 7}},
		{"odd, unsorted", []float64{5, 1, 4, 2, 3}, result.Spread{Median: 3, Low: 2, High: 4}},
		{"even, interpolated", []float64{4, 1, 3, 2}, result.Spread{Median: 2.5, Low: 1.75, High: 3.25}},
	} {
		if got := Spread(c.samples); got != c.want {
			t.Errorf("%s: Spread(%v) = %v, want %v", c.name, c.samples, got, c.want)
		}
	}
}

// TestInterleaveCancelsDrift has a machine that gets slower with every sample:
// what a contender adds must still come out, because it is counted against
// the baseline of the same round.
func TestInterleaveCancelsDrift(t *testing.T) {
	var rounds []map[string]int
	var order []string
	clock := 0.0
	cell := func(name string, cost float64) Cell {
		return Cell{name, 1, func() (float64, error) {
			if len(order)%3 == 0 {
				rounds = append(rounds, map[string]int{})
				clock += 1000
			}
			order = append(order, name)
			rounds[len(rounds)-1][name]++
			return clock + cost, nil
		}}
	}
	const n = 40
	points, err := Interleave(context.Background(),
		[]Cell{cell("base", 0), cell("a", 10), cell("b", 20)}, n, "base")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{0, 10, 20} {
		if got := *points[i].Added; got != (result.Spread{Median: want, Low: want, High: want}) {
			t.Errorf("%s added %v, want %v", points[i].Contender, got, want)
		}
		if len(points[i].Samples) != n {
			t.Errorf("%s has %d samples, want %d: the first round is not kept", points[i].Contender, len(points[i].Samples), n)
		}
	}
	for i, r := range rounds {
		if r["base"] != 1 || r["a"] != 1 || r["b"] != 1 {
			t.Fatalf("round %d sampled %v, want each once", i, r)
		}
	}
	firsts := map[string]bool{}
	for chunk := range slices.Chunk(order, 3) {
		firsts[chunk[0]] = true
	}
	if len(firsts) != 3 {
		t.Errorf("in %d rounds only %v came first: the order is not random", len(rounds), firsts)
	}
}

func TestInterleaveEnds(t *testing.T) {
	broken := errors.New("broken")
	one := func() (float64, error) { return 1, nil }
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name  string
		ctx   context.Context
		cells []Cell
		base  string
		want  error
	}{
		{"when a sample fails", context.Background(), []Cell{{"a", 1, func() (float64, error) { return 0, broken }}}, "", broken},
		{"without a baseline of that size", context.Background(), []Cell{{"base", 1, one}, {"a", 2, one}}, "base", ErrNoBaseline},
		{"when cancelled", cancelled, []Cell{{"a", 1, one}}, "", context.Canceled},
	} {
		if _, err := Interleave(c.ctx, c.cells, 2, c.base); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

package loading

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/programs"
	"egate/bench/result"
	"egate/bench/world"
)

// nameless is a policy of one rule too, which uses no names.
const nameless = "egate, no names"

// nameParts are what policies with names have of maps, besides small ones: their
// list, and what they remember.
var nameParts = []struct {
	name string
	maps []string
}{
	{"names of the policy", []string{"domains"}},
	{"learned addresses", []string{"learned"}},
	{"learned names", []string{"names"}},
	{"connections", []string{"bindings"}},
	{"questions and streams", []string{"questions", "streams", "stream_rooms"}},
}

// names weighs policies with names: the time until they are in force, and the
// kernel's memory, whole and of the maps that names take.
func (b *bench) names(ctx context.Context, wanted func(string) bool) ([]result.Sheet, error) {
	present, _, err := b.lineup.Present(result.Egate)
	if err != nil {
		return nil, err
	}
	times := result.Sheet{
		ID: "names-load", Title: "Time to put a list of names in force", Size: "names", Unit: "ms", Better: "lower",
		Notes: []string{"from the start of egate apply to its end, of a text file, half of the names wildcards; where no policy was in force before"},
	}
	memory := result.Sheet{
		ID: "names-memory", Title: "Kernel memory of a policy with names in force", Size: "names", Unit: "MB", Better: "lower",
		Notes: []string{"memory of maps by their own account: of all that egate has, and of those for names; what is remembered takes all its memory at once"},
	}
	for _, n := range b.form.Names {
		took, mb := map[string][]float64{}, map[string][]float64{}
		for round := range b.form.Rounds {
			b.lineup.Progress("load %d names, round %d", n, round+1)
			for _, name := range []string{nameless, result.Egate} {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				w, err := weighNames(ctx, present[0].Gate, name, n)
				if err != nil {
					return nil, fmt.Errorf("load %d names into %s: %w", n, name, err)
				}
				took[name] = append(took[name], w.took)
				for of, v := range w.mb {
					mb[of] = append(mb[of], v)
				}
			}
		}
		for _, name := range []string{nameless, result.Egate} {
			times.Points = append(times.Points, measure.Point(name, n, took[name], nil))
		}
		for _, of := range []string{nameless, result.Egate} {
			memory.Points = append(memory.Points, measure.Point(of, n, mb[of], nil))
		}
		for _, of := range nameParts {
			memory.Points = append(memory.Points, measure.Point(of.name, n, mb[of.name], nil))
		}
	}
	var sheets []result.Sheet
	for _, s := range []result.Sheet{times, memory} {
		if wanted(s.ID) {
			sheets = append(sheets, s)
		}
	}
	return sheets, nil
}

// nameWeight is what one loading gives.
type nameWeight struct {
	took float64            // ms
	mb   map[string]float64 // by what it is of
}

// weighNames puts a policy in force in a new world.
func weighNames(ctx context.Context, gate func(*world.World) (*contender.Gate, error), name string, n int) (out nameWeight, err error) {
	w, err := world.New()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	g, err := gate(w)
	if err != nil {
		return out, err
	}
	policy := fmt.Sprintf("version: 1\ninterfaces: [%s]\negress:\n  default: drop\n  replies: false\n"+
		"  rules: [{action: allow, to: {addresses: [20.0.0.0/8]}}]\n", world.Link)
	list := filepath.Join(g.Dir, "names.txt")
	if name == result.Egate {
		policy = programs.NamePolicy(world.Link, world.Peer4.Addr(), list, "")
	}
	path := filepath.Join(g.Dir, "policy.yaml")
	err = errors.Join(os.WriteFile(path, []byte(policy), 0o600),
		os.WriteFile(list, []byte(programs.NameList("*.cdn.example.com", n)), 0o600))
	if err != nil {
		return out, fmt.Errorf("write policy: %w", err)
	}
	usage, err := w.Sender.Measure(g.Apply(ctx, path))
	if err != nil {
		return out, err
	}
	maps, err := g.EachMapMB()
	if err != nil {
		return out, err
	}
	out = nameWeight{took: milliseconds(usage.Elapsed), mb: map[string]float64{}}
	for _, mb := range maps {
		out.mb[name] += mb
	}
	if name != result.Egate {
		return out, nil
	}
	for _, of := range nameParts {
		for _, m := range of.maps {
			mb, ok := maps[m]
			if !ok {
				return out, fmt.Errorf("weigh maps: there is none called %s", m)
			}
			out.mb[of.name] += mb
		}
	}
	return out, nil
}

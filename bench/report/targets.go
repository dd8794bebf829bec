package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"egate/bench/result"
	"egate/internal/cli/table"
)

// Target is one of the figures that egate is to reach, and what a run says of
// it. It is reached if there is a check and all of them say so; without a check
// the run did not measure it.
type Target struct {
	What   string  `json:"what"`
	Reach  string  `json:"reach"`
	Checks []Check `json:"checks"`
}

// Check is what one sheet says of a target.
type Check struct {
	Sheet   string `json:"sheet"`
	Found   string `json:"found"`
	Reached bool   `json:"reached"`
}

// Reached tells whether it was measured, and everything measured reached it.
func (t *Target) Reached() bool {
	return len(t.Checks) > 0 && !slices.ContainsFunc(t.Checks, func(c Check) bool { return !c.Reached })
}

// Sheets that speak of one target.
var (
	uncached = []string{"programs-rules-random", "send-rules-v4", "send-rules-v6"}
	scatter  = []string{"programs-v4-mixed", "programs-v6-mixed"}
	sets     = []string{"send-outside-v4", "send-outside-v6", "send-inside-v4", "send-inside-v6"}
	inARow   = []string{"send-rules-v4", "send-rules-v6"}
	loads    = []string{"load-v4", "load-v6"}
)

const million = 1_000_000

// Targets are the figures that egate is to reach.
func Targets(run *result.Run) []Target {
	f := finder{}
	for i := range run.Sheets {
		f[run.Sheets[i].ID] = newView(&run.Sheets[i])
	}
	return []Target{
		{"an established flow, whatever the policy", "adds at most 60 ns to an empty program", f.addsAtMost(60, nil, "flow-udp", "names-flow")},
		{"a packet that is not cached, 20 rules", "adds at most 120 ns", f.addsAtMost(120, at(20), uncached...)},
		{"4,096 rules against 10 rules", "adds at most 1.3 times as much",
			f.growsAtMost(1.3, 10, 4096, append([]string{"programs-rules-hot"}, uncached...)...)},
		{"1,000,000 prefixes, random destinations", "adds at most 250 ns", f.addsAtMost(250, at(million), append(scatter, sets...)...)},
		{"1,000,000 prefixes against the kernel's LPM trie", "adds at least 5 times less",
			f.beats(5, million, result.Trie, append(scatter, sets[:2]...)...)},
		{"1,000 rules against nftables rules in a row", "adds at least 50 times less", f.beats(50, 1000, result.NFTRules, inARow...)},
		{"10,000 prefixes against nftables' own set", "adds at least 3 times less", f.beats(3, 10_000, result.NFTSet, sets...)},
		{"100,000 prefixes against ipset", "adds at least 3 times less", f.beats(3, 100_000, result.IPSet, sets...)},
		{"TCP throughput, 20 rules", "at least 98 % of no filter", f.keeps(0.98, 20, result.Nothing, "throughput")},
		{"load of 1,000,000 prefixes", "at most 1.5 s", f.valueAtMost(1500, at(million), loads...)},
		{"load of 1,000,000 prefixes against ipset", "faster", f.beats(1, million, result.IPSet, loads...)},
		{"load of 1,000,000 prefixes against nftables", "faster", f.beats(1, million, result.NFTSet, loads...)},
		{"memory of the process that loads 1,000,000 prefixes", "at most 400 MB",
			f.valueAtMost(400, at(million), "process-memory-v4", "process-memory-v6")},
		{"memory of the kernel for 1,000,000 IPv4 prefixes", "at most 48 MB", f.valueAtMost(48, at(million), "kernel-memory-v4")},
		{"a DNS answer about a name that is known", "adds at most 2,000 ns", f.answersAddAtMost(2000, "names-lookup-known")},
		{"a DNS answer about a new name", "adds at most 2,000 ns", f.answersAddAtMost(2000, "names-lookup-fresh")},
		{"first connections to a name", "none loses its first packet", f.valueAtMost(0, nil, "connect-lost")},
		{"longest gap that a sender sees at a switch", "at most 1 ms", f.valueAtMost(1, nil, "switch-gap")},
	}
}

// finder is the sheets by their IDs.
type finder map[string]*view

// at is one size; nil stands for every size that was measured.
func at(size int) []int { return []int{size} }

// sizesOf are those at which egate was measured, of those that are asked for.
func (v *view) sizesOf(asked []int) []int {
	var out []int
	for _, size := range v.sizes {
		if v.points[key{egate, size}] != nil && (asked == nil || slices.Contains(asked, size)) {
			out = append(out, size)
		}
	}
	return out
}

// addsOf is what a contender adds to the baseline, as measured.
func (v *view) addsOf(contender string, size int) (float64, bool) {
	p := v.points[key{contender, size}]
	if p == nil || p.Added == nil {
		return 0, false
	}
	return p.Added.Median, true
}

// costOf is what a contender adds, or its value in a sheet without a baseline.
func (v *view) costOf(contender string, size int) (float64, bool) {
	p := v.points[key{contender, size}]
	if p == nil || v.sheet.Baseline != "" {
		return v.addsOf(contender, size)
	}
	return p.Value.Median, true
}

func (v *view) check(reached bool, format string, args ...any) Check {
	return Check{v.sheet.ID, fmt.Sprintf(format, args...), reached}
}

func (v *view) quantity(value float64) string { return number(value) + " " + v.sheet.Unit }

// ofSize names a size where a sheet has several.
func (v *view) ofSize(size int) string {
	if len(v.sizes) < 2 {
		return ""
	}
	return " at " + count(float64(size))
}

func (f finder) addsAtMost(most float64, sizes []int, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		for _, size := range v.sizesOf(sizes) {
			if added, ok := v.addsOf(egate, size); ok {
				checks = append(checks, v.check(added <= most, "%s%s", v.quantity(added), v.ofSize(size)))
			}
		}
	}
	return checks
}

// answersAddAtMost looks at the contenders that are kinds of answers, each where
// it adds most.
func (f finder) answersAddAtMost(most float64, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		for _, kind := range v.contenders {
			if !strings.HasPrefix(kind, "answer") {
				continue
			}
			worst, at := math.Inf(-1), 0
			for _, size := range v.sizes {
				if added, ok := v.addsOf(kind, size); ok && added > worst {
					worst, at = added, size
				}
			}
			if isFinite(worst) {
				checks = append(checks, v.check(worst <= most, "%s, %s%s", v.quantity(worst), kind, v.ofSize(at)))
			}
		}
	}
	return checks
}

func (f finder) valueAtMost(most float64, sizes []int, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		for _, size := range v.sizesOf(sizes) {
			value := v.points[key{egate, size}].Value.Median
			checks = append(checks, v.check(value <= most, "%s%s", v.quantity(value), v.ofSize(size)))
		}
	}
	return checks
}

// growsAtMost compares two sizes. What adds nothing at the smaller one has no
// ratio and says nothing.
func (f finder) growsAtMost(most float64, from, to int, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		few, okFew := v.addsOf(egate, from)
		many, okMany := v.addsOf(egate, to)
		if okFew && okMany && few > 0 {
			checks = append(checks, v.check(many <= most*few, "%.2f times, %s and %s", many/few, v.quantity(few), v.quantity(many)))
		}
	}
	return checks
}

// beats tells whether a contender costs that many times what egate does.
func (f finder) beats(least float64, size int, contender string, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		theirs, okTheirs := v.costOf(contender, size)
		ours, okOurs := v.costOf(egate, size)
		if !okTheirs || !okOurs {
			continue
		}
		found := fmt.Sprintf("%s against %s", v.quantity(ours), v.quantity(theirs))
		if ours > 0 {
			found = fmt.Sprintf("%s times, %s", number(theirs/ours), found)
		}
		checks = append(checks, v.check(theirs > 0 && theirs >= least*ours, "%s", found))
	}
	return checks
}

// keeps tells whether egate leaves that share of what another one reaches.
func (f finder) keeps(least float64, size int, contender string, ids ...string) (checks []Check) {
	for _, v := range f.of(ids) {
		theirs, ours := v.points[key{contender, size}], v.points[key{egate, size}]
		if theirs != nil && ours != nil && theirs.Value.Median > 0 {
			share := ours.Value.Median / theirs.Value.Median
			checks = append(checks, v.check(share >= least, "%.1f %%, %s of %s", 100*share,
				v.quantity(ours.Value.Median), v.quantity(theirs.Value.Median)))
		}
	}
	return checks
}

func (f finder) of(ids []string) (found []*view) {
	for _, id := range ids {
		if v := f[id]; v != nil {
			found = append(found, v)
		}
	}
	return found
}

func writeTargets(w io.Writer, targets []Target) error {
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	words := map[bool]string{true: "reached", false: "MISSED"}
	t := table.New(table.Column{Head: "figure"}, table.Column{Head: "to reach, and what was found"}, table.Column{})
	for i := range targets {
		target := &targets[i]
		word := words[target.Reached()]
		if len(target.Checks) == 0 {
			word = "not measured"
		}
		t.Add(word, target.What+": "+target.Reach)
		for _, c := range target.Checks {
			t.Add("", "  "+c.Sheet+": "+c.Found, map[bool]string{true: "", false: "missed"}[c.Reached])
		}
	}
	return t.Write(w, 0)
}

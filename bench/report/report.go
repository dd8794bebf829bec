// Package report stands beside the stages: it shows what the benchmarks found,
// as tables, as JSON, as plots, and beside the figures that egate is to reach.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"egate/bench/result"
	"egate/internal/cli/table"
)

// egate is the contender that the others are compared with.
const egate = result.Egate

// JSON writes a run such that ReadJSON reads the same.
func JSON(w io.Writer, run *result.Run) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(run); err != nil {
		return fmt.Errorf("write run: %w", err)
	}
	return nil
}

// ReadJSON reads what JSON wrote.
func ReadJSON(r io.Reader) (*result.Run, error) {
	run := &result.Run{}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(run); err != nil {
		return nil, fmt.Errorf("read run: %w", err)
	}
	return run, nil
}

// Table prints a run for people: where it ran, every sheet, and what of the
// figures to reach was reached.
func Table(w io.Writer, run *result.Run) error {
	if _, err := fmt.Fprintf(w, "%s\n", strings.Join(machine(run), "\n")); err != nil {
		return err
	}
	for i := range run.Sheets {
		if err := writeSheet(w, &run.Sheets[i]); err != nil {
			return err
		}
	}
	return writeTargets(w, Targets(run))
}

// machine is the lines that say where and when a run was made.
func machine(run *result.Run) []string {
	m := run.Machine
	lines := []string{
		fmt.Sprintf("%s, %d CPUs, %d MB, Linux %s", m.CPU, m.CPUs, m.MemoryMB, m.Kernel),
		fmt.Sprintf("%s form, %s, %s", run.Form, run.Started.UTC().Format("2006-01-02 15:04 UTC"), table.Duration(run.Took)),
	}
	var tools []string
	for name, version := range m.Tools {
		tools = append(tools, name+" "+version)
	}
	if slices.Sort(tools); len(tools) > 0 {
		lines = append(lines, strings.Join(tools, ", "))
	}
	for i, l := range lines {
		lines[i] = table.Clean(l)
	}
	return lines
}

// view is a sheet by contender and size, as it is shown.
type view struct {
	sheet      *result.Sheet
	contenders []string // in the order of the sheet, less the baseline that others are counted from
	sizes      []int
	points     map[key]*result.Point
}

type key struct {
	contender string
	size      int
}

func newView(s *result.Sheet) *view {
	v := &view{sheet: s, points: map[key]*result.Point{}}
	for i := range s.Points {
		p := &s.Points[i]
		v.points[key{p.Contender, p.Size}] = p
		if !slices.Contains(v.sizes, p.Size) {
			v.sizes = append(v.sizes, p.Size)
		}
	}
	for _, p := range s.Points {
		if !slices.Contains(v.contenders, p.Contender) && !(v.added() && p.Contender == s.Baseline) {
			v.contenders = append(v.contenders, p.Contender)
		}
	}
	slices.Sort(v.sizes)
	return v
}

// added tells whether values are shown as what they add to the baseline. A
// throughput is shown as it is, and so is what was measured at one size only.
func (v *view) added() bool {
	return v.sheet.Baseline != "" && v.sheet.Better != "higher" && v.overSizes()
}

// overSizes tells whether the sheet shows how something grows.
func (v *view) overSizes() bool { return v.sheet.Size != "" && len(v.sizes) > 1 }

// spread is what is shown of a contender at a size, false where there is none.
func (v *view) spread(contender string, size int) (result.Spread, bool) {
	p := v.points[key{contender, size}]
	if p == nil {
		return result.Spread{}, false
	}
	s := &p.Value
	if v.added() {
		s = p.Added
	}
	if s == nil || !isFinite(s.Low) || !isFinite(s.Median) || !isFinite(s.High) {
		return result.Spread{}, false
	}
	return *s, true
}

func isFinite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// ratio is how many times egate's median a contender's is; false where either
// was not measured or is not above zero.
func (v *view) ratio(contender string, size int) (float64, bool) {
	theirs, has := v.spread(contender, size)
	ours, hasOurs := v.spread(egate, size)
	if !has || !hasOurs || theirs.Median <= 0 || ours.Median <= 0 {
		return 0, false
	}
	return theirs.Median / ours.Median, true
}

// what says what the numbers are.
func (v *view) what() string {
	what := v.sheet.Unit
	if v.added() {
		what += " more than " + v.sheet.Baseline
	}
	if v.sheet.Better == "higher" {
		what += ", more is better"
	}
	return what
}

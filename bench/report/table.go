package report

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"egate/bench/result"
	"egate/internal/cli/table"
)

// writeSheet prints the sizes as columns and each contender as two rows: what
// it costs, and how many times that of egate.
func writeSheet(w io.Writer, s *result.Sheet) error {
	v := newView(s)
	_, err := fmt.Fprintf(w, "\n%s: %s\n%s; median ± half of the range between the quartiles; times egate\n",
		table.Clean(s.ID), table.Clean(s.Title), table.Clean(v.what()))
	if err != nil {
		return err
	}
	columns := []table.Column{{Head: s.Size}}
	for _, size := range v.sizes {
		head := ""
		if s.Size != "" {
			head = count(float64(size))
		}
		columns = append(columns, table.Column{Head: head, Right: true})
	}
	t := table.New(columns...)
	t.Indent = "  "
	if v.added() {
		row := []string{s.Baseline}
		for _, size := range v.sizes {
			cell := "-"
			if p := v.points[key{s.Baseline, size}]; p != nil {
				cell = number(p.Value.Median)
			}
			row = append(row, cell)
		}
		t.Add(row...)
	}
	for _, c := range v.contenders {
		values, ratios, compared := []string{c}, []string{""}, false
		for _, size := range v.sizes {
			value, ratio := "-", ""
			if spread, ok := v.spread(c, size); ok {
				value = number(spread.Median) + " ±" + like(spread.Median, (spread.High-spread.Low)/2)
			}
			if r, ok := v.ratio(c, size); ok && r >= 0.05 && c != egate {
				ratio, compared = times(r), true
			}
			values, ratios = append(values, value), append(ratios, ratio)
		}
		t.Add(values...)
		if compared {
			t.Add(ratios...)
		}
	}
	if err := t.Write(w, 0); err != nil {
		return err
	}
	for _, n := range s.Notes {
		if _, err := fmt.Fprintf(w, "  %s\n", table.Clean(n)); err != nil {
			return err
		}
	}
	return nil
}

// number writes a value with as many digits as it is worth: three, and all that
// stand before the point.
func number(v float64) string { return like(v, v) }

// like writes a value with as many digits behind the point as another one has.
func like(other, v float64) string {
	a := math.Abs(other)
	if a >= 100 {
		return count(v)
	}
	digits := 3
	if a >= 10 {
		digits = 1
	} else if a >= 1 {
		digits = 2
	}
	scale := math.Pow10(digits)
	// Adding 0 makes -0 to 0.
	return strconv.FormatFloat(math.Round(v*scale)/scale+0, 'f', -1, 64)
}

// count writes a whole number with a comma every three digits.
func count(v float64) string {
	if math.Abs(v) >= 1e15 || math.IsNaN(v) {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	n := int64(math.Round(v))
	if n < 0 {
		return "-" + table.Count(uint64(-n))
	}
	return table.Count(uint64(n))
}

// times writes a ratio.
func times(r float64) string {
	if r >= 10 {
		return count(r) + "x"
	}
	return strconv.FormatFloat(r, 'f', 1, 64) + "x"
}

package report

import "math"

// scale is a logarithmic axis: it maps from..to onto pixels.
type scale struct {
	from, to      float64 // > 0
	start, length float64
}

func (s scale) at(v float64) float64 {
	if s.to <= s.from {
		return s.start + s.length/2
	}
	return s.start + s.length*math.Log(v/s.from)/math.Log(s.to/s.from)
}

// steps are where a decade is divided.
var steps = []float64{1, 2, 5}

// below is the largest step that is not over v, above the smallest not under it.
func below(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	best := decade
	for _, s := range steps {
		if s*decade <= v*(1+1e-9) {
			best = s * decade
		}
	}
	return best
}

func above(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, s := range append(steps, 10) {
		if s*decade >= v*(1-1e-9) {
			return s * decade
		}
	}
	return 10 * decade
}

// ticks are the steps of an axis: every one on a short axis, whole decades on
// a long one.
func (s scale) ticks() []float64 {
	use := steps
	if s.to/s.from > 2000 {
		use = steps[:1]
	}
	var out []float64
	for e := math.Floor(math.Log10(s.from)); e <= math.Ceil(math.Log10(s.to)); e++ {
		for _, step := range use {
			v := step * math.Pow(10, e)
			if v >= s.from*(1-1e-9) && v <= s.to*(1+1e-9) {
				out = append(out, v)
			}
		}
	}
	return out
}

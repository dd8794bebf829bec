package report

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"egate/bench/result"
)

// The frame of a plot of lines, in pixels.
const (
	linesWidth, linesHeight = 860, 480
	left, right             = 64, 700 // what is right of it is for the labels
	top, bottom             = 74, 402
)

// lines draws cost over size on logarithmic axes, a line for each contender
// with its name at its end.
func lines(v *view, foot string) []byte {
	g := newGraph(v)
	c := newCanvas(linesWidth, linesHeight, v.sheet.Title)
	what := v.what() + "; median, bars from the first to the third quartile"
	c.titles(v, what, foot)
	g.axes(c)
	// egate last, so that nothing is drawn over it.
	var names []label
	for _, mine := range []bool{false, true} {
		for _, contender := range g.drawn {
			if mine == (contender == egate) {
				names = append(names, g.draw(c, contender)...)
			}
		}
	}
	for _, n := range apart(names) {
		c.text(n.x, n.y+4, style{normal, n.colour, "start", n.text == egate}, n.text)
	}
	if note := g.note(); note != "" {
		c.text(20, linesHeight-30, style{small, pencil, "start", false}, note)
	}
	return c.close()
}

// graph is a view with its axes.
type graph struct {
	*view
	x, y  scale
	drawn []string // contenders
	// What is not above the floor has no place on a logarithmic axis and is
	// drawn at its bottom; a contender that is nowhere above it is not drawn.
	floor float64
}

func newGraph(v *view) *graph {
	g := &graph{view: v, floor: 1}
	lowest := math.Inf(1)
	for _, c := range v.contenders {
		g.each(c, func(s result.Spread) {
			if s.Median > 0 {
				lowest = min(lowest, s.Median)
			}
		})
	}
	// Less than a nanosecond is noise.
	if v.sheet.Unit != "ns" && lowest < 1 {
		g.floor = below(lowest)
	}
	low, high := math.Inf(1), g.floor
	for _, c := range v.contenders {
		above := false
		g.each(c, func(s result.Spread) {
			if s.Median > g.floor {
				above = true
				low, high = min(low, s.Median), max(high, s.Median, s.High)
			}
		})
		if above {
			g.drawn = append(g.drawn, c)
		}
	}
	from := below(min(low, high))
	g.y = scale{from, max(above(high), 2*from), bottom, top - bottom}
	g.x = scale{g.size(v.sizes[0]), g.size(v.sizes[len(v.sizes)-1]), left + 10, right - left - 20}
	return g
}

// each calls f with what was measured of a contender.
func (g *graph) each(contender string, f func(result.Spread)) {
	for _, size := range g.sizes {
		if s, ok := g.spread(contender, size); ok {
			f(s)
		}
	}
}

// isHollow tells whether a value is drawn at the floor instead of where it is.
func (g *graph) isHollow(v float64) bool { return v < g.y.from }

// note says what is not drawn where it is.
func (g *graph) note() string {
	var notes, absent []string
	hollow := false
	for _, c := range g.contenders {
		if !slices.Contains(g.drawn, c) {
			absent = append(absent, c)
			continue
		}
		g.each(c, func(s result.Spread) { hollow = hollow || g.isHollow(s.Median) })
	}
	if hollow {
		notes = append(notes, "hollow: less than "+number(g.y.from)+" "+g.sheet.Unit+", drawn there")
	}
	if len(absent) > 0 {
		notes = append(notes, "not drawn, nowhere above "+number(g.floor)+" "+g.sheet.Unit+": "+strings.Join(absent, ", "))
	}
	return strings.Join(notes, "; ")
}

// size is a size on a logarithmic axis, where 0 has no place.
func (g *graph) size(n int) float64 { return float64(max(1, n)) }

func (g *graph) axes(c *canvas) {
	for _, v := range g.y.ticks() {
		y := g.y.at(v)
		c.line(left, y, right, y, grid, 1)
		c.text(left-8, y+4, style{small, pencil, "end", false}, number(v))
	}
	c.line(left, bottom, right, bottom, pencil, 1)
	last := math.Inf(-1)
	for _, size := range g.sizes {
		x := g.x.at(g.size(size))
		c.line(x, bottom, x, bottom+5, pencil, 1)
		if x-last < 40 {
			continue
		}
		last = x
		c.text(x, bottom+20, style{small, pencil, "middle", false}, count(float64(size)))
	}
	c.text((left+right)/2, bottom+40, style{normal, ink, "middle", false}, g.sheet.Size)
}

// label is a text that may be moved up or down.
type label struct {
	point
	text, colour string
}

// draw draws a contender and returns the label of its end, if it has one.
func (g *graph) draw(c *canvas, contender string) []label {
	colour, width := g.colour(contender), 2.0
	if contender == egate {
		width = 3.5
	}
	var at []point
	var hollow []bool
	for _, size := range g.sizes {
		s, ok := g.spread(contender, size)
		if !ok {
			continue
		}
		x := g.x.at(g.size(size))
		at = append(at, point{x, g.value(s.Median)})
		hollow = append(hollow, g.isHollow(s.Median))
		low, high := g.value(s.Low), g.value(s.High)
		if low-high > 1 {
			c.line(x, low, x, high, colour, 1.5)
			c.line(x-4, low, x+4, low, colour, 1.5)
			c.line(x-4, high, x+4, high, colour, 1.5)
		}
	}
	if len(at) == 0 {
		return nil
	}
	if len(at) > 1 {
		c.path(at, colour, width)
	}
	for i, p := range at {
		c.dot(p, width+0.5, colour, hollow[i])
	}
	end := at[len(at)-1]
	return []label{{point{end.x + 12, end.y}, contender, colour}}
}

// value is the height of a value, that of the bottom for what is below it.
func (g *graph) value(v float64) float64 { return g.y.at(min(max(v, g.y.from), g.y.to)) }

// apart moves labels that stand in one column so that none covers another.
func apart(labels []label) []label {
	const gap = 16
	slices.SortStableFunc(labels, func(a, b label) int {
		return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y))
	})
	for begin := 0; begin < len(labels); {
		end := begin + 1
		for end < len(labels) && labels[end].x == labels[begin].x {
			end++
		}
		column := labels[begin:end]
		// Down where they are too close, then up where they left the plot.
		for i := 1; i < len(column); i++ {
			column[i].y = max(column[i].y, column[i-1].y+gap)
		}
		limit := float64(bottom)
		for i := len(column) - 1; i >= 0; i-- {
			column[i].y = min(column[i].y, limit)
			limit = column[i].y - gap
		}
		begin = end
	}
	return labels
}

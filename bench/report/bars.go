package report

import "strconv"

// The frame of a plot of bars, in pixels.
const (
	barsWidth           = 860
	barsLeft, barsRight = 190, 690
	barsTop, barHeight  = 70, 30
)

// bars draws a bar from zero for each contender, on a linear axis.
func bars(v *view, foot string) []byte {
	type bar struct {
		name, contender string
		size            int
	}
	var all []bar
	longest := 0.0
	for _, contender := range v.contenders {
		for _, size := range v.sizes {
			s, ok := v.spread(contender, size)
			if !ok {
				continue
			}
			name := contender
			if len(v.sizes) > 1 {
				name += ", " + strconv.Itoa(size)
			}
			all = append(all, bar{name, contender, size})
			longest = max(longest, s.Median, s.High)
		}
	}
	c := newCanvas(barsWidth, float64(barsTop+barHeight*len(all)+44), v.sheet.Title)
	c.titles(v, v.what()+"; median, bars from the first to the third quartile", foot)
	length := func(value float64) float64 {
		if longest <= 0 || value <= 0 {
			return 0
		}
		return (barsRight - barsLeft) * value / longest
	}
	for i, b := range all {
		s, _ := v.spread(b.contender, b.size)
		y, colour := float64(barsTop+barHeight*i), v.colour(b.contender)
		c.text(barsLeft-10, y+19, style{normal, ink, "end", b.contender == egate}, b.name)
		c.bar(barsLeft, y+5, length(s.Median), barHeight-10, colour)
		low, high, middle := barsLeft+length(s.Low), barsLeft+length(s.High), y+barHeight/2
		if high-low > 1 {
			c.line(low, middle, high, middle, ink, 1.5)
			c.line(low, middle-4, low, middle+4, ink, 1.5)
			c.line(high, middle-4, high, middle+4, ink, 1.5)
		}
		text := number(s.Median) + " " + v.sheet.Unit
		if r, ok := v.ratio(b.contender, b.size); ok && b.contender != egate {
			text += " (" + times(r) + " egate)"
		}
		c.text(barsLeft+length(max(s.Median, s.High))+10, y+19, style{normal, ink, "start", false}, text)
	}
	c.line(barsLeft, barsTop, barsLeft, float64(barsTop+barHeight*len(all)), pencil, 1)
	return c.close()
}

package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
)

// canvas writes the few shapes that plots are made of. It paints its own
// background, so that a plot reads the same on a light and on a dark page.
type canvas struct {
	bytes.Buffer
	width, height float64
}

// Colours of what is not a contender.
const (
	paper  = "#ffffff"
	ink    = "#1f2328"
	pencil = "#59636e" // less important text
	grid   = "#e3e6ea"
)

func newCanvas(width, height float64, title string) *canvas {
	c := &canvas{width: width, height: height}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img" `+
		`font-family="ui-sans-serif, system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif">`+"\n",
		coordinate(width), coordinate(height), coordinate(width), coordinate(height))
	fmt.Fprintf(c, "<title>%s</title>\n", escape(title))
	fmt.Fprintf(c, `<rect width="%s" height="%s" rx="8" fill="%s"/>`+"\n", coordinate(width), coordinate(height), paper)
	return c
}

func (c *canvas) close() []byte {
	c.WriteString("</svg>\n")
	return c.Bytes()
}

func (c *canvas) line(x1, y1, x2, y2 float64, colour string, width float64) {
	fmt.Fprintf(c, `<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s" stroke-width="%s"/>`+"\n",
		coordinate(x1), coordinate(y1), coordinate(x2), coordinate(y2), colour, coordinate(width))
}

// bar is a rectangle in a lighter shade, on which ink can be read.
func (c *canvas) bar(x, y, width, height float64, colour string) {
	fmt.Fprintf(c, `<rect x="%s" y="%s" width="%s" height="%s" fill="%s" fill-opacity="0.65"/>`+"\n",
		coordinate(x), coordinate(y), coordinate(width), coordinate(height), colour)
}

func (c *canvas) path(points []point, colour string, width float64) {
	fmt.Fprintf(c, `<polyline fill="none" stroke="%s" stroke-width="%s" stroke-linejoin="round" points="`, colour, coordinate(width))
	for i, p := range points {
		if i > 0 {
			c.WriteByte(' ')
		}
		c.WriteString(coordinate(p.x) + "," + coordinate(p.y))
	}
	c.WriteString("\"/>\n")
}

// dot is a full circle, or a hollow one.
func (c *canvas) dot(p point, radius float64, colour string, hollow bool) {
	fill := colour
	if hollow {
		fill = paper
	}
	fmt.Fprintf(c, `<circle cx="%s" cy="%s" r="%s" fill="%s" stroke="%s" stroke-width="1.5"/>`+"\n",
		coordinate(p.x), coordinate(p.y), coordinate(radius), fill, colour)
}

// style is how a text looks.
type style struct {
	size   float64
	colour string
	anchor string // start, middle or end
	bold   bool
}

func (c *canvas) text(x, y float64, s style, text string) {
	weight := ""
	if s.bold {
		weight = ` font-weight="600"`
	}
	fmt.Fprintf(c, `<text x="%s" y="%s" font-size="%s" fill="%s" text-anchor="%s"%s>%s</text>`+"\n",
		coordinate(x), coordinate(y), coordinate(s.size), s.colour, s.anchor, weight, escape(text))
}

// point is a place on the canvas.
type point struct{ x, y float64 }

// coordinate writes a number the same on every machine.
func coordinate(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "0"
	}
	return strconv.FormatFloat(math.Round(v*10)/10+0, 'f', -1, 64)
}

func escape(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a buffer takes everything
	}
	return b.String()
}

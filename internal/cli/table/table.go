// Package table belongs to stage 6: it lays out what people read. Tables fit
// the width they are given by cutting the longest cells; numbers are aligned
// to the right and written for eyes. Programs read JSON instead.
package table

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Column is one column of a Table.
type Column struct {
	Head  string
	Right bool // align to the right: counts and sizes
	Min   int  // the least width it may be cut to; 0: it is never cut

	KeepEnd bool // it is cut at the front: of a domain name the end matters
}

// Table is a heading and rows of cells. A row may be shorter than the heading.
type Table struct {
	Indent  string
	Columns []Column
	rows    [][]string
}

// New makes a table of these columns.
func New(columns ...Column) *Table { return &Table{Columns: columns} }

// Add appends a row. Control characters in cells are made visible, because
// names come from files and from other people's programs.
func (t *Table) Add(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Clean(c)
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

const gap = 2 // blanks between columns

// Write prints the table; width is that of the terminal in characters, 0 for
// no limit. Where even the least widths do not fit, lines are longer.
func (t *Table) Write(w io.Writer, width int) error {
	widths := t.widths(width)
	var b strings.Builder
	heads := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		heads[i] = c.Head
	}
	t.line(&b, heads, widths)
	for _, row := range t.rows {
		t.line(&b, row, widths)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widths gives each column its natural width and then takes from the widest
// column that may be cut, until the line fits.
func (t *Table) widths(limit int) []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = utf8.RuneCountInString(c.Head)
	}
	for _, row := range t.rows {
		for i := 0; i < len(row) && i < len(widths); i++ {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	if limit <= 0 {
		return widths
	}
	over := utf8.RuneCountInString(t.Indent) + gap*(len(widths)-1) - limit
	for _, w := range widths {
		over += w
	}
	for ; over > 0; over-- {
		widest := -1
		for i, c := range t.Columns {
			if c.Min > 0 && widths[i] > c.Min && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

func (t *Table) line(b *strings.Builder, cells []string, widths []int) {
	var line strings.Builder
	line.WriteString(t.Indent)
	for i, w := range widths {
		cell := ""
		if i < len(cells) {
			if cell = Cut(cells[i], w); t.Columns[i].KeepEnd {
				cell = cutFront(cells[i], w)
			}
		}
		pad := strings.Repeat(" ", w-utf8.RuneCountInString(cell))
		if i > 0 {
			line.WriteString(strings.Repeat(" ", gap))
		}
		if t.Columns[i].Right {
			line.WriteString(pad + cell)
		} else {
			line.WriteString(cell + pad)
		}
	}
	b.WriteString(strings.TrimRight(line.String(), " "))
	b.WriteByte('\n')
}

// Cut shortens a text to at most n characters and marks that with "…".
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 0 {
		return ""
	}
	runes := []rune(s)
	return string(runes[:n-1]) + "…"
}

// cutFront is Cut at the other end.
func cutFront(s string, n int) string {
	runes := []rune(s)
	switch {
	case len(runes) <= n:
		return s
	case n <= 0:
		return ""
	}
	return "…" + string(runes[len(runes)-n+1:])
}

// Clean replaces what would move the cursor or colour the terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '·'
		}
		return r
	}, s)
}

// Wrap puts a text behind head and breaks it at blanks into lines of at most
// width characters (0: one line); the lines after the first stand under the
// first's text.
func Wrap(head, text string, width int) string {
	if width <= 0 {
		return head + text
	}
	var b strings.Builder
	b.WriteString(head)
	under := utf8.RuneCountInString(head)
	column := under
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", under))
			column = under
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

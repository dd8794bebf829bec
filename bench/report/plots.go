package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"egate/bench/result"
)

// ErrSheetID says that a sheet's ID cannot name a file.
var ErrSheetID = errors.New("invalid sheet id")

// Plots writes one SVG for each sheet into a folder, which it makes, named by
// the sheet's ID. Equal runs make equal files. Returns ErrSheetID.
func Plots(dir string, run *result.Run) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write plots: %w", err)
	}
	for i := range run.Sheets {
		s := &run.Sheets[i]
		if s.ID == "" || strings.ContainsAny(s.ID, "/\\\x00") || s.ID[0] == '.' {
			return fmt.Errorf("write plot of sheet %q: %w", s.ID, ErrSheetID)
		}
		if err := os.WriteFile(filepath.Join(dir, s.ID+".svg"), plot(run, s), 0o644); err != nil {
			return fmt.Errorf("write plot: %w", err)
		}
	}
	return nil
}

func plot(run *result.Run, s *result.Sheet) []byte {
	v := newView(s)
	foot := machine(run)[0]
	if v.overSizes() {
		return lines(v, foot)
	}
	return bars(v, foot)
}

// colours of the contenders, far enough apart for those who see few colours;
// what is not listed takes from the spare ones in the order of the sheet.
var (
	colours = map[string]string{
		egate: "#0a66c2", result.Trie: "#c2410c", result.NFTRules: "#15803d", result.NFTSet: "#9d2f8f",
		result.IPTablesRules: "#a16207", result.IPSet: "#7c4a2d", result.ICMPDrop: "#475569", result.Empty: "#374151", result.Nothing: "#64748b",
	}
	spare = []string{"#0e7490", "#be123c", "#4d7c0f", "#6d28d9", "#b45309", "#111827"}
)

func (v *view) colour(contender string) string {
	if c, ok := colours[contender]; ok {
		return c
	}
	n := 0
	for _, other := range v.contenders {
		if other == contender {
			break
		}
		if _, ok := colours[other]; !ok {
			n++
		}
	}
	return spare[n%len(spare)]
}

// Sizes of text, in pixels.
const (
	large  = 17
	normal = 13
	small  = 11.5
)

// titles writes what a plot shows above it and where it was measured below.
func (c *canvas) titles(v *view, what, foot string) {
	c.text(20, 30, style{large, ink, "start", true}, v.sheet.Title)
	c.text(20, 50, style{normal, pencil, "start", false}, what)
	c.text(20, c.height-12, style{small, pencil, "start", false}, foot)
}

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// output remembers the first error of a stream, so that a command that prints
// to a full disk does not claim success.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("write output: %w", err)
	}
	return n, o.err
}

// terminalWidth is the width that tables have to fit: COLUMNS if it is a
// number, else the terminal's if w is one, else 0 for no limit.
func terminalWidth(w io.Writer, env func(string) string) int {
	if n, err := strconv.Atoi(env("COLUMNS")); err == nil && n > 0 {
		return n
	}
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// isTerminal tells whether standard output is one that can be redrawn.
func (a *app) isTerminal() bool {
	file, ok := a.stdout.w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && a.env("TERM") != "dumb"
}

// printJSON writes one value, indented, with a newline.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printJSONLine writes one value as one line.
func (a *app) printJSONLine(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

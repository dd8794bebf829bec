package policy

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// checkCharacters refuses text of which editors and YAML count lines
// differently, and what YAML has no place for.
func (r *reader) checkCharacters(text []byte) bool {
	line, start := 1, 0
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		start = len("\ufeff")
	}
	for i := start; i < len(text); {
		if c := text[i]; c >= ' ' && c < 0x7f {
			i++ // nearly all of them
			continue
		}
		c, size := utf8.DecodeRune(text[i:])
		message := ""
		switch {
		case c == utf8.RuneError && size == 1:
			message = fmt.Sprintf("byte 0x%02x is not UTF-8", text[i])
		case c == 0xfeff:
			message = "a byte order mark may only stand at the beginning"
		case c == 0x85 || c == 0x2028 || c == 0x2029:
			message = fmt.Sprintf("the line separator %U; lines end with a newline", c)
		case c == '\r' && (i+1 == len(text) || text[i+1] != '\n'):
			message = "a carriage return without a newline"
		case c < 0x20 && c != '\t' && c != '\n' && c != '\r', c >= 0x7f && c < 0xa0, c == 0xfffe, c == 0xffff:
			message = fmt.Sprintf("the control character %U, which text has no use for", c)
		}
		if message != "" {
			r.report(Pos{r.file, line, 1 + utf8.RuneCount(text[start:i])}, Error, "%s", message)
			return false
		}
		i += size
		if c == '\n' {
			line, start = line+1, i
		}
	}
	return true
}

func splitLines(text []byte) [][]byte {
	lines := bytes.Split(bytes.TrimPrefix(text, []byte("\ufeff")), []byte("\n"))
	for i := range lines {
		lines[i] = bytes.TrimSuffix(lines[i], []byte("\r"))
	}
	return lines
}

var yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntaxError reports what the YAML scanner could not read. Its errors bear the
// line of what they are within, often another one than where it broke off; so
// the text is read once more, line by line, to see how far the scanner came.
// before is how many lines the file has before the text.
func (r *reader) syntaxError(text []byte, err error, before int) {
	byLine := &lineReader{rest: text}
	decoder := yaml.NewDecoder(byLine)
	for {
		var n yaml.Node
		if again := decoder.Decode(&n); again != nil {
			break
		}
	}
	line := max(1, min(before+byLine.lines, len(r.lines)))
	for line > 1 && len(bytes.TrimSpace(r.lines[line-1])) == 0 {
		line--
	}
	content := r.lines[line-1]
	indent := len(content) - len(bytes.TrimLeft(content, " \t"))
	pos := Pos{r.file, line, 1 + indent}
	message := "YAML: " + yamlPrefix.ReplaceAllString(err.Error(), "")
	switch tab := bytes.IndexByte(content[:indent], '\t'); {
	case tab >= 0:
		pos.Column = 1 + tab
		message = "YAML: a tab in the indentation; indent with spaces"
	case strings.Contains(message, "alphabetic or numeric"):
		message += `; a text that begins with * or & needs quotes`
	case bytes.Contains(content, []byte("::")):
		message += `; an address that begins or ends with a colon needs quotes`
	}
	if m := strayAnchor.FindStringSubmatch(message); m != nil {
		pos = r.find("*"+m[1], pos)
		message = fmt.Sprintf("the alias *%s; the policy language has none, and a text that begins with * needs quotes", shorten(m[1]))
	}
	r.report(pos, Error, "%s", message)
}

// find is the first place of a word outside of comments, otherwise if there is none.
func (r *reader) find(word string, otherwise Pos) Pos {
	for i, line := range r.lines {
		if before, _, ok := bytes.Cut(line, []byte(word)); ok && !bytes.Contains(before, []byte("#")) {
			return Pos{r.file, i + 1, 1 + utf8.RuneCount(before)}
		}
	}
	return otherwise
}

// lineReader hands out one line a Read and counts them.
type lineReader struct {
	rest  []byte
	lines int
	cut   bool // the line before was not given whole
}

func (l *lineReader) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	end := len(l.rest)
	if i := bytes.IndexByte(l.rest, '\n'); i >= 0 {
		end = i + 1
	}
	n := copy(p, l.rest[:end])
	l.rest = l.rest[n:]
	if !l.cut {
		l.lines++
	}
	l.cut = n < end
	return n, nil
}

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"egate/internal/ipset"
)

// Bounds of what is read.
const (
	MaxFileBytes  = 4 << 20 // of a policy file
	maxDepth      = 16      // levels of lists and mappings; the language has 6
	maxSetEntries = ipset.MaxEntries
)

// Opener opens a set file. Its argument is the path of the policy, joined to
// the folder of the policy file unless it is absolute.
type Opener func(path string) (io.ReadCloser, error)

// Load reads the policy file at path and its set files. The policy is nil if
// there are errors; a file that cannot be read is one of them.
func Load(path string) (*Policy, Problems) {
	text, err := readFile(path)
	if err != nil {
		return nil, Problems{{Pos: Pos{File: path}, Message: "read policy: " + cause(err)}}
	}
	return Parse(path, text, OpenFile)
}

// readFile reads no more than a policy may have, and one byte to tell.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
}

// OpenFile is the Opener that reads the file system. It opens regular files
// only: a pipe or device as a set file could hang the reader.
func OpenFile(path string) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return os.Open(path)
}

// cause is err without the path, which the message has already.
func cause(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// Parse reads policy text; file names it in positions, and set files are
// opened with open. All problems of the text are given at once, sorted; the
// policy is nil if one of them is an error. Equal text and set files give equal
// policies and problems.
func Parse(file string, text []byte, open Opener) (*Policy, Problems) {
	r := &reader{file: file, open: open, suggestions: 100}
	var policy *Policy
	if root := r.document(text); root != nil {
		policy = r.policy(root)
	}
	sortProblems(r.problems, file)
	if r.errors > 0 {
		return nil, r.problems
	}
	return policy, r.problems
}

// reader is the state of one Parse.
type reader struct {
	file        string
	open        Opener
	lines       [][]byte
	widths      []int32 // of the lines, in runes
	problems    Problems
	errors      int // how many of the problems are errors
	suggestions int // how many nearest words may still be looked for: bounds the time for bad input
	sets        map[string]*namedSet
}

// document checks the text and gives the root node of its one YAML document,
// or nil if what follows would make no sense.
func (r *reader) document(text []byte) *yaml.Node {
	if len(text) > MaxFileBytes {
		r.report(Pos{File: r.file}, Error, "the policy is larger than %d MiB; large sets belong in set files", MaxFileBytes>>20)
		return nil
	}
	if !r.checkCharacters(text) {
		return nil
	}
	r.lines = splitLines(text)
	r.widths = make([]int32, len(r.lines))
	for i, line := range r.lines {
		r.widths[i] = int32(utf8.RuneCount(line))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.report(Pos{r.file, 1, 1}, Error, `the policy is empty; it begins with "version: 1"`)
		return nil
	case err != nil:
		r.syntaxError(text, err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		r.report(r.pos(&second), Error, "a second YAML document begins here; one file is one policy")
		return nil
	case !errors.Is(err, io.EOF):
		r.syntaxError(text, err)
		return nil
	}
	root := doc.Content[0]
	r.checkPlain(root)
	return root
}

// checkCharacters refuses text of which editors and YAML count lines
// differently, and what YAML has no place for.
func (r *reader) checkCharacters(text []byte) bool {
	line, start := 1, 0
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		start = len("\ufeff")
	}
	for i := start; i < len(text); {
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
func (r *reader) syntaxError(text []byte, err error) {
	byLine := &lineReader{rest: text}
	decoder := yaml.NewDecoder(byLine)
	for {
		var n yaml.Node
		if again := decoder.Decode(&n); again != nil {
			break
		}
	}
	line := max(1, min(byLine.lines, len(r.lines)))
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

// checkPlain refuses what YAML offers beyond plain data: anchors and aliases,
// because a rule should say what it means where it stands and an alias can
// stand for millions of nodes; tags, because types are the reader's business;
// and nesting without end.
func (r *reader) checkPlain(root *yaml.Node) {
	type item struct {
		node  *yaml.Node
		depth int
	}
	deep := false
	for stack := []item{{root, 1}}; len(stack) > 0; {
		it := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n := it.node
		switch {
		case n.Kind == yaml.AliasNode:
			r.report(r.pos(n), Error, "the alias *%s; the policy language has none, use a set", n.Value)
		case n.Anchor != "":
			r.report(r.pos(n), Error, "the anchor &%s; the policy language has none, use a set", n.Anchor)
		case n.Style&yaml.TaggedStyle != 0:
			r.report(r.pos(n), Error, "the tag %s; the policy language has none", quote(n.Tag))
		}
		if it.depth > maxDepth {
			if !deep {
				r.report(r.pos(n), Error, "nested deeper than %d levels", maxDepth)
			}
			deep = true
			continue
		}
		for _, c := range n.Content {
			stack = append(stack, item{c, it.depth + 1})
		}
	}
}

// report adds a problem.
func (r *reader) report(pos Pos, severity Severity, format string, args ...any) {
	if severity == Error {
		r.errors++
	}
	r.problems = append(r.problems, Problem{pos, severity, fmt.Sprintf(format, args...)})
}

func (r *reader) errorAt(n *yaml.Node, format string, args ...any) {
	r.report(r.pos(n), Error, format, args...)
}

func (r *reader) warnAt(n *yaml.Node, format string, args ...any) {
	r.report(r.pos(n), Warning, format, args...)
}

// pos is the place of a node. The scanner puts a value that is not there at
// the token that follows, which may be past the end of the file.
func (r *reader) pos(n *yaml.Node) Pos {
	line := min(max(n.Line, 1), len(r.lines))
	column, end := n.Column, 1+int(r.widths[line-1])
	if line < n.Line || column > end {
		column = end
	}
	return Pos{r.file, line, max(column, 1)}
}

// didYouMean is a clause with the nearest of the words, or all of them where
// they are few, or nothing.
func (r *reader) didYouMean(word string, candidates []string) string {
	if near := r.near(word, candidates); near != "" {
		return near
	}
	if len(candidates) > 0 && len(candidates) <= 10 {
		return "; it can be " + orList(candidates)
	}
	return ""
}

// near is nearClause, as often as a file is granted it.
func (r *reader) near(word string, candidates []string) string {
	if r.suggestions == 0 {
		return ""
	}
	r.suggestions--
	return nearClause(word, candidates)
}

// orList is "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"egate/internal/domain"
	"egate/internal/ipset"
)

// Bounds of what is read.
const (
	MaxFileBytes  = 128 << 20 // of a policy file
	maxWhole      = 8 << 20   // of it without long lists of rules, which take the most room
	maxLines      = 8 << 20   // of it: each takes room before its rule is read
	maxDepth      = 16        // levels of lists and mappings; the language has 6
	maxSetEntries = ipset.MaxEntries
)

// Opener opens a set file. Its argument is the path of the policy, joined to
// the folder of the policy file unless it is absolute.
type Opener func(path string) (io.ReadCloser, error)

// Load reads the policy file at path and its set files. The policy is nil if
// there are errors; a file that cannot be read is one of them.
func Load(path string) (*Policy, Problems) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, Problems{{Pos: Pos{File: path}, Message: "read policy: " + cause(err)}}
	}
	return Parse(path, text, OpenFile)
}

// ReadFile reads a policy file: no more of it than a policy may have, and one
// byte to tell. A regular file that changes meanwhile is an error, since the
// beginning of a list of rules is a list of rules, too.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil || !before.Mode().IsRegular() {
		return text, err
	}
	after, err := f.Stat()
	if err == nil && (after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
		err = errors.New("the file was changed while it was read; put a new one in its place by renaming it")
	}
	return text, err
}

// OpenFile is the Opener that reads the file system. It opens regular files
// only: a pipe or device as a set file could hang the reader.
func OpenFile(path string) (io.ReadCloser, error) {
	// Without O_NONBLOCK the opening of a pipe would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
	return parse(file, text, open, longLists)
}

func parse(file string, text []byte, open Opener, cut cutting) (*Policy, Problems) {
	r := &reader{file: file, open: open, suggestions: 100, cut: cut}
	policy := r.parse(text)
	if r.unfit {
		r = &reader{file: file, open: open, suggestions: 100}
		policy = r.parse(text)
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
	size        int // of the text, in bytes
	lines       [][]byte
	widths      []int32 // of the lines, in runes
	problems    Problems
	errors      int // how many of the problems are errors
	suggestions int // how many nearest words may still be looked for: bounds the time for bad input

	cut     cutting
	unfit   bool // one cannot: the text is to be read as one
	streams map[*yaml.Node]*stream
	sets    map[string]*namedSet

	domainCount int                    // of all that were read
	joined      map[string]*domain.Set // unions of sets, by their names
}

// parse reads the whole text; nil if it is no policy, or r.unfit.
func (r *reader) parse(text []byte) *Policy {
	root := r.document(text)
	if root == nil {
		return nil
	}
	p := r.policy(root)
	for _, s := range r.streams {
		// Nobody wanted what stands there, and it may be no YAML at all.
		r.unfit = r.unfit || !s.wanted && r.size <= maxWhole
	}
	return p
}

// document checks the text and gives the root node of its one YAML document,
// or nil if what follows would make no sense.
func (r *reader) document(text []byte) *yaml.Node {
	if len(text) > MaxFileBytes {
		r.report(Pos{File: r.file}, Error, "the policy is larger than %d MiB; large sets belong in set files", MaxFileBytes>>20)
		return nil
	}
	if bytes.Count(text, []byte("\n")) > maxLines {
		r.report(Pos{File: r.file}, Error, "the policy has more than %d lines; large sets belong in set files", maxLines)
		return nil
	}
	if !r.checkCharacters(text) {
		return nil
	}
	r.size = len(text)
	r.lines = splitLines(text)
	r.widths = make([]int32, len(r.lines))
	for i, line := range r.lines {
		r.widths[i] = int32(utf8.RuneCount(line))
	}
	if r.cut.from > 0 {
		if streams := findStreams(r.lines, r.cut); len(streams) > 0 {
			return r.cutDocument(streams)
		}
	}
	if !r.fitsWhole(text) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.report(Pos{r.file, 1, 1}, Error, `the policy is empty; it begins with "version: 1"`)
		return nil
	case err != nil:
		r.syntaxError(text, err, 0)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		r.report(r.pos(&second), Error, "a second YAML document begins here; one file is one policy")
		return nil
	case !errors.Is(err, io.EOF):
		r.syntaxError(text, err, 0)
		return nil
	}
	root := doc.Content[0]
	r.checkPlain(root, 1)
	return root
}

// cutDocument is document for a text that streams were found in.
func (r *reader) cutDocument(streams []*stream) *yaml.Node {
	rest := without(r.lines, streams)
	if !r.fitsWhole(rest) {
		return nil
	}
	root, err := onlyDocument(rest)
	if err == nil && root != nil {
		r.streams = place(root, streams)
	}
	if r.streams == nil {
		r.cannotCut(&pieceError{rest, 0, err})
		return nil
	}
	r.checkPlain(root, 1)
	return root
}

// fitsWhole refuses what would take too much room to read as one.
func (r *reader) fitsWhole(text []byte) bool {
	if len(text) > maxWhole {
		r.report(Pos{File: r.file}, Error, "the policy is larger than %d MiB beside long lists of rules; large sets belong in set files", maxWhole>>20)
	}
	return len(text) <= maxWhole
}

// cannotCut has the file read as one if it is not too large, and reports a
// piece that cannot be read otherwise.
func (r *reader) cannotCut(e *pieceError) {
	switch {
	case r.size <= maxWhole:
		r.unfit = true
	case e.err != nil:
		r.syntaxError(e.text, e.err, e.line)
	default:
		r.report(Pos{r.file, e.line + 1, 1}, Error, "from here on rules cannot be read apart from each other; in a policy larger than %d MiB, each begins on a line of its own and reaches into no other", maxWhole>>20)
	}
}

// checkPlain refuses what YAML offers beyond plain data: anchors and aliases,
// because a rule should say what it means where it stands and an alias can
// stand for millions of nodes; tags, because types are the reader's business;
// and nesting without end. depth is that of root.
func (r *reader) checkPlain(root *yaml.Node, depth int) {
	type item struct {
		node  *yaml.Node
		depth int
	}
	deep := false
	for stack := []item{{root, depth}}; len(stack) > 0; {
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

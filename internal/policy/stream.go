package policy

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"

	"go.yaml.in/yaml/v3"
)

// A YAML tree takes some thirty times the room of its text, and one reader
// makes it on one processor. So long lists of rules are cut out of a file and read in
// pieces of some rules each, side by side, and each piece's tree is dropped
// when its rules are read; in the text that is left one element stands for the
// list. That is done only where it cannot change what the text means:
//
//   - A list is cut out where it is a block list by its indentation, every
//     element begins on a line of its own, and the YAML reader finds the element
//     that stands for it where the list was, alone in a block list.
//   - A piece must be a whole list by itself, with as many elements as it has
//     lines that begin one. What reaches over from one element to the next, such as a
//     quoted text with such lines, leaves one of two pieces open.
//
// Where it does not hold, and so wherever the YAML is wrong, a file of up to
// maxWhole is read as one; larger ones get an error at the piece.

// cutting says which lists are read in pieces.
type cutting struct {
	from   int // those of so many elements; 0: none
	length int // elements of a piece
}

var longLists = cutting{from: 4096, length: 512}

const standIn = "0"

// stream is a list of rules that was cut out of the text.
type stream struct {
	line     int // of its first element, from 1
	indent   int
	elements int
	length   int // elements of a piece, but the last
	pieces   []piece
	wanted   bool // it is the list of a direction
}

// piece is some of its elements: the lines from first to before end, from 0.
type piece struct {
	first, end int
	elements   int
}

// findStreams finds the long lists of rules in the text.
func findStreams(lines [][]byte, cut cutting) (out []*stream) {
	for i := 0; i < len(lines); i++ {
		if !bytes.HasPrefix(bytes.TrimLeft(lines[i], " "), []byte("rules:")) {
			continue
		}
		if s := listBehind(lines, i, cut.length); s != nil {
			i = s.pieces[len(s.pieces)-1].end - 1
			if s.elements >= cut.from {
				out = append(out, s)
			}
		}
	}
	return out
}

// listBehind finds the block list below the line of a key; nil if there is none.
func listBehind(lines [][]byte, key, length int) *stream {
	s := &stream{indent: -1, length: length}
	for i := key + 1; i < len(lines); i++ {
		text := bytes.TrimLeft(lines[i], " ")
		indent := len(lines[i]) - len(text)
		begins := len(text) > 1 && text[0] == '-' && text[1] == ' '
		switch {
		case len(text) == 0 || text[0] == '#':
			if s.elements > 0 && indent > s.indent {
				s.pieces[len(s.pieces)-1].end = i + 1 // in a block text it is content
			}
			continue
		case s.indent < 0 && begins:
			s.line, s.indent = i+1, indent
		case s.indent < 0 || indent < s.indent || indent == s.indent && !begins:
			return s.orNil()
		case indent > s.indent:
			s.pieces[len(s.pieces)-1].end = i + 1
			continue
		}
		if s.elements%s.length == 0 {
			s.pieces = append(s.pieces, piece{first: i})
		}
		last := &s.pieces[len(s.pieces)-1]
		last.end = i + 1
		last.elements++
		s.elements++
	}
	return s.orNil()
}

func (s *stream) orNil() *stream {
	if s.elements == 0 {
		return nil
	}
	return s
}

// without gives the text with an element in the place of each stream, and all
// other lines where they were.
func without(lines [][]byte, streams []*stream) []byte {
	var out bytes.Buffer
	next := 0
	for i := 0; i < len(lines); i++ {
		if next < len(streams) && i+1 == streams[next].line {
			s := streams[next]
			out.Write(bytes.Repeat([]byte(" "), s.indent))
			out.WriteString("- " + standIn)
			end := s.pieces[len(s.pieces)-1].end
			out.Write(bytes.Repeat([]byte("\n"), end-i))
			i = end - 1
			next++
			continue
		}
		out.Write(lines[i])
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// place finds the lists that the streams were cut out of, and empties them. It
// is nil where one of them is not found.
func place(root *yaml.Node, streams []*stream) map[*yaml.Node]*stream {
	byLine := map[int]*stream{}
	for _, s := range streams {
		byLine[s.line] = s
	}
	found := map[*yaml.Node]*stream{}
	stack := []*yaml.Node{root}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		stack = append(stack, n.Content...)
		if n.Kind != yaml.SequenceNode || n.Style&yaml.FlowStyle != 0 || len(n.Content) != 1 {
			continue
		}
		c := n.Content[0]
		s := byLine[c.Line]
		if s != nil && c.Kind == yaml.ScalarNode && c.Style == 0 && c.Value == standIn && c.Anchor == "" && c.Column == s.indent+len("- ")+1 {
			n.Content = nil
			found[n] = s
		}
	}
	if len(found) != len(streams) {
		return nil
	}
	return found
}

// pieceError says which piece cannot be read.
type pieceError struct {
	text []byte
	line int   // of its first line, from 0
	err  error // of the YAML reader; nil where the piece is not a list by itself
}

// elementsOf gives a stream's elements in order, with the lines of the file. It
// stops at a piece that cannot be read.
func elementsOf(s *stream, lines [][]byte, yield func(*yaml.Node) bool) *pieceError {
	type result struct {
		nodes []*yaml.Node
		err   *pieceError
	}
	workers := runtime.GOMAXPROCS(0)
	pending := make(chan chan result, workers)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pending)
		for _, p := range s.pieces {
			out := make(chan result, 1)
			select {
			case pending <- out:
			case <-stop:
				return
			}
			go func() {
				nodes, err := readPiece(lines, p)
				out <- result{nodes, err}
			}()
		}
	}()
	for out := range pending {
		r := <-out
		if r.err != nil {
			return r.err
		}
		for _, n := range r.nodes {
			if !yield(n) {
				return nil
			}
		}
	}
	return nil
}

// onlyDocument reads a text; nil if it has not one document.
func onlyDocument(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, behind yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		return nil, err
	}
	switch err := decoder.Decode(&behind); {
	case err == nil:
		return nil, nil
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return doc.Content[0], nil
}

// lineOf gives the line of an element, from 1.
func (s *stream) lineOf(element int, lines [][]byte) int {
	line := s.pieces[element/s.length].first
	for left := element % s.length; ; line++ {
		text := bytes.TrimLeft(lines[line], " ")
		if len(lines[line])-len(text) == s.indent && bytes.HasPrefix(text, []byte("- ")) {
			if left == 0 {
				return line + 1
			}
			left--
		}
	}
}

// readPiece reads one piece.
func readPiece(lines [][]byte, p piece) ([]*yaml.Node, *pieceError) {
	text := append(bytes.Join(lines[p.first:p.end], []byte("\n")), '\n')
	list, err := onlyDocument(text)
	if err != nil {
		return nil, &pieceError{text, p.first, err}
	}
	if list == nil || list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0 || len(list.Content) != p.elements {
		return nil, &pieceError{text: text, line: p.first}
	}
	stack := slices.Clone(list.Content)
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = append(stack[:len(stack)-1], n.Content...)
		n.Line += p.first
	}
	return list.Content, nil
}

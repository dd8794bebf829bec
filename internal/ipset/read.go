package ipset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"unicode/utf8"
)

// Limits of a set file.
const (
	MaxEntries    = 4_000_000
	MaxFileBytes  = 1 << 30
	MaxLineBytes  = 1 << 16
	maxLineErrors = 20
)

// LineError is what is wrong with a set file. Line and Column count from 1,
// columns in runes; a zero Line means the file as a whole.
type LineError struct {
	File         string
	Line, Column int
	Message      string
}

func (e LineError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// ReadSet reads a set file: one element (see AppendElement) a line, '#'
// comments, blank lines, spaces and CRLF as they may. It reads r to its end
// without holding the text, and file names it in errors. If r has a Stat method
// as *os.File does, a file that changes meanwhile is an error: half of a list
// that is being written must not pass for the list. The set is nil if there are
// errors; the first 20 are given, and then how many more there are.
func ReadSet(r io.Reader, file string) (*Set, []LineError) {
	s := setReader{file: file}
	before, err := StatOf(r)
	if err != nil {
		s.fail(fmt.Sprintf("read the file: %v", err))
		return nil, s.errs
	}
	limited := &io.LimitedReader{R: r, N: MaxFileBytes + 1}
	in := bufio.NewReaderSize(limited, MaxLineBytes)
	for {
		line, err := in.ReadSlice('\n')
		s.line++
		s.add(line, err == bufio.ErrBufferFull)
		for err == bufio.ErrBufferFull {
			_, err = in.ReadSlice('\n')
		}
		switch {
		case limited.N == 0:
			s.fail(fmt.Sprintf("the file is larger than %d bytes", MaxFileBytes))
		case s.entries > MaxEntries:
			s.fail(fmt.Sprintf("the file has more than %d elements", MaxEntries))
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			s.fail(fmt.Sprintf("read the file: %v", err))
		default:
			if err := CheckUnchanged(r, before); err != nil {
				s.fail(err.Error())
			}
		}
		break
	}
	if s.more > 0 {
		s.errs = append(s.errs, LineError{file, s.moreLine, 1, fmt.Sprintf("and %d more errors from here on", s.more)})
	}
	if len(s.errs) > 0 {
		return nil, s.errs
	}
	return &Set{merge(joinSorted(s.v6, s.v4))}, nil
}

// StatOf is what r tells of the file it reads, nil if it tells nothing.
func StatOf(r io.Reader) (fs.FileInfo, error) {
	if f, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		return f.Stat()
	}
	return nil, nil
}

// setReader is the state of ReadSet.
type setReader struct {
	file     string
	line     int
	entries  int
	v4       []range4
	v6       []Range
	errs     []LineError
	more     int // errors past maxLineErrors
	moreLine int // where the first of them is
}

// CheckUnchanged tells of a file that is not what StatOf said before it was
// read. The error is a sentence for the reader's list of errors.
func CheckUnchanged(r io.Reader, before fs.FileInfo) error {
	switch after, err := StatOf(r); {
	case err != nil:
		return fmt.Errorf("read the file: %w", err)
	case before != nil && (after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())):
		return errors.New("the file was changed while it was read; put a new list in its place by renaming it")
	}
	return nil
}

var byteOrderMark = []byte("\ufeff")

// add reads one line; cut tells that it is only the beginning of one.
func (s *setReader) add(line []byte, cut bool) {
	if r, ok := scanLine4(line); ok && !cut {
		s.entries++
		s.v4 = append(makeRoom(s.v4), r)
		return
	}
	s.addElement(line, cut)
}

// addElement reads a line of any form.
func (s *setReader) addElement(line []byte, cut bool) {
	text := line
	if s.line == 1 {
		text = bytes.TrimPrefix(text, byteOrderMark)
	}
	if i := bytes.IndexByte(text, '#'); i >= 0 {
		text = text[:i]
	} else if cut {
		s.report(line, nil, fmt.Errorf("the line is longer than %d bytes", MaxLineBytes))
		return
	}
	text = trim(text)
	if len(text) == 0 {
		return
	}
	s.entries++
	switch r, err := scanElement(text); {
	case err != nil:
		s.report(line, text, err)
	case r.First.Is4():
		s.v4 = append(makeRoom(s.v4), pack4(r))
	default:
		s.v6 = appendRange(makeRoom(s.v6), r.First, r.Last)
	}
}

// makeRoom doubles a slice that is full. append alone lets large slices grow
// by a quarter, so that a large list is copied five times over; and
// slices.Grow writes zeros to memory that may never be needed.
func makeRoom[T any](s []T) []T {
	if len(s) < cap(s) {
		return s
	}
	larger := make([]T, len(s), max(2*len(s), 1<<10))
	copy(larger, s)
	return larger
}

// trim cuts spaces, tabs and line ends off both ends.
func trim(text []byte) []byte {
	isSpace := func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	for len(text) > 0 && isSpace(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	for len(text) > 0 && isSpace(text[0]) {
		text = text[1:]
	}
	return text
}

// report keeps an error at the place of text, a part of line.
func (s *setReader) report(line, text []byte, err error) {
	column := 1
	if text != nil {
		before := line[:cap(line)-cap(text)]
		column += utf8.RuneCount(bytes.TrimPrefix(before, byteOrderMark))
	}
	if len(s.errs) < maxLineErrors {
		s.errs = append(s.errs, LineError{s.file, s.line, column, err.Error()})
		return
	}
	if s.more++; s.more == 1 {
		s.moreLine = s.line
	}
}

// fail reports what ends the reading of the whole file.
func (s *setReader) fail(message string) {
	s.errs = append(s.errs, LineError{File: s.file, Message: message})
}

package domain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"unicode/utf8"

	"egate/internal/ipset"
)

// Limits of a domain file; those of its size and lines are set files'.
const (
	MaxEntries    = 1_000_000
	maxLineErrors = 20
)

// ReadSet reads a domain file: one pattern (see Parse) a line, '#' comments,
// blank lines, spaces and CRLF as they may. A line of a hosts file is read too:
// an address, which says nothing here, and names behind it. It reads r to its
// end without holding the text, and file names it in errors. If r has a Stat
// method as *os.File does, a file that changes meanwhile is an error, as half of
// a list must not pass for the list. The set is nil if there are errors; the
// first 20 are given, and then how many more there are.
func ReadSet(r io.Reader, file string) (*Set, []ipset.LineError) {
	s := setReader{file: file}
	before, err := ipset.StatOf(r)
	if err != nil {
		s.fail("read the file: %v", err)
		return nil, s.errs
	}
	limited := &io.LimitedReader{R: r, N: ipset.MaxFileBytes + 1}
	in := bufio.NewReaderSize(limited, ipset.MaxLineBytes)
	for {
		line, err := in.ReadSlice('\n')
		s.line++
		s.add(line, err == bufio.ErrBufferFull)
		for err == bufio.ErrBufferFull {
			_, err = in.ReadSlice('\n')
		}
		switch {
		case limited.N == 0:
			s.fail("the file is larger than %d bytes", ipset.MaxFileBytes)
		case len(s.patterns) > MaxEntries:
			s.fail("the file has more than %d names", MaxEntries)
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			s.fail("read the file: %v", err)
		default:
			if err := ipset.CheckUnchanged(r, before); err != nil {
				s.fail("%v", err)
			}
		}
		break
	}
	if s.more > 0 {
		s.errs = append(s.errs, ipset.LineError{File: file, Line: s.moreLine, Column: 1, Message: fmt.Sprintf("and %d more errors from here on", s.more)})
	}
	if len(s.errs) > 0 {
		return nil, s.errs
	}
	return New(s.patterns), nil
}

// setReader is the state of ReadSet.
type setReader struct {
	file     string
	line     int
	patterns []Pattern
	errs     []ipset.LineError
	more     int // errors past maxLineErrors
	moreLine int // where the first of them is
}

var byteOrderMark = []byte("\ufeff")

// add reads one line; cut tells that it is only the beginning of one.
func (s *setReader) add(line []byte, cut bool) {
	text := line
	if s.line == 1 {
		text = bytes.TrimPrefix(text, byteOrderMark)
	}
	if i := bytes.IndexByte(text, '#'); i >= 0 {
		text = text[:i]
	} else if cut {
		s.report(line, nil, fmt.Sprintf("the line is longer than %d bytes", ipset.MaxLineBytes))
		return
	}
	first, rest := nextField(text)
	switch {
	case len(first) == 0:
	case len(rest) == 0:
		s.addPattern(line, first)
	default:
		s.addHosts(line, first, rest)
	}
}

// addPattern reads one pattern, a part of line.
func (s *setReader) addPattern(line, text []byte) {
	p, err := Parse(string(text))
	if err != nil {
		s.report(line, text, err.Error())
		return
	}
	s.patterns = append(s.patterns, p)
}

// addHosts reads a line of a hosts file. Some lists begin like the hosts file of
// a machine, where names such as 0.0.0.0 stand for themselves.
func (s *setReader) addHosts(line, address, rest []byte) {
	if _, err := netip.ParseAddr(string(address)); err != nil {
		s.report(line, rest, fmt.Sprintf("%s follows a name; write one name a line, and # before a comment", quote(string(bytes.TrimRight(rest, " \t\r\n")))))
		return
	}
	for {
		var name []byte
		if name, rest = nextField(rest); len(name) == 0 {
			return
		}
		if !bytes.Equal(name, address) {
			s.addPattern(line, name)
		}
	}
}

// nextField cuts the first field off text, and the spaces around it.
func nextField(text []byte) (field, rest []byte) {
	start := 0
	for start < len(text) && isSpace(text[start]) {
		start++
	}
	end := start
	for end < len(text) && !isSpace(text[end]) {
		end++
	}
	next := end
	for next < len(text) && isSpace(text[next]) {
		next++
	}
	return text[start:end], text[next:]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// report keeps an error at the place of text, a part of line.
func (s *setReader) report(line, text []byte, message string) {
	if len(s.errs) >= maxLineErrors {
		if s.more++; s.more == 1 {
			s.moreLine = s.line
		}
		return
	}
	column := 1
	if text != nil {
		before := line[:cap(line)-cap(text)]
		column += utf8.RuneCount(bytes.TrimPrefix(before, byteOrderMark))
	}
	s.errs = append(s.errs, ipset.LineError{File: s.file, Line: s.line, Column: column, Message: message})
}

// fail reports what ends the reading of the whole file.
func (s *setReader) fail(format string, args ...any) {
	s.errs = append(s.errs, ipset.LineError{File: s.file, Message: fmt.Sprintf(format, args...)})
}

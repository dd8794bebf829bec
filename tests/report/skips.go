package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// skip is a line of the file of allowed skips: a test that may skip, where,
// and a part of the message that it must print when it does.
type skip struct {
	where   string // host, nobody, a kernel line, or any
	pkg     string // pattern of package paths below the module
	test    string // pattern of test names, * also matches all
	message string
}

var places = []string{"any", "host", "nobody", "6.1", "6.12"}

// parseSkips reads lines of "WHERE PACKAGE TEST MESSAGE..."; # begins a
// comment line. Errors name the file and the line.
func parseSkips(file, text string) ([]skip, error) {
	var skips []skip
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 4 {
			return nil, fmt.Errorf("%s:%d: want WHERE PACKAGE TEST MESSAGE", file, number)
		}
		if !slices.Contains(places, fields[0]) {
			return nil, fmt.Errorf("%s:%d: unknown place %q: want one of %s",
				file, number, fields[0], strings.Join(places, ", "))
		}
		for _, pattern := range fields[1:3] {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, fmt.Errorf("%s:%d: pattern %q: %w", file, number, pattern, err)
			}
		}
		skips = append(skips, skip{fields[0], fields[1], fields[2], strings.Join(fields[3:], " ")})
	}
	return skips, nil
}

// allows reports whether the line covers a test that skipped with an output.
func (s skip) allows(where, pkg, test, output string) bool {
	return (s.where == "any" || s.where == where) &&
		matches(s.pkg, pkg) && matches(s.test, test) &&
		strings.Contains(strings.Join(strings.Fields(output), " "), s.message)
}

// matches is path.Match, but a lone * matches slashes too.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return pattern == "*" || ok && err == nil
}

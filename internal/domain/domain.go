// Package domain reads and holds domain names and patterns of them, in the one
// form that egate compares: lower case, ASCII (internationalised names as
// A-labels), without a dot at the end. It stands before stage 1, as package
// ipset does for addresses, and needs no kernel and no privilege.
package domain

import (
	"slices"
	"strings"
)

// Limits of DNS (RFC 1035, 2.3.4).
const (
	MaxLabel = 63  // bytes of a label
	MaxName  = 253 // bytes of a name as text, without a dot at the end
)

// Pattern is one element of a list of domains: a name, or all names below it
// at any depth, but not the name itself.
type Pattern struct {
	Name  string
	Below bool // written "*.name"
}

func (p Pattern) String() string {
	if p.Below {
		return "*." + p.Name
	}
	return p.Name
}

// Matches tells whether a name in egate's form meets the pattern.
func (p Pattern) Matches(name string) bool {
	if p.Below {
		return len(name) > len(p.Name)+1 && strings.HasSuffix(name, p.Name) && name[len(name)-len(p.Name)-1] == '.'
	}
	return name == p.Name
}

// Set is an immutable list of patterns, sorted by name, without duplicates.
type Set struct {
	patterns []Pattern
}

// New makes a set of patterns in any order. It takes the slice over.
func New(patterns []Pattern) *Set {
	slices.SortFunc(patterns, compare)
	return &Set{slices.Clip(slices.Compact(patterns))}
}

func compare(a, b Pattern) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 || a.Below == b.Below {
		return c
	}
	if b.Below {
		return -1
	}
	return 1
}

// Patterns lists them in order. The caller must not change the slice.
func (s *Set) Patterns() []Pattern { return s.patterns }

// Len is how many there are.
func (s *Set) Len() int { return len(s.patterns) }

// Equal tells whether both match the same names in the same words.
func (s *Set) Equal(o *Set) bool { return slices.Equal(s.patterns, o.patterns) }

// Matches tells whether one of the patterns matches a name in egate's form.
func (s *Set) Matches(name string) bool {
	if s.has(Pattern{Name: name}) {
		return true
	}
	for {
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return false
		}
		name = name[dot+1:]
		if s.has(Pattern{Name: name, Below: true}) {
			return true
		}
	}
}

func (s *Set) has(p Pattern) bool {
	_, found := slices.BinarySearchFunc(s.patterns, p, compare)
	return found
}

package domain

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"egate/internal/ipset"
)

// Parse reads a pattern as people write it: a name, or "*." and a name, in any
// case, with or without a dot at the end, internationalised names in Unicode or
// as A-labels. Errors quote the text and say what to write instead.
func Parse(text string) (Pattern, error) {
	name, below := strings.CutPrefix(text, "*.")
	if ascii, ok := plain(name); ok {
		return Pattern{Name: ascii, Below: below}, nil
	}
	if problem := wildcardProblem(text, name); problem != "" {
		return Pattern{}, problemOf(text, problem)
	}
	name, problem := canonical(name)
	if problem != "" {
		return Pattern{}, problemOf(text, problem)
	}
	return Pattern{Name: name, Below: below}, nil
}

// ParseName reads one name as Parse does, and no patterns.
func ParseName(text string) (string, error) {
	if strings.Contains(text, "*") {
		return "", problemOf(text, "is a pattern; one name is wanted here")
	}
	if ascii, ok := plain(text); ok {
		return ascii, nil
	}
	name, problem := canonical(text)
	if problem != "" {
		return "", problemOf(text, problem)
	}
	return name, nil
}

func problemOf(text, problem string) error {
	return fmt.Errorf("%s %s", quote(text), problem)
}

func quote(text string) string { return ipset.Quote([]byte(text)) }

// nameAndBelow says how a name and all below it are written.
func nameAndBelow(name string) string {
	return fmt.Sprintf("%s for the names below it, and %s for the name itself", quote("*."+name), quote(name))
}

// plain is the short way for the names that nearly all are: ok tells that text
// is a name already but for the case of its letters and a dot at the end. Where
// it is not, canonical knows more.
func plain(text string) (name string, ok bool) {
	text = strings.TrimSuffix(text, ".")
	if len(text) == 0 || len(text) > MaxName {
		return "", false
	}
	label, lower, digits := 0, true, true
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label, digits = 0, true
			continue
		case c >= 'a' && c <= 'z' || c == '-' || c == '_':
			digits = false
		case c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z':
			lower, digits = false, false
		default:
			return "", false
		}
		if label++; label > MaxLabel {
			return "", false
		}
		if label == len(acePrefix) && strings.EqualFold(text[i+1-label:i+1], acePrefix) {
			return "", false
		}
	}
	if label == 0 || digits {
		return "", false
	}
	if !lower {
		text = strings.ToLower(text)
	}
	return text, true
}

// maxText bounds the text of a name, since what IDNA does to a label takes
// quadratic time. No name of as many runes is longer in UTF-8.
const maxText = utf8.UTFMax * MaxName

// acePrefix begins an A-label (RFC 5890).
const acePrefix = "xn--"

// dots are what IDNA takes for a dot between labels (UTS 46, 2.3).
var dots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// canonical brings a name into egate's form. A problem is a clause that follows
// the name's text.
func canonical(text string) (name, problem string) {
	switch {
	case text == "":
		return "", "is empty"
	case len(text) > maxText:
		return "", fmt.Sprintf("is longer than the %d bytes of a name", MaxName)
	}
	if problem := otherThing(text); problem != "" {
		return "", problem
	}
	name = strings.TrimSuffix(dots.Replace(text), ".")
	switch {
	case name == "":
		return "", "is the root of all names; write the names that you mean"
	case strings.HasPrefix(name, ".") && !strings.HasPrefix(name, ".."):
		return "", "begins with a dot; write " + nameAndBelow(name[1:])
	}
	labels := strings.Split(name, ".")
	for i, label := range labels {
		if labels[i], problem = canonicalLabel(label); problem != "" {
			return "", problem
		}
	}
	name = strings.Join(labels, ".")
	switch {
	case len(name) > MaxName:
		return "", fmt.Sprintf("is longer than the %d bytes of a name", MaxName)
	case isAddress(name):
		return "", "is an address and not a name; write it under addresses"
	case strings.Trim(labels[len(labels)-1], "0123456789") == "":
		return "", "ends in a number, as no name does"
	}
	return name, ""
}

// canonicalLabel brings one label into egate's form.
func canonicalLabel(label string) (out, problem string) {
	switch {
	case label == "":
		return "", "has an empty label: two dots in a row"
	case isASCII(label):
		label = strings.ToLower(label)
	default:
		ascii, err := idna.Lookup.ToASCII(label)
		if err != nil || !utf8.ValidString(label) {
			return "", fmt.Sprintf("has the label %s, which is no internationalised name", quote(label))
		}
		label = ascii
	}
	// Lists have A-labels of every version of IDNA, so it is enough that there is
	// some text in one that ASCII does not have.
	if strings.HasPrefix(label, acePrefix) {
		if text, err := idna.Punycode.ToUnicode(label); err != nil || isASCII(text) {
			return "", fmt.Sprintf("has the label %s, which begins as an internationalised name does but is none", quote(label))
		}
	}
	if label == "" {
		return "", "has an empty label"
	}
	for i := range len(label) {
		if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return "", fmt.Sprintf("has the character %q; a name has letters, digits, '-' and '_'", c)
		}
	}
	if len(label) > MaxLabel {
		return "", fmt.Sprintf("has a label longer than %d bytes", MaxLabel)
	}
	return label, ""
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// wildcardProblem tells what is wrong with the use of '*'; name is text behind
// its leading "*.", if it has one.
func wildcardProblem(text, name string) string {
	switch {
	case strings.Trim(text, "*.") == "" && strings.Contains(text, "*"):
		return "would be every name; leave domains out, for rules without them match whatever the name"
	case !strings.Contains(name, "*"):
		return ""
	case strings.HasPrefix(text, "**."):
		return fmt.Sprintf("has two '*'; %s is every name below already, at any depth", quote(text[1:]))
	case strings.HasPrefix(text, "*") && strings.Count(text, "*") == 1:
		return "has a '*' that is not a label by itself; write " + nameAndBelow(text[1:])
	}
	return `has a '*' elsewhere than at the beginning; "*.NAME", the names below NAME, is the only pattern`
}

var (
	urlText  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://([^/@\[\]]*@)?([^/:@\[\]]+)`)
	portText = regexp.MustCompile(`^([^:/]+):([0-9]+)$`)
	pathText = regexp.MustCompile(`^([^:/]+\.[^:/]+)/`)
	filter   = regexp.MustCompile(`^\|\|([^/|^]+)\^`)
)

// otherThing recognises what people take for a name.
func otherThing(text string) string {
	switch {
	case isAddress(text):
		return "is an address and not a name; write it under addresses"
	case urlText.MatchString(text):
		return fmt.Sprintf("is a URL; write the name in it alone, %s", quote(urlText.FindStringSubmatch(text)[2]))
	case portText.MatchString(text):
		m := portText.FindStringSubmatch(text)
		return fmt.Sprintf("has a port; write %s here and the port in ports", quote(m[1]))
	case pathText.MatchString(text):
		return fmt.Sprintf("has a path; write the name alone, %s", quote(pathText.FindStringSubmatch(text)[1]))
	case filter.MatchString(text):
		return "is a filter of a web browser; write " + nameAndBelow(filter.FindStringSubmatch(text)[1])
	}
	return ""
}

// isAddress tells whether text is an address or prefix, also in brackets.
func isAddress(text string) bool {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(text)
	return err == nil
}

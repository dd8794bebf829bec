package policy

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"egate/internal/ipset"
)

// values is one mapping of the file, checked against its object: known keys,
// each once, with values of the right kind. Values that are not are left out,
// and have been reported; so are elements of lists.
type values struct {
	node  *yaml.Node
	value map[string]*yaml.Node
	list  map[string][]*yaml.Node
}

// first is the mapping's first key.
func (v values) first() *yaml.Node {
	if len(v.node.Content) > 0 {
		return v.node.Content[0]
	}
	return v.node
}

// read checks a mapping against its object; label is what messages call it.
func (r *reader) read(n *yaml.Node, o *object, label string) values {
	v := values{n, map[string]*yaml.Node{}, map[string][]*yaml.Node{}}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		keyNode, value := n.Content[i], n.Content[i+1]
		name, ok := r.keyName(keyNode, seen)
		if !ok {
			continue
		}
		k := o.find(name)
		switch {
		case k == nil && o.elsewhere[name] != "":
			r.errorAt(keyNode, "unknown key %q in %s: %s", name, label, o.elsewhere[name])
		case k == nil && laterKeys[name]:
			r.errorAt(keyNode, "unknown key %q in %s: this version of egate has no such key%s", name, label, nearClause(name, o.names()))
		case k == nil:
			r.errorAt(keyNode, "unknown key %s in %s%s", quote(name), label, r.didYouMean(name, o.names()))
		case r.fits(keyNode, value, name, &k.shape):
			v.value[name] = value
			if k.shape.kind == list {
				v.list[name] = r.items(value, name, k.shape.of)
			}
		}
	}
	r.checkPresence(v, seen, o, label)
	return v
}

// keyName gives a key's text, unless it is none or was there before.
func (r *reader) keyName(n *yaml.Node, seen map[string]*yaml.Node) (string, bool) {
	switch {
	case n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0:
		return "", false // reported by checkPlain
	case n.Kind != yaml.ScalarNode:
		r.errorAt(n, "a key must be text, found %s", found(n))
		return "", false
	}
	if before, ok := seen[n.Value]; ok {
		r.errorAt(n, "duplicate key %s; it is at line %d already", quote(n.Value), r.pos(before).Line)
		return "", false
	}
	seen[n.Value] = n
	return n.Value, true
}

func (r *reader) checkPresence(v values, seen map[string]*yaml.Node, o *object, label string) {
	for _, k := range o.keys {
		if k.required && seen[k.name] == nil {
			r.errorAt(v.first(), "%s has no %s, which it needs, such as %q", label, k.name, k.example)
		}
	}
	if o.nonEmpty && len(v.node.Content) == 0 {
		r.errorAt(v.node, "%s is empty; leave it out to match everything", label)
	}
	var given []string
	for _, name := range o.exactlyOne {
		if seen[name] != nil {
			given = append(given, name)
		}
	}
	switch {
	case len(o.exactlyOne) == 0 || len(given) == 1:
	case len(given) == 0:
		r.errorAt(v.first(), "%s needs %s", label, orList(o.exactlyOne))
	default:
		r.errorAt(v.first(), "%s needs only one of %s", label, strings.Join(given, " and "))
	}
}

// fits tells whether a value is what its shape asks for, as far as YAML's
// types go, and reports it if not. after is the node before the value, where
// an absent value is reported.
func (r *reader) fits(after, n *yaml.Node, name string, s *shape) bool {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return false // reported by checkPlain
	}
	ok := false
	switch s.kind {
	case list:
		ok = n.Kind == yaml.SequenceNode
	case section, named:
		ok = n.Kind == yaml.MappingNode
	case scalar:
		ok = n.Kind == yaml.ScalarNode && s.fitsScalar(n)
	}
	switch {
	case !ok && n.Kind == yaml.ScalarNode && n.Value == "" && n.ShortTag() == "!!null":
		r.errorAt(after, "%s has no value; it wants %s", name, s.what)
	case !ok:
		r.errorAt(n, "%s wants %s, found %s%s", name, s.what, found(n), s.hint(n))
	case s.kind == list && len(n.Content) == 0 && r.streams[n] == nil:
		r.errorAt(n, "%s is an empty list; leave the key out instead", name)
		return false
	}
	return ok
}

// fitsScalar looks at the type that YAML gives the text only; what the text
// says is for the readers of each key.
func (s *shape) fitsScalar(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str":
		return s.pattern != "" || len(s.words) > 0
	case "!!int", "!!float": // 08 is a float to YAML
		return s.number || s.explains
	case "!!bool":
		return s.boolean
	}
	return false
}

// hint says how the value could have been meant.
func (s *shape) hint(n *yaml.Node) string {
	switch {
	case s.kind == list && n.Kind == yaml.ScalarNode && n.Style == 0:
		return fmt.Sprintf("; write [%s]", shorten(n.Value))
	case s.kind == scalar && n.Kind == yaml.ScalarNode && s.like != nil && s.like.MatchString(n.Value):
		return fmt.Sprintf("; write \"%s\" in quotes", n.Value)
	case s.kind == scalar && s.boolean && n.Kind == yaml.ScalarNode:
		return meantBoolean(n.Value)
	case s.kind == scalar && n.Kind == yaml.MappingNode && s.what == addressShape.what:
		return "; an address that begins or ends with a colon needs quotes"
	}
	return ""
}

// found names what a node is.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
	default:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + shorten(n.Value)
	case "!!bool":
		return shorten(n.Value)
	case "!!timestamp":
		return "the date " + shorten(n.Value)
	case "!!merge":
		return "a merge key"
	}
	return "the text " + quote(n.Value)
}

// items gives the elements of a list that have the right kind.
func (r *reader) items(n *yaml.Node, name string, s *shape) (out []*yaml.Node) {
	for _, c := range n.Content {
		if r.fits(c, c, "an element of "+name, s) {
			out = append(out, c)
		}
	}
	return out
}

// word reads a value that is one of the key's words; "" if it is none.
func (r *reader) word(v values, o *object, name string) string {
	n := v.value[name]
	if n == nil {
		return ""
	}
	words := o.find(name).shape.words
	for _, w := range words {
		if n.Value == w {
			return w
		}
	}
	r.errorAt(n, "unknown %s %s%s", name, quote(n.Value),
		cmp.Or(meantWord(n.Value, actionsElsewhere, words), r.didYouMean(n.Value, words)))
	return ""
}

// number reads a whole number within the key's bounds.
func (r *reader) number(v values, o *object, name string) (int, bool) {
	n := v.value[name]
	if n == nil {
		return 0, false
	}
	s := o.find(name).shape
	i, ok := decimal(n.Value, s.max)
	switch {
	case ok && i >= s.min:
		return i, true
	case s.min == s.max:
		r.errorAt(n, "%s wants %d, which is all that this version of egate reads, found %s", name, s.min, shorten(n.Value))
	default:
		r.errorAt(n, "%s wants a whole number from %d to %d, found %s", name, s.min, s.max, shorten(n.Value))
	}
	return 0, false
}

// decimal reads digits without a sign, separators or leading zeros.
func decimal(text string, most int) (int, bool) {
	if len(text) > 1 && text[0] == '0' || strings.TrimLeft(text, "0123456789") != "" {
		return 0, false
	}
	i, err := strconv.Atoi(text)
	return i, err == nil && i <= most
}

// boolean reads true or false.
func (r *reader) boolean(v values, name string, absent bool) bool {
	n := v.value[name]
	if n == nil {
		return absent
	}
	if n.Value != "true" && n.Value != "false" {
		r.errorAt(n, "%s wants true or false, found %s", name, shorten(n.Value))
	}
	return n.Value == "true"
}

// nearClause is a clause with the nearest of the words, or nothing.
func nearClause(word string, candidates []string) string {
	if n := nearest(word, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

func quote(s string) string { return ipset.Quote([]byte(s)) }

// shorten keeps messages to a line's length.
func shorten(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

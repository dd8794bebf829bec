package policy

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"egate/internal/ipset"
)

// namedSet is a set of the policy.
type namedSet struct {
	set  *ipset.Set // nil if it could not be read, which was reported
	used bool
}

// readSets reads `sets`.
func (r *reader) readSets(n *yaml.Node) {
	r.sets = map[string]*namedSet{}
	if n == nil {
		return
	}
	if len(n.Content) == 0 {
		r.errorAt(n, "sets is empty; leave the key out instead")
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, ok := r.keyName(key, seen)
		if !ok {
			continue
		}
		s := &namedSet{}
		r.sets[name] = s
		if r.fits(key, key, "the name of a set", &nameShape) {
			r.name(key, "the name of a set")
		}
		if r.fits(key, value, "set "+quote(name), policyKeys.find("sets").shape.of) {
			s.set = r.readSet(r.read(value, setKeys, "set "+quote(name)))
		}
	}
}

// readSet reads one set, from the policy or from its file.
func (r *reader) readSet(v values) *ipset.Set {
	if v.value["addresses"] != nil {
		if ranges, ok := r.elements(v, "addresses"); ok {
			return ipset.New(ranges)
		}
		return nil
	}
	n := v.value["file"]
	if n == nil {
		return nil
	}
	if n.Value == "" {
		r.errorAt(n, "file wants a path, found an empty text")
		return nil
	}
	if r.open == nil {
		r.errorAt(n, "set files cannot be read here; write the addresses into the policy")
		return nil
	}
	path := n.Value
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.file), path)
	}
	file, err := r.open(path)
	if err != nil {
		r.errorAt(n, "open set file %s: %s", quote(path), cause(err))
		return nil
	}
	defer file.Close()
	set, errs := ipset.ReadSet(file, path)
	for _, e := range errs {
		r.report(Pos{e.File, e.Line, e.Column}, Error, "%s", e.Message)
	}
	if set != nil && set.IsEmpty() {
		r.errorAt(n, "set file %s has no address in it", quote(path))
		return nil
	}
	return set
}

// elements reads a list of address elements; ok is false if one is wrong.
func (r *reader) elements(v values, name string) (ranges []ipset.Range, ok bool) {
	errorsBefore := r.errors
	for _, n := range v.list[name] {
		var err error
		if ranges, err = ipset.AppendElement(ranges, []byte(n.Value)); err != nil {
			r.errorAt(n, "%v%s", err, meantAddress(n.Value))
		}
	}
	return ranges, r.errors == errorsBefore
}

// addresses reads the address keys of `to` or `from`: (addresses ∩ sets) −
// except. It is nil where none is given, or where one is wrong.
func (r *reader) addresses(v values, o *object) *ipset.Set {
	addresses, okAddresses := r.elements(v, "addresses")
	except, okExcept := r.elements(v, "except")
	sets, okSets := r.setList(v)
	if !okAddresses || !okExcept || !okSets {
		return nil
	}
	var out *ipset.Set
	switch {
	case addresses != nil && sets != nil:
		if out = ipset.New(addresses).Intersect(sets); out.IsEmpty() {
			r.errorAt(v.value["sets"], "the rule can never match: %s has no address that is in both addresses and sets", o.name)
			return nil
		}
	case addresses != nil:
		out = ipset.New(addresses)
	case sets != nil:
		out = sets
	}
	if except == nil {
		return out
	}
	if out == nil {
		out = ipset.All4().Union(ipset.All6())
		r.warnOneFamily(v.value["except"], ipset.New(except))
	}
	if out = out.Subtract(ipset.New(except)); out.IsEmpty() {
		r.errorAt(v.value["except"], "the rule can never match: except takes out every address of %s", o.name)
		return nil
	}
	return out
}

// warnOneFamily reports an `except` that stands alone and forgets a family:
// "all but the office" then means all of the other family, office or not.
func (r *reader) warnOneFamily(n *yaml.Node, except *ipset.Set) {
	switch v4, v6 := families(except); {
	case !v6:
		r.warnAt(n, "except names no IPv6 address, so every IPv6 address matches")
	case !v4:
		r.warnAt(n, "except names no IPv4 address, so every IPv4 address matches")
	}
}

// setList reads `sets` of `to` or `from`: nil where it is not given, the set
// itself where it names one, else the union.
func (r *reader) setList(v values) (out *ipset.Set, ok bool) {
	ok = true
	var lists [][]ipset.Range
	nodes := v.list["sets"]
	for _, n := range nodes {
		s := r.sets[n.Value]
		switch {
		case s == nil:
			r.errorAt(n, "unknown set %s%s", quote(n.Value), r.unknownSet(n.Value))
			ok = false
			continue
		case s.set == nil:
			ok = false
		case len(nodes) == 1:
			out = s.set
		default:
			lists = append(lists, s.set.Ranges())
		}
		s.used = true
	}
	if len(nodes) > 1 && ok {
		out = ipset.New(slices.Concat(lists...))
	}
	return out, ok
}

func (r *reader) unknownSet(name string) string {
	if len(r.sets) == 0 {
		return "; the policy has no sets"
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(r.sets)), func(s string) bool {
		return strings.ContainsFunc(s, notInName) // refused where it stands
	})
	return r.didYouMean(name, names)
}

// warnUnusedSets reports sets that no rule names.
func (r *reader) warnUnusedSets(n *yaml.Node) {
	if n == nil || r.errors > 0 {
		return // a rule that could not be read may use it
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; !r.sets[key.Value].used {
			r.warnAt(key, "set %s is not used by any rule", key.Value)
		}
	}
}

package policy

import (
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"egate/internal/domain"
	"egate/internal/ipset"
)

// setKind is what a set has elements of.
type setKind uint8

const (
	unknownSet setKind = iota // it could not be read
	addressSet
	domainSet
)

func (k setKind) String() string { return [...]string{"nothing", "addresses", "domains"}[k] }

// namedSet is a set of the policy.
type namedSet struct {
	kind      setKind
	addresses *ipset.Set  // nil if there are none, or they could not be read, which was reported
	domains   *domain.Set // so too
	used      bool
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
			r.readSet(s, r.read(value, setKeys, "set "+quote(name)))
		}
	}
}

// readSet reads one set, from the policy or from its file.
func (r *reader) readSet(s *namedSet, v values) {
	switch given(v, setKeys.exactlyOne...) {
	case "addresses":
		s.kind = addressSet
		if ranges, ok := r.elements(v, "addresses"); ok {
			s.addresses = ipset.New(ranges)
		}
	case "file":
		s.kind = addressSet
		s.addresses = r.readAddressFile(v.value["file"])
	case "domains":
		s.kind = domainSet
		s.domains = r.domainList(v)
	case "domain_file":
		s.kind = domainSet
		s.domains = r.readDomainFile(v.value["domain_file"])
	}
}

// readAddressFile reads the file of a set of addresses; nil where it cannot be
// used, which was reported.
func (r *reader) readAddressFile(n *yaml.Node) *ipset.Set {
	file, path := r.openBeside(n, "file", "set file", "addresses")
	if file == nil {
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

// openBeside opens the file that the value of a key names, nil where it cannot,
// which was reported. The path is relative to the policy's folder.
func (r *reader) openBeside(n *yaml.Node, key, what, content string) (io.ReadCloser, string) {
	if n.Value == "" {
		r.errorAt(n, "%s wants a path, found an empty text", key)
		return nil, ""
	}
	if r.open == nil {
		r.errorAt(n, "%ss cannot be read here; write the %s into the policy", what, content)
		return nil, ""
	}
	path := n.Value
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.file), path)
	}
	file, err := r.open(path)
	if err != nil {
		r.errorAt(n, "open %s %s: %s", what, quote(path), cause(err))
		return nil, ""
	}
	return file, path
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
func (r *reader) addresses(v values, o *object, chosen chosenSets) *ipset.Set {
	addresses, okAddresses := r.elements(v, "addresses")
	except, okExcept := r.elements(v, "except")
	if !okAddresses || !okExcept || !chosen.ok {
		return nil
	}
	sets := chosen.addresses
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

// chosenSets is what `sets` of `to` or `from` stands for: where it names one
// set, that itself, else the union. Sets are of one kind.
type chosenSets struct {
	kind      setKind
	addresses *ipset.Set
	domains   *domain.Set
	ok        bool // all of them could be read
}

// setList reads `sets` of `to` or `from`.
func (r *reader) setList(v values, o *object) chosenSets {
	out := chosenSets{ok: true}
	var ranges [][]ipset.Range
	var domains []*domain.Set
	var names []string
	for _, n := range v.list["sets"] {
		s := r.sets[n.Value]
		if s == nil {
			r.errorAt(n, "unknown set %s%s", quote(n.Value), r.unknownSet(n.Value))
			out.ok = false
			continue
		}
		s.used = true
		switch {
		case s.kind == domainSet && o == fromKeys:
			r.errorAt(n, "set %s has domains, and a source is known by its address only", quote(n.Value))
			out.ok = false
		case out.kind == unknownSet:
			out.kind = s.kind
		case s.kind != unknownSet && s.kind != out.kind:
			r.errorAt(n, "set %s has %s, and those before it have %s; write two rules", quote(n.Value), s.kind, out.kind)
			out.ok = false
		}
		switch {
		case s.addresses != nil:
			out.addresses = s.addresses
			ranges = append(ranges, s.addresses.Ranges())
		case s.domains != nil:
			out.domains = s.domains
			domains, names = append(domains, s.domains), append(names, n.Value)
		default:
			out.ok = false
		}
	}
	switch {
	case !out.ok:
		return chosenSets{kind: out.kind}
	case len(ranges) > 1:
		out.addresses = ipset.New(slices.Concat(ranges...))
	case len(domains) > 1:
		out.domains = r.joinDomains(names, domains)
	}
	return out
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

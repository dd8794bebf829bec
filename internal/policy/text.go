package policy

import (
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"egate/internal/verdict"
)

// Linux keeps interface names in 16 bytes, the last of them zero.
const (
	maxInterfaceName    = 15
	maxInterfacePattern = 63
)

// name checks the name of a policy, a set or a rule; "" where it is absent.
func (r *reader) name(n *yaml.Node, what string) string {
	if n == nil {
		return ""
	}
	switch {
	case n.Value == "":
		r.errorAt(n, "%s is empty; leave the key out instead", what)
	case len(n.Value) > MaxNameLength:
		r.errorAt(n, "%s %s is longer than %d bytes", what, quote(n.Value), MaxNameLength)
	case strings.ContainsFunc(n.Value, notInName):
		r.errorAt(n, "%s %s has a character other than letters, digits, '.', '_' and '-'", what, quote(n.Value))
	}
	return n.Value
}

func notInName(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
}

// interfaces reads `interfaces`.
func (r *reader) interfaces(v values) []string {
	if v.value["interfaces"] == nil {
		return []string{"default"}
	}
	var out []string
	for _, n := range v.list["interfaces"] {
		if problem := interfaceProblem(n.Value); problem != "" {
			r.errorAt(n, "interface %s %s", quote(n.Value), problem)
		} else if slices.Contains(out, n.Value) {
			r.warnAt(n, "interface %s is listed twice", n.Value)
			continue
		}
		out = append(out, n.Value)
	}
	return out
}

// interfaceProblem tells what keeps text from being a name or pattern, by the
// kernel's rules for names and those of path.Match for patterns.
func interfaceProblem(text string) string {
	isPattern := strings.ContainsAny(text, "*?[]")
	switch {
	case text == "":
		return "is empty"
	case text == "." || text == "..":
		return "is a name that the kernel refuses"
	case strings.ContainsAny(text, "/:\\") || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f || c == 0xa0 }):
		return `has a space, '/', ':' or '\', which no interface name has`
	case !isPattern && len(text) > maxInterfaceName:
		return "is longer than the 15 bytes of an interface name"
	case len(text) > maxInterfacePattern:
		return "is longer than the 63 bytes of a pattern"
	}
	if _, err := path.Match(text, "x"); err != nil {
		return "is not a pattern; it wants *, ? or a closed [...]"
	}
	return ""
}

// events reads an event rate; without one it follows from what happens to the
// packet.
func (r *reader) events(n *yaml.Node, a verdict.Action) EventRate {
	if n == nil {
		if a == verdict.Drop || a == verdict.Reject {
			return DefaultEvents
		}
		return NoEvents
	}
	rate, ok := parseEvents(n.Value)
	if !ok {
		r.errorAt(n, "events wants none, all or a rate such as 10/s, 5/m or 1/h, from 1 to %d, found %s", maxEvents, quote(n.Value))
	}
	return rate
}

// maxEvents bounds the number of a rate.
const maxEvents = 1_000_000

func parseEvents(text string) (EventRate, bool) {
	switch text {
	case "none":
		return NoEvents, true
	case "all":
		return AllEvents, true
	}
	return parseRate(text)
}

// parseRate reads a number a second, minute or hour.
func parseRate(text string) (EventRate, bool) {
	count, unit, _ := strings.Cut(text, "/")
	every := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, ok := decimal(count, maxEvents)
	if !ok || n == 0 || every == 0 {
		return EventRate{}, false
	}
	return EventRate{Interval: every / time.Duration(n), Burst: uint32(n)}, true
}

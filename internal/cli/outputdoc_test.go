package cli

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"egate/internal/datapath"
)

// docs/OUTPUT.md is the contract of -o json: it names every field.
func TestOutputIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/OUTPUT.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		head, body, _ := strings.Cut(section, "\n")
		sections[head] = body
	}
	for head, value := range map[string]any{
		"status":  StatusReport{},
		"explain": Explanation{},
		"check":   CheckReport{},
		"doctor":  DoctorReport{},
		"version": VersionReport{},
	} {
		body, ok := sections[head]
		if !ok {
			t.Errorf("docs/OUTPUT.md has no section %q", head)
			continue
		}
		for name := range fieldNames(reflect.TypeOf(value), map[reflect.Type]bool{}) {
			if !strings.Contains(body, "`"+name+"`") {
				t.Errorf("docs/OUTPUT.md, section %s: no `%s`", head, name)
			}
		}
	}
	for _, o := range datapath.Outcomes() {
		if !strings.Contains(sections["status"], "`"+o.Outcome+"`") {
			t.Errorf("docs/OUTPUT.md, section status: no `%s`", o.Outcome)
		}
	}
	for _, r := range refusals {
		if !strings.Contains(sections["status"], "`"+r.String()+"`") {
			t.Errorf("docs/OUTPUT.md, section status: no `%v`", r)
		}
	}
	for _, e := range append(namedEvents(), tcpEvent(), pingEvent()) {
		var keys map[string]any
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &keys); err != nil {
			t.Fatal(err)
		}
		for name := range keys {
			if !strings.Contains(sections["events"], "`"+name+"`") {
				t.Errorf("docs/OUTPUT.md, section events: no `%s`", name)
			}
		}
	}
}

// fieldNames is every JSON key that a value of the type can have.
func fieldNames(t reflect.Type, seen map[reflect.Type]bool) map[string]bool {
	names := map[string]bool{}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return fieldNames(t.Elem(), seen)
	case reflect.Struct:
	default:
		return names
	}
	if seen[t] || t == reflect.TypeFor[time.Time]() {
		return names
	}
	seen[t] = true
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name != "" {
			names[name] = true
		}
		for inner := range fieldNames(f.Type, seen) {
			names[inner] = true
		}
	}
	return names
}

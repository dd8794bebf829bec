package policy

import (
	"bytes"
	"encoding/json"
	"strings"
)

//go:generate go run ./gen ../../docs

// Schema is the JSON Schema (draft 2020-12) of policy files, for editors and
// generators. It accepts all that Parse accepts; Parse refuses more, where
// values contradict each other.
func Schema() []byte {
	definitions := map[string]any{}
	for _, o := range objects[1:] {
		definitions[o.name] = o.schema()
	}
	root := objects[0].schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "egate policy"
	root["$defs"] = definitions

	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		panic(err) // maps of strings, numbers and lists always encode
	}
	return out.Bytes()
}

func (o *object) schema() map[string]any {
	properties := map[string]any{}
	required := []string{}
	for _, k := range o.keys {
		s := k.shape.schema()
		s["description"] = strings.ReplaceAll(k.doc, "`", "")
		if k.absent != "" {
			s["description"] = s["description"].(string) + " If absent: " + strings.ReplaceAll(k.absent, "`", "") + "."
		}
		properties[k.name] = s
		if k.required {
			required = append(required, k.name)
		}
	}
	out := map[string]any{
		"type":                 "object",
		"description":          strings.ReplaceAll(o.doc, "`", ""),
		"properties":           properties,
		"additionalProperties": false,
	}
	if len(required) > 0 {
		out["required"] = required
	}
	if o.nonEmpty {
		out["minProperties"] = 1
	}
	if len(o.apart) > 0 {
		out["not"] = map[string]any{"required": o.apart}
	}
	for _, name := range o.exactlyOne {
		one, _ := out["oneOf"].([]any)
		out["oneOf"] = append(one, map[string]any{"required": []string{name}})
	}
	return out
}

func (s *shape) schema() map[string]any {
	switch s.kind {
	case section:
		return map[string]any{"$ref": "#/$defs/" + s.object.name}
	case named:
		return map[string]any{
			"type":                 "object",
			"minProperties":        1,
			"propertyNames":        map[string]any{"pattern": namePattern},
			"additionalProperties": s.of.schema(),
		}
	case list:
		out := map[string]any{"type": "array", "minItems": 1, "items": s.of.schema()}
		if s.maxItems > 0 {
			out["maxItems"] = s.maxItems
		}
		return out
	}
	var forms []any
	if s.boolean {
		forms = append(forms, map[string]any{"type": "boolean"})
	}
	if s.number {
		forms = append(forms, map[string]any{"type": "integer", "minimum": s.min, "maximum": s.max})
	}
	if len(s.words) > 0 {
		forms = append(forms, map[string]any{"enum": s.words})
	}
	if s.pattern != "" {
		forms = append(forms, map[string]any{"type": "string", "pattern": s.pattern})
	}
	if len(forms) == 1 {
		return forms[0].(map[string]any)
	}
	return map[string]any{"anyOf": forms}
}

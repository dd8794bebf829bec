package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// value is YAML as JSON's types.
func value(text string) (any, error) {
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return nil, err
	}
	j, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(j))
}

func TestSchemaAcceptsExamples(t *testing.T) {
	schema := compiledSchema(t)
	files, _ := filepath.Glob("../../examples/*.yaml")
	if len(files) == 0 {
		t.Fatal("no examples")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := value(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestSchemaAndReaderAgree: the schema refuses what the table of problems says
// it can see, and accepts whatever the reader accepts.
func TestSchemaAndReaderAgree(t *testing.T) {
	schema := compiledSchema(t)
	for _, tt := range slices.Concat(keyProblems, typeProblems, valueProblems, matchProblems, setProblems, meantProblems, domainProblems, dnsProblems) {
		v, err := value(tt.text)
		if err != nil {
			if tt.schema {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		err = schema.Validate(v)
		if p, _ := Parse("p.yaml", []byte(tt.text), setFiles(testSetFiles)); p != nil && err != nil {
			t.Errorf("%s: the reader accepts it, the schema does not: %v", tt.name, err)
		}
		if tt.schema && err == nil {
			t.Errorf("%s: the schema accepts it", tt.name)
		}
	}
}

// TestExamplesOfKeys: the example of each key in the reference is policy text
// that the reader accepts at its place.
func TestExamplesOfKeys(t *testing.T) {
	frames := map[*object]string{
		policyKeys: "KEY",
		setKeys:    "sets:\n  a:\n    KEY",
		chainKeys:  "egress:\n  KEY",
		ruleKeys:   "egress:\n  default: drop\n  rules:\n  - KEY",
		toKeys:     "egress:\n  default: drop\n  rules:\n  - action: drop\n    to:\n      KEY",
		fromKeys:   "egress:\n  default: drop\n  rules:\n  - action: drop\n    from:\n      KEY",
		dnsKeys:    "dns:\n  KEY",
		flowsKeys:  "flows:\n  KEY",
	}
	for _, o := range objects {
		for _, k := range o.keys {
			frame := frames[o]
			if o != policyKeys || k.name != "version" {
				frame = "version: 1\n" + frame
			}
			last := frame[strings.LastIndex(frame, "\n")+1:]
			indent := strings.Repeat(" ", strings.Index(last, "KEY"))
			if o == ruleKeys && (k.name == "verify" || k.name == "ech" || k.name == "quic") {
				frame = strings.Replace(frame, "KEY", "action: allow\n    to: {domains: [a.example]}\n    KEY", 1)
			}
			text := strings.Replace(frame, "KEY", strings.ReplaceAll(k.example, "\n", "\n"+indent), 1)
			for _, other := range o.keys {
				if other.required && other.name != k.name && o != policyKeys && !strings.Contains(text, other.name+":") {
					text += "\n" + indent + other.example
				}
			}
			text += "\n"
			if strings.Contains(k.example, "sets: [") {
				text += "sets: {threats: {addresses: [192.0.2.0/24]}}\n"
			}
			open := setFiles(map[string]string{"threats.txt": "192.0.2.0/24\n", "names.txt": "a.example\n"})
			if _, problems := Parse("p.yaml", []byte(text), open); problems.HasErrors() {
				t.Errorf("%s of %s:\n%s\n%v", k.name, o.name, text, problems)
			}
			if !strings.HasPrefix(k.example, k.name+":") || k.doc == "" {
				t.Errorf("%s of %s: example %q, doc %q", k.name, o.name, k.example, k.doc)
			}
		}
	}
}

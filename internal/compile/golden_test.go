package compile

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"egate/internal/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every testdata/NAME.yaml compiles to the tables in NAME.tables, its warnings
// behind them. The examples are compiled too, so that none of them warns.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden := strings.TrimSuffix(file, ".yaml") + ".tables"
			got := dumpFile(t, file)
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("tables differ from %s (go test -update writes it anew); got\n%s", golden, got)
			}
		})
	}
}

func dumpFile(t *testing.T, file string) []byte {
	t.Helper()
	p, problems := policy.Load(file)
	if p == nil {
		t.Fatal(problems)
	}
	set, warnings, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := set.Dump(&out); err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		out.WriteString("\n" + filepath.Base(w.Pos.File) + strings.TrimPrefix(w.String(), w.Pos.File) + "\n")
	}
	return out.Bytes()
}

func TestExamplesCompileWithoutWarnings(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			p, problems := policy.Load(file)
			if p == nil || len(problems) > 0 {
				t.Fatal(problems)
			}
			if _, warnings, err := Compile(p); err != nil || len(warnings) > 0 {
				t.Errorf("warnings %v, error %v", warnings, err)
			}
		})
	}
}

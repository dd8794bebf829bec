package policy

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"

	"egate/internal/domain"
	"egate/internal/ipset"
	"egate/internal/verdict"
)

// FuzzParse: no panic; the same text gives the same model and problems; every
// problem has a place inside its file; and a policy that is accepted keeps the
// promises of the model.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("find examples: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, tt := range slices.Concat(textProblems, keyProblems, typeProblems, valueProblems, matchProblems, setProblems, meantProblems, domainProblems, dnsProblems) {
		if len(tt.text) < 4096 {
			f.Add([]byte(tt.text))
		}
	}
	open := setFiles(testSetFiles)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, problems := Parse("p.yaml", text, open)
		again, problemsAgain := Parse("p.yaml", text, open)
		if !reflect.DeepEqual(p, again) || !slices.Equal(problems, problemsAgain) {
			t.Fatalf("parsed twice: %v, %v and %v, %v", p, problems, again, problemsAgain)
		}
		for _, cut := range cuts {
			pieces, problemsOfPieces := parse("p.yaml", text, open, cut)
			if !reflect.DeepEqual(p, pieces) || !slices.Equal(problems, problemsOfPieces) {
				t.Fatalf("read in pieces of %d: %v, %v; as one: %v, %v", cut.length, pieces, problemsOfPieces, p, problems)
			}
		}
		if (p == nil) != problems.HasErrors() {
			t.Fatalf("policy %v beside %v", p, problems)
		}
		for _, problem := range problems {
			checkPlace(t, problem, text)
		}
		if p != nil {
			checkModel(t, p)
		}
	})
}

func checkPlace(t *testing.T, p Problem, text []byte) {
	switch p.Pos.File {
	case "p.yaml":
	case "bad.txt", "bad-names.txt":
		return
	default:
		t.Fatalf("problem in no file: %v", p)
	}
	lines := bytes.Split(text, []byte("\n"))
	if p.Pos.Line < 1 || p.Pos.Line > len(lines) || p.Pos.Column < 1 || p.Pos.Column > 1+utf8.RuneCount(lines[p.Pos.Line-1]) {
		t.Fatalf("%v is outside of the file", p)
	}
	if p.Message == "" || !utf8.ValidString(p.Message) || bytes.ContainsAny([]byte(p.Message), "\n\r\x1b") {
		t.Fatalf("message %q does not fit a line", p.Message)
	}
}

func checkModel(t *testing.T, p *Policy) {
	if len(p.Interfaces) == 0 || p.MaxFlows < MinFlows || p.MaxFlows > MaxFlows || len(p.Name) > MaxNameLength {
		t.Fatalf("policy %+v", p)
	}
	checkDNS(t, &p.DNS)
	for d, c := range p.Chains {
		if !c.Default.Decides() || len(c.Rules) > MaxRules {
			t.Fatalf("chain %+v", c)
		}
		for _, r := range c.Rules {
			if r.Action > verdict.Continue || len(r.Name) > MaxNameLength || r.Pos.Line < 1 {
				t.Fatalf("rule %+v", r)
			}
			for _, s := range []*ipset.Set{r.To, r.From} {
				if s != nil && s.IsEmpty() {
					t.Fatalf("rule %+v asks for no address", r)
				}
			}
			switch verifies := r.Verify != VerifyNone || r.DropECH || r.DropQUIC; {
			case r.Domains == nil && verifies, verifies && r.Action != verdict.Allow:
				t.Fatalf("rule %+v verifies what does not begin", r)
			case r.Domains != nil && (r.Domains.Len() == 0 || verdict.Direction(d) != verdict.Egress):
				t.Fatalf("rule %+v has domains", r)
			}
			for _, services := range [][]Service{r.Services, r.SourcePorts} {
				if services != nil && len(services) == 0 {
					t.Fatalf("rule %+v asks for no service", r)
				}
				for i, s := range services {
					if s.First > s.Last || s.Whole && s.Last != 0 {
						t.Fatalf("service %+v", s)
					}
					if i > 0 && !(services[i-1].Proto < s.Proto || services[i-1].Proto == s.Proto && !s.Whole && int(services[i-1].Last)+1 < int(s.First)) {
						t.Fatalf("services %+v are not merged", services)
					}
				}
			}
		}
	}
}

func checkDNS(t *testing.T, d *DNS) {
	switch {
	case d.MaxLabel < 1 || d.MaxLabel > domain.MaxLabel,
		!slices.IsSortedFunc(d.Servers, netip.Addr.Compare), len(slices.Compact(slices.Clone(d.Servers))) != len(d.Servers),
		!slices.IsSorted(d.Types), len(slices.Compact(slices.Clone(d.Types))) != len(d.Types),
		d.NXDomain && !d.ListedOnly,
		d.Elsewhere == verdict.Continue,
		!d.Given && (d.Servers != nil || d.Types != nil || d.ListedOnly || d.Rate != EventRate{} || d.Elsewhere != verdict.Allow):
		t.Fatalf("dns %+v", d)
	}
}

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"egate/internal/cli/table"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// CheckReport is `check -o json`.
type CheckReport struct {
	File       string         `json:"file"`
	OK         bool           `json:"ok"`
	Policy     string         `json:"policy,omitempty"`
	Mode       string         `json:"mode,omitempty"` // enforce or audit
	Interfaces []string       `json:"interfaces,omitempty"`
	Chains     []CheckedChain `json:"chains,omitempty"` // egress, ingress
	DNS        []string       `json:"dns,omitempty"`    // clauses: what becomes of DNS, where the policy reads it
	Problems   []ProblemEntry `json:"problems"`
	Sizes      *tables.Size   `json:"sizes,omitempty"` // with -v
}

// CheckedChain is one direction of a policy that was checked.
type CheckedChain struct {
	Direction    string   `json:"direction"`
	Default      string   `json:"default"`
	Rules        int      `json:"rules"`
	MergedTo     int      `json:"merged_to,omitempty"`     // how many are left where some were merged
	PassesAnyway []string `json:"passes_anyway,omitempty"` // under a default that is not allow
}

// ProblemEntry is one error or warning.
type ProblemEntry struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Severity string `json:"severity"` // error or warning
	Message  string `json:"message"`
}

func (a *app) checkCommand() *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:     "check FILE",
		Short:   "Check a policy file",
		GroupID: groupRead,
		Long: `check reads a policy file ("-" for standard input) and the set files it names, and
compiles it, as apply would. It prints every error at once as file:line:column, and
warnings about what is allowed but hardly meant, such as a rule that can never match.

Where a default is not allow, it also lists what passes all the same unless a rule
says otherwise, because a host without it has no network.

It needs no root, and looks at no interface.`,
		Example: `  egate check policy.yaml
  egate check -v policy.yaml       how large the tables are
  egate check -o json policy.yaml  for an editor or a CI job`,
		Args: arguments(1, 1, "one policy FILE"),
	}
	format := addOutput(c)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show how large the compiled tables are")
	c.RunE = func(_ *cobra.Command, args []string) error {
		s, err := a.readWithProgress(args[0])
		if err != nil {
			return err
		}
		if format.value == "json" {
			if err := a.printJSON(checkReport(s, verbose)); err != nil {
				return err
			}
			if s.policy == nil {
				return errReported
			}
			return nil
		}
		if err := a.printProblems(s, "apply would refuse it"); err != nil {
			return err
		}
		return a.printCheck(s, verbose)
	}
	return c
}

func checkReport(s *source, verbose bool) CheckReport {
	r := CheckReport{File: s.name, OK: s.policy != nil, Problems: []ProblemEntry{}}
	for _, p := range s.problems {
		r.Problems = append(r.Problems, ProblemEntry{
			File: p.Pos.File, Line: p.Pos.Line, Column: p.Pos.Column,
			Severity: p.Severity.String(), Message: p.Message,
		})
	}
	if s.policy == nil {
		return r
	}
	r.Policy, r.Mode, r.Interfaces = s.policy.Name, modeName(s.policy.Audit), s.policy.Interfaces
	for _, d := range verdict.Directions {
		c := &s.policy.Chains[d]
		checked := CheckedChain{
			Direction: d.String(), Default: c.Default.String(), Rules: len(c.Rules),
			PassesAnyway: s.policy.Exemptions(d),
		}
		if left := len(s.set.Chains[d].Rules); left < checked.Rules {
			checked.MergedTo = left
		}
		r.Chains = append(r.Chains, checked)
	}
	r.DNS = dnsClauses(&s.set.DNS)
	if verbose {
		size := s.set.Size()
		r.Sizes = &size
	}
	return r
}

func modeName(audit bool) string {
	if audit {
		return "audit"
	}
	return "enforce"
}

func (a *app) printCheck(s *source, verbose bool) error {
	width := a.width()
	fmt.Fprintln(a.stdout, table.Wrap("", fmt.Sprintf("%s: %s is good, with %s", s.name, policyTitle(s.policy.Name), rulesText(s.set)), width))
	fmt.Fprintln(a.stdout, table.Wrap("  ", fmt.Sprintf("interfaces %s, mode %s", list(s.policy.Interfaces), modeName(s.policy.Audit)), width))
	for _, d := range verdict.Directions {
		a.printCheckedChain(s, d, width)
	}
	if clauses := dnsClauses(&s.set.DNS); clauses != nil {
		fmt.Fprintln(a.stdout, "\nDNS:")
		for _, clause := range clauses {
			fmt.Fprintln(a.stdout, table.Wrap("  - ", clause, width))
		}
	}
	if !verbose {
		return nil
	}
	return printSizes(a.stdout, s.set.Size(), width)
}

func (a *app) printCheckedChain(s *source, d verdict.Direction, width int) {
	c := &s.policy.Chains[d]
	fmt.Fprintf(a.stdout, "\n%v: %s%s, default %v\n", d, table.Plural(len(c.Rules), "rule"), mergedText(&s.set.Chains[d]), c.Default)
	anyway := s.policy.Exemptions(d)
	if len(anyway) == 0 {
		return
	}
	fmt.Fprintln(a.stdout, "  passes all the same, unless a rule says otherwise:")
	for _, clause := range anyway {
		fmt.Fprintln(a.stdout, table.Wrap("  - ", clause, width))
	}
}

// dnsClauses says what becomes of DNS; nil where it is traffic like any other.
func dnsClauses(d *tables.DNS) []string {
	if !d.InUse {
		return nil
	}
	servers := "the servers that the host uses when the policy is applied"
	if d.Servers != nil {
		servers = serverList(d.Servers)
	}
	out := []string{"names are opened by the answers of " + servers}
	if d.ListedOnly {
		how := "refused"
		if d.NXDomain {
			how = "answered with NXDOMAIN"
		}
		out = append(out, "questions for names that no allow rule of egress lists are "+how)
	}
	if d.Elsewhere != verdict.Allow {
		out = append(out, fmt.Sprintf("%v, before any rule: DNS with other servers, DNS over TLS and QUIC, and DNS over HTTPS with known resolvers", d.Elsewhere))
	}
	return out
}

func printSizes(w *output, size tables.Size, width int) error {
	t := table.New(
		table.Column{Head: "TABLES", Min: 7},
		table.Column{Head: "RULES", Right: true},
		table.Column{Head: "LINES", Right: true},
		table.Column{Head: "PAGES", Right: true},
		table.Column{Head: "WORDS", Right: true},
		table.Column{Head: "NAMES", Right: true},
		table.Column{Head: "KERNEL MEMORY", Right: true},
	)
	for _, d := range verdict.Directions {
		c := size.Chains[d]
		t.Add(d.String(), table.Count(uint64(c.Rules)), table.Count(uint64(c.Lines)), table.Count(uint64(c.Pages)),
			table.Count(uint64(c.VectorWords)), table.Count(uint64(c.Names)), table.Bytes(uint64(c.Bytes)))
	}
	fmt.Fprintln(w)
	if err := t.Write(w, width); err != nil {
		return err
	}
	classes := table.New(table.Column{Head: "CLASSES", Min: 7})
	for d := range tables.DimensionCount {
		classes.Columns = append(classes.Columns, table.Column{Head: columnHead(d), Right: true})
	}
	for _, dir := range verdict.Directions {
		row := []string{dir.String()}
		for _, n := range size.Chains[dir].Classes {
			row = append(row, classCount(n))
		}
		classes.Add(row...)
	}
	fmt.Fprintln(w)
	return classes.Write(w, width)
}

func columnHead(d tables.Dimension) string {
	return [tables.DimensionCount]string{"DESTINATION", "SOURCE", "SERVICE", "SOURCE PORT", "NAME"}[d]
}

func classCount(n int) string {
	if n == 0 {
		return "-" // no rule asks for it, so it costs nothing
	}
	return table.Count(uint64(n))
}

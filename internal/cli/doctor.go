package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"egate/internal/cli/table"
	"egate/internal/datapath"
	"egate/internal/probe"
	"egate/internal/verdict"
)

// DoctorReport is `doctor -o json`.
type DoctorReport struct {
	OK bool `json:"ok"` // nothing is missing that egate needs
	probe.Report
	Hooks      []HookReport   `json:"hooks"`       // those that gates guard
	DNSServers []ServerReport `json:"dns_servers"` // those that the host uses; nil: not known
}

// HookReport is the programs of one hook, in the order in which packets meet
// them.
type HookReport struct {
	Gate      string             `json:"gate"` // that guards it
	Interface string             `json:"interface"`
	Direction string             `json:"direction"`
	Programs  []datapath.Program `json:"programs"`
	Note      string             `json:"note,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Show what this kernel offers, and what stands in the way",
		GroupID: groupRead,
		Long: `doctor tries what egate needs: a program, maps, a hook in a network namespace of its own
that is gone at once. For each it says what it is for, since which Linux it exists, and
what helps where it is missing. It tells which programs of others stand before a gate and
can let packets pass that the gate never sees, which DNS servers the host uses and whether
their answers can be read, and the ways around any gate. It changes nothing.

Without root some things may not be tried; they are unknown.`,
		Example: `  sudo egate doctor
  egate doctor -o json`,
		Args: arguments(0, 0, ""),
	}
	format := addOutput(c)
	c.RunE = func(*cobra.Command, []string) error {
		found, err := a.probe()
		if err != nil {
			return err
		}
		gates, err := a.readGates("")
		if err != nil {
			fmt.Fprintf(a.stderr, "egate: warning: programs beside the gates are not listed: %v\n", err)
		}
		servers, err := a.serverReports()
		if err != nil {
			fmt.Fprintf(a.stderr, "egate: warning: DNS servers are not listed: %v\n", err)
		}
		r := DoctorReport{OK: !found.MissingNeeds(), Report: *found, Hooks: hookReports(gates), DNSServers: servers}
		if format.value == "json" {
			r.DNSServers = append([]ServerReport{}, servers...)
			err = a.printJSON(r)
		} else {
			err = writeDoctor(a.stdout, &r, a.width())
		}
		if err == nil && !r.OK {
			return errReported
		}
		return err
	}
	return c
}

func writeDoctor(w io.Writer, r *DoctorReport, width int) error {
	fmt.Fprintf(w, "Linux %s\n\n", r.Kernel)
	t := table.New(
		table.Column{Head: "FEATURE", Min: 12},
		table.Column{Head: "STATE"},
		table.Column{Head: "SINCE"},
		table.Column{Head: "FOR", Min: 12},
	)
	for _, c := range r.Checks {
		t.Add(c.Name, string(c.State), c.Since, c.For)
	}
	if err := t.Write(w, width); err != nil {
		return err
	}
	if lines := advice(r.Checks); len(lines) > 0 {
		fmt.Fprintln(w)
		for _, line := range lines {
			fmt.Fprintln(w, table.Wrap("- ", line, width))
		}
	}
	if len(r.Hooks) > 0 {
		fmt.Fprintln(w)
		if err := hookTable(r).Write(w, width); err != nil {
			return err
		}
		for _, h := range r.Hooks {
			if h.Note != "" {
				fmt.Fprintln(w, table.Wrap("- ", h.Interface+" "+h.Direction+": "+h.Note, width))
			}
		}
	}
	if r.DNSServers != nil { // where they could not be read, that was said
		if err := writeServers(w, r.DNSServers, width); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "\nWays around any gate:")
	for _, n := range r.Notes {
		fmt.Fprintln(w, table.Wrap("- ", n, width))
	}
	outcome := "Nothing is missing that egate needs."
	if !r.OK {
		outcome = "Something is missing that egate needs; see above."
	}
	_, err := fmt.Fprintf(w, "\n%s\n", outcome)
	return err
}

// advice says what helps where something is not there, one line for all that
// share it.
func advice(checks []probe.Check) []string {
	type cause struct {
		state      probe.State
		detail, do string
	}
	var order []cause
	names := map[cause][]string{}
	for _, c := range checks {
		if c.State == probe.OK {
			continue
		}
		why := cause{c.State, c.Detail, c.Do}
		if names[why] == nil {
			order = append(order, why)
		}
		names[why] = append(names[why], c.Name)
	}
	var lines []string
	for _, why := range order {
		line := fmt.Sprintf("%s: %s", why.state, strings.Join(names[why], ", "))
		if why.detail != "" {
			line += " (" + table.Clean(why.detail) + ")"
		}
		if why.do != "" {
			line += "; " + why.do
		}
		lines = append(lines, line)
	}
	return lines
}

func hookTable(r *DoctorReport) *table.Table {
	t := table.New(
		table.Column{Head: "INTERFACE", Min: 9},
		table.Column{Head: "HOOK"},
		table.Column{Head: "PROGRAMS IN ORDER", Min: 9},
	)
	for _, h := range r.Hooks {
		t.Add(h.Interface, h.Direction, programsText(h.Programs))
	}
	return t
}

// hookReports lists the hooks that gates guard.
func hookReports(gates []*datapath.Status) []HookReport {
	reports := []HookReport{}
	for _, g := range gates {
		for _, i := range g.Interfaces {
			for _, d := range verdict.Directions {
				if i.Gone {
					continue
				}
				h := &i.Hooks[d]
				reports = append(reports, HookReport{
					Gate: g.Gate, Interface: i.Name, Direction: d.String(), Programs: h.Programs, Note: hookNote(g.Gate, h),
				})
			}
		}
	}
	return reports
}

// hookNote says what stands before a gate.
func hookNote(gate string, h *datapath.HookStatus) string {
	if !h.Attached {
		return fmt.Sprintf("gate %s is not attached here any more: apply its policy again", gate)
	}
	var before []string
	for _, p := range h.Programs[:h.Position-1] {
		if !p.Egate {
			before = append(before, programText(p))
		}
	}
	if len(before) == 0 {
		return ""
	}
	return fmt.Sprintf("%s before egate/%s: what is decided there (passed on, redirected) the gate never sees; apply with --place first puts a new gate in front",
		strings.Join(before, ", "), gate)
}

package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"egate/internal/datapath"
)

// StatusReport is `status -o json`.
type StatusReport struct {
	Gates []GateReport `json:"gates"` // by name
}

// GateReport is a gate and, where --names asks for them, the names it knows.
type GateReport struct {
	*datapath.Status
	Learned []datapath.NameStatus `json:"learned,omitzero"` // sorted by name
}

func (a *app) statusCommand() *cobra.Command {
	var gate gateName
	var names bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show what is in force, and what it counted",
		GroupID: groupRead,
		Long: `status shows each gate: its policy, the programs of each hook in the order in which
packets meet them, egate's and those of others, and the counters: for each rule, for each
IP protocol, and for each reason of a verdict. Counters are exact. Those of rules that
keep their name go on over apply.

Where a policy uses domain names, status shows the names learned last, and what became of
DNS questions and answers. --names lists all names that are known instead: the addresses
that each opens and how long yet, the rules that list it, and the connections that go by
it. A terminal gets the beginning of a long list, a pipe and JSON all of it.

PASSED is what went on, BLOCKED what was dropped or rejected. A program "egate/NAME" is
that of the gate NAME; others are shown with their number in the kernel.`,
		Example: `  sudo egate status
  sudo egate status --gate lab
  sudo egate status --names | grep example.com
  sudo egate status -o json | jq '.gates[0].chains[0].rules'`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "show only this gate")
	c.Flags().BoolVar(&names, "names", false, "list the domain names that are known")
	format := addOutput(c)
	c.RunE = func(*cobra.Command, []string) error {
		all, failed := a.readGates(string(gate))
		if format.value == "json" {
			return a.printStatusJSON(all, names, failed)
		}
		if len(all) == 0 && failed == nil {
			fmt.Fprintln(a.stdout, "there is no gate: everything passes")
			return nil
		}
		for i, s := range all {
			if i > 0 {
				fmt.Fprintln(a.stdout)
			}
			r, err := a.gateReport(s, names || s.Names.InUse)
			failed = errors.Join(failed, err)
			if err := writeGate(a.stdout, &r, names, a.width(), time.Now()); err != nil {
				return err
			}
		}
		return failed
	}
	return c
}

func (a *app) printStatusJSON(all []*datapath.Status, names bool, failed error) error {
	report := StatusReport{Gates: []GateReport{}}
	for _, s := range all {
		r, err := a.gateReport(s, names)
		failed = errors.Join(failed, err)
		report.Gates = append(report.Gates, r)
	}
	if failed != nil {
		return failed
	}
	return a.printJSON(report)
}

// writeGate prints a gate for people, or only the names it knows.
func writeGate(w io.Writer, r *GateReport, names bool, width int, now time.Time) error {
	if names {
		return writeNames(w, r, width, now)
	}
	if err := writeStatus(w, r.Status, width, now); err != nil {
		return err
	}
	return writeLatestNames(w, r.Gate, r.Learned, width, now)
}

// gateReport adds the names that a gate knows, if they are wanted. What is
// known without them is given on failure too.
func (a *app) gateReport(s *datapath.Status, names bool) (GateReport, error) {
	r := GateReport{Status: s}
	if !names {
		return r, nil
	}
	learned, err := a.kernel.ReadNames(s.Gate)
	if errors.Is(err, datapath.ErrNoGate) {
		err = nil // it was removed meanwhile
	}
	r.Learned = append([]datapath.NameStatus{}, learned...)
	return r, err
}

// readGates reads one gate, or all if the name is empty. One that cannot be
// read does not hide the others.
func (a *app) readGates(name string) (all []*datapath.Status, failed error) {
	all = []*datapath.Status{}
	names := []string{name}
	if name == "" {
		var err error
		if names, err = a.kernel.Gates(); err != nil {
			return all, err
		}
	}
	for _, n := range names {
		s, err := a.kernel.ReadStatus(n)
		switch {
		case name == "" && errors.Is(err, datapath.ErrNoGate):
			// It was removed meanwhile.
		case err != nil:
			failed = errors.Join(failed, err)
		default:
			all = append(all, s)
		}
	}
	return all, failed
}

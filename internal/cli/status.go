package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"egate/internal/datapath"
)

// StatusReport is `status -o json`.
type StatusReport struct {
	Gates []*datapath.Status `json:"gates"` // by name
}

func (a *app) statusCommand() *cobra.Command {
	var gate gateName
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show what is in force, and what it counted",
		GroupID: groupRead,
		Long: `status shows each gate: its policy, the programs of each hook in the order in which
packets meet them, egate's and those of others, and the counters: for each rule, for each
IP protocol, and for each reason of a verdict. Counters are exact. Those of rules that
keep their name go on over apply.

PASSED is what went on, BLOCKED what was dropped or rejected. A program "egate/NAME" is
that of the gate NAME; others are shown with their number in the kernel.`,
		Example: `  sudo egate status
  sudo egate status --gate lab
  sudo egate status -o json | jq '.gates[0].chains[0].rules'`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "show only this gate")
	format := addOutput(c)
	c.RunE = func(*cobra.Command, []string) error {
		all, failed := a.readGates(string(gate))
		if format.value == "json" {
			if failed != nil {
				return failed
			}
			return a.printJSON(StatusReport{Gates: all})
		}
		if len(all) == 0 && failed == nil {
			fmt.Fprintln(a.stdout, "there is no gate: everything passes")
			return nil
		}
		for i, s := range all {
			if i > 0 {
				fmt.Fprintln(a.stdout)
			}
			if err := writeStatus(a.stdout, s, a.width(), time.Now()); err != nil {
				return err
			}
		}
		return failed
	}
	return c
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

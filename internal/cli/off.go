package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) offCommand() *cobra.Command {
	gate := gateName(DefaultGate)
	var all bool
	c := &cobra.Command{
		Use:     "off",
		Short:   "Take a gate's policy out of force, with all that belongs to it",
		GroupID: groupWrite,
		Long: `off detaches a gate's programs from every interface and removes its maps, counters and
pins. Other people's programs and filters stay as they are, and so do other gates. What
this gate blocked then passes.`,
		Example: `  sudo egate off
  sudo egate off --gate lab
  sudo egate off --all`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "the gate to remove")
	c.Flags().BoolVar(&all, "all", false, "remove every gate of this host")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if all && c.Flags().Changed("gate") {
			return usagef("off takes --gate or --all, not both")
		}
		gates := []string{string(gate)}
		if all {
			var err error
			if gates, err = a.kernel.Gates(); err != nil {
				return err
			}
			if len(gates) == 0 {
				fmt.Fprintln(a.stdout, "there is no gate")
				return nil
			}
		}
		// One gate that cannot be removed must not keep the others.
		var failed error
		for _, g := range gates {
			if err := a.kernel.Off(g); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			fmt.Fprintf(a.stdout, "%s: off, nothing of it is left\n", g)
		}
		return failed
	}
	return c
}

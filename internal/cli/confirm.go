package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) confirmCommand() *cobra.Command {
	gate := gateName(DefaultGate)
	c := &cobra.Command{
		Use:     "confirm",
		Short:   "Keep a policy that was applied with --confirm",
		GroupID: groupWrite,
		Long: `confirm keeps the policy that "apply --confirm" put in force for a trial. Without it
the kernel returns to the policy before when the time is over, even if nothing of
egate runs any more. So if the new policy has cut you off, wait.`,
		Example: `  sudo egate apply policy.yaml --confirm 60s
  sudo egate confirm               within these 60 seconds`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "the gate whose policy to keep")
	c.RunE = func(*cobra.Command, []string) error {
		if err := a.kernel.Confirm(string(gate)); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s: the policy stays in force\n", gate)
		return nil
	}
	return c
}

package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"egate/internal/cli/table"
	"egate/internal/datapath"
)

// Bounds of --confirm.
const (
	minConfirm = 5 * time.Second
	maxConfirm = 24 * time.Hour
)

type applyOptions struct {
	gate         gateName
	confirm      time.Duration
	replaceState bool
	accept       *choice
	hook, place  *choice
}

func (a *app) applyCommand() *cobra.Command {
	o := applyOptions{gate: DefaultGate}
	c := &cobra.Command{
		Use:     "apply FILE",
		Short:   "Put a policy in force, all or nothing",
		GroupID: groupWrite,
		Long: `apply checks a policy file ("-" for standard input), compiles it, loads it beside the
policy that is in force, and switches every interface at once. If anything fails, all
stays as it was. The policy stays in force when the command has ended, and counters of
rules that keep their name go on.

With --confirm the policy is on trial: unless "egate confirm" follows in time, the
kernel itself returns to the policy before, or to none. Use it wherever a mistake could
cut you off.

Run over SSH, apply refuses a policy that would cut that session.

A host has the gate "host". Further gates (--gate) have policies of their own; a packet
passes only if every gate on its way lets it.`,
		Example: `  sudo egate apply policy.yaml
  sudo egate apply policy.yaml --confirm 60s
  sudo egate apply --gate lab lab.yaml`,
		Args: arguments(1, 1, "one policy FILE"),
	}
	a.addGate(c, &o.gate, "the gate to put it in")
	c.Flags().DurationVar(&o.confirm, "confirm", 0, "return to the policy before unless confirmed within this `time` (60s, 5m)")
	c.Flags().BoolVar(&o.replaceState, "replace-state", false, "start anew where another version of egate left counters and state that this one cannot read")
	o.accept = addChoice(c, "accept-risk", "", "apply although it would cut your SSH session", "", acceptLoseSSH)
	o.hook = addChoice(c, "hook", "", "how to attach: tcx from Linux 6.6 on, clsact before", "auto", "tcx", "clsact")
	o.place = addChoice(c, "place", "", "before or behind the programs of others on the same hook", "first", "last")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("confirm") && (o.confirm < minConfirm || o.confirm > maxConfirm) {
			return usagef("--confirm takes from 5s to 24h, found %v", o.confirm)
		}
		return a.apply(args[0], &o)
	}
	return c
}

func (a *app) apply(path string, o *applyOptions) error {
	begin := time.Now()
	line := a.startProgress()
	defer line.stop()
	s, err := a.readSource(path, line)
	line.hide()
	if err != nil {
		return err
	}
	if err := a.printProblems(s, "nothing was changed"); err != nil {
		return err
	}
	if o.accept.value != acceptLoseSSH {
		if err := a.guardSSH(s); err != nil {
			return err
		}
	}
	s.policy = nil // its sets may be large, and what is loaded now is the tables
	applied, err := a.kernel.Apply(s.set, datapath.ApplyOptions{
		Gate:         string(o.gate),
		Source:       datapath.Source{Path: s.path, SHA256: s.sum},
		Confirm:      o.confirm,
		ReplaceState: o.replaceState,
		Hook:         hooks[o.hook.value],
		Place:        places[o.place.value],
		Stage:        line.stage,
	})
	took := time.Since(begin)
	line.hide()
	if err != nil {
		return err
	}
	learned, warnings := a.learnedFrom(s.set, applied)
	for _, w := range append(applied.Warnings, warnings...) {
		fmt.Fprintf(a.stderr, "egate: warning: %s\n", table.Clean(w))
	}
	a.printApplied(s, applied, o, learned, took)
	return nil
}

var hooks = map[string]datapath.Hook{
	"auto": datapath.HookAuto, "tcx": datapath.HookTCX, "clsact": datapath.HookClsact,
}

var places = map[string]datapath.Place{"first": datapath.PlaceFirst, "last": datapath.PlaceLast}

func (a *app) printApplied(s *source, applied *datapath.Applied, o *applyOptions, learned string, took time.Duration) {
	mode := ""
	if s.set.Audit {
		mode = "; mode audit: it counts, and lets everything pass"
	}
	fmt.Fprintln(a.stdout, table.Wrap(applied.Gate+": ", fmt.Sprintf("%s (%s) is in force on %s (%s), after %s%s",
		policyTitle(s.set.Name), rulesText(s.set), list(applied.Interfaces), applied.Hook, table.Duration(took), mode), a.width()))
	if learned != "" {
		fmt.Fprintln(a.stdout, table.Wrap("  ", learned, a.width()))
	}
	gate := flagFor(applied.Gate)
	next := fmt.Sprintf("See what it does with \"egate status%s\", undo it with \"egate off%s\".", gate, gate)
	if o.confirm > 0 {
		next = fmt.Sprintf("Keep it with \"egate confirm%s\" by %s (%s), or what was before comes back.",
			gate, applied.Deadline.Format(time.TimeOnly), table.Duration(o.confirm))
	}
	fmt.Fprintln(a.stdout, table.Wrap("  ", next, a.width()))
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"egate/internal/events"
)

type eventOptions struct {
	count              int
	rule               string
	direction, verdict *choice
	format             *choice
}

func (a *app) eventsCommand() *cobra.Command {
	gate := gateName(DefaultGate)
	var o eventOptions
	c := &cobra.Command{
		Use:     "events",
		Short:   "Show decisions as they happen",
		GroupID: groupRead,
		Long: `events prints a line for each decision that a gate reports, until Ctrl-C or until the
gate is off. What is dropped or rejected is reported, up to ten a second for each rule;
what passes is only counted. The key "events" of a rule in the policy changes that: all,
none, or a rate.

A name in parentheses is that of the address before it. "asks for" and "answers for" stand
before the name in a DNS message, "says" before one that a connection's request has and
no rule allows there.

A verdict in parentheses was not enforced (mode audit). One reader at a time gets the
events of a gate. "egate status" tells how many were lost or over their rate.`,
		Example: `  sudo egate events
  sudo egate events --rule no-ping --count 10
  sudo egate events --direction egress --verdict drop -o json | jq .destination`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "the gate to watch")
	c.Flags().IntVar(&o.count, "count", 0, "end after `N` lines")
	c.Flags().StringVar(&o.rule, "rule", "", "only what this `rule` decided; \"default\" for what no rule did")
	o.direction = addChoice(c, "direction", "", "only this way", "", "egress", "ingress")
	o.verdict = addChoice(c, "verdict", "", "only this verdict", "", "allow", "drop", "reject")
	o.format = addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.count < 0 || o.count == 0 && c.Flags().Changed("count") {
			return usagef("--count takes 1 or more, found %d", o.count)
		}
		return a.watch(c.Context(), string(gate), &o)
	}
	return c
}

// watch prints events until the context ends, the gate is off, or there were
// enough.
func (a *app) watch(ctx context.Context, gate string, o *eventOptions) (err error) {
	reader, err := a.kernel.OpenEvents(gate)
	if err != nil {
		return err
	}
	// A Read that waits ends when its reader is closed.
	stop := context.AfterFunc(ctx, func() { _ = reader.Close() }) // reported by the Close below
	defer func() {
		stop()
		if closing := reader.Close(); err == nil && !errors.Is(closing, os.ErrClosed) {
			err = closing
		}
	}()
	if a.width() > 0 && o.format.value == "text" {
		fmt.Fprintln(a.stdout, eventHead)
	}
	for printed := 0; o.count == 0 || printed < o.count; {
		e, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			fmt.Fprintf(a.stderr, "egate: gate %s is off\n", gate)
			return nil
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case !o.wants(&e):
			continue
		}
		printed++
		if o.format.value == "json" {
			err = a.printJSONLine(e)
		} else {
			_, err = fmt.Fprintln(a.stdout, eventLine(&e))
		}
		if err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	return nil
}

func (o *eventOptions) wants(e *events.Event) bool {
	return (o.rule == "" || o.rule == e.Rule) &&
		(o.direction.value == "" || o.direction.value == e.Direction.String()) &&
		(o.verdict.value == "" || o.verdict.value == e.Action.String())
}

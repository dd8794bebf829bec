package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"egate/internal/datapath"
)

// choice is a flag that takes one of a few words.
type choice struct {
	value string
	words []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.words, "|") }

// list is "a, b or c".
func (c *choice) list() string {
	last := len(c.words) - 1
	if last == 0 {
		return c.words[0]
	}
	return strings.Join(c.words[:last], ", ") + " or " + c.words[last]
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("it takes %s", c.list())
	}
	c.value = s
	return nil
}

// flagError says in the words of the command line what is wrong with a flag.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return usageError{err}
	}
	flag, value := invalid.GetFlag(), invalid.GetValue()
	switch v := flag.Value.(type) {
	case *choice:
		return usagef("--%s takes %s, found %q", flag.Name, v.list(), value)
	case *gateName:
		return usagef("--%s: %w", flag.Name, invalid.Unwrap())
	}
	switch flag.Value.Type() {
	case "int":
		return usagef("--%s takes a whole number, found %q", flag.Name, value)
	case "duration":
		return usagef("--%s takes a time such as 60s or 5m, found %q", flag.Name, value)
	}
	return usageError{err}
}

// addChoice adds a flag whose first word is the default; completion offers
// all of them. An empty first word stands for a flag that is not given.
func addChoice(c *cobra.Command, name, short, usage string, words ...string) *choice {
	flag := &choice{value: words[0], words: slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })}
	c.Flags().VarP(flag, name, short, usage)
	offer(c, name, cobra.FixedCompletions(toCompletions(flag.words), cobra.ShellCompDirectiveNoFileComp))
	return flag
}

func toCompletions(words []string) []cobra.Completion {
	out := make([]cobra.Completion, len(words))
	copy(out, words)
	return out
}

// offer registers a flag's completion. It can only fail for a flag that does
// not exist, which is a mistake in this package.
func offer(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// addOutput adds -o text|json.
func addOutput(c *cobra.Command) *choice {
	return addChoice(c, "output", "o", "how to print: text for people, json for programs (see docs/OUTPUT.md)", "text", "json")
}

// DefaultGate is the gate of the host itself.
const DefaultGate = "host"

// gateName is a flag that names a gate.
type gateName string

func (g *gateName) String() string { return string(*g) }
func (g *gateName) Type() string   { return "NAME" }
func (g *gateName) Set(s string) error {
	if err := datapath.CheckGateName(s); err != nil {
		return err
	}
	*g = gateName(s)
	return nil
}

// addGate adds --gate; completion offers the gates that exist.
func (a *app) addGate(c *cobra.Command, g *gateName, usage string) {
	c.Flags().Var(g, "gate", usage)
	offer(c, "gate", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		gates, err := a.kernel.Gates()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return toCompletions(gates), cobra.ShellCompDirectiveNoFileComp
	})
}

// flagFor is " --gate NAME" where a command has to be told the gate.
func flagFor(gate string) string {
	if gate == DefaultGate {
		return ""
	}
	return " --gate " + gate
}

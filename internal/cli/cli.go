// Package cli is stage 6: what people use. It reads a command line, runs the
// stages before it and prints what they say, as text for eyes or as JSON for
// programs. One command is one file; the package touches nothing of its
// process but what Process gives it, so every command is tested in process.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"egate/internal/daemon"
	"egate/internal/datapath"
	"egate/internal/probe"
	"egate/internal/resolvers"
)

//go:generate go run ./gendocs ../../docs/COMMANDS.md

// Exit codes of every command.
const (
	ExitOK      = 0
	ExitRefused = 1 // refused or failed; standard error says why and what to do
	ExitUsage   = 2 // the command line itself is wrong
)

// Process is what a run of egate gets from outside.
type Process struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            func(key string) string
	Version        string // given at link time; "" asks the build info
}

// Run runs one command and returns its exit code. Commands that go on until
// they are told to stop (events, daemon, demo) stop when ctx ends.
func Run(ctx context.Context, p Process) int {
	return newApp(p).run(ctx, p.Args)
}

// app is one run of egate: its process and the parts that tests replace.
type app struct {
	stdin   io.Reader
	stdout  *output
	stderr  io.Writer
	env     func(string) string
	version string

	width    func() int // of the terminal that standard output is, 0 if it is none
	patience time.Duration
	kernel   kernel
	sessions sessionFinder
	probe    func() (*probe.Report, error)
	routes   routeFinder
	daemon   func(context.Context, daemon.Options) error

	hostServers func() ([]netip.Addr, error) // of DNS
}

func newApp(p Process) *app {
	a := &app{
		stdin:    p.Stdin,
		stdout:   &output{w: p.Stdout},
		stderr:   p.Stderr,
		patience: progressPatience,
		env:      p.Env,
		version:  p.Version,
		kernel:   realKernel,
		routes:   realRoutes{},
		probe:    probe.Run,
		daemon:   daemon.Run,

		hostServers: sync.OnceValues(resolvers.HostServers),
	}
	a.width = func() int { return terminalWidth(p.Stdout, p.Env) }
	a.sessions = sessionFinder{proc: "/proc", env: p.Env, pid: os.Getpid()}
	return a
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for the arguments of the process
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.stdout.err
	}
	return a.report(command, err)
}

// report prints an error and gives the exit code that belongs to it.
func (a *app) report(command *cobra.Command, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errReported), errors.Is(err, syscall.EPIPE):
		return ExitRefused
	case errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "egate: %v\nTry \"%s --help\".\n", err, command.CommandPath())
		return ExitUsage
	}
	fmt.Fprintf(a.stderr, "egate: %s%s\n", strings.TrimSpace(err.Error()), hint(err))
	return ExitRefused
}

// hint says what to do where the error itself does not.
func hint(err error) string {
	switch {
	case errors.Is(err, datapath.ErrNoGate):
		return `; "egate status" lists the gates there are, "egate apply" makes one`
	case errors.Is(err, datapath.ErrBusy):
		return "; try again when it is done"
	}
	return ""
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errReported says that all there is to say was printed already.
var errReported = errors.New("reported")

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "egate",
		Short: "the egress gate of a Linux host",
		Long: `egate decides in the kernel what may leave a host, and what may come in.

Write what you want to a policy file, look at it with check and explain (both need
no root), and put it in force with apply. It needs no daemon: the policy stays in force
until off, or until the next apply replaces it at one stroke.`,
		Example: `  sudo egate demo                  see it work; nothing of yours is touched
  egate check policy.yaml          errors as file:line:column
  sudo egate apply policy.yaml     all or nothing
  sudo egate status                what is in force, and what it counted
  sudo egate off                   leave the machine as it was`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("%q is no command; did you mean %q?", args[0], near[0])
		}
		return usagef("%q is no command", args[0])
	}
	root.SuggestionsMinimumDistance = 2
	root.Version = versionReport(a.version).Version // gives egate --version
	root.SetVersionTemplate("egate {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.AddGroup(
		&cobra.Group{ID: groupWrite, Title: "Commands that change what is in force:"},
		&cobra.Group{ID: groupRead, Title: "Commands that only read:"},
		&cobra.Group{ID: groupOther, Title: "Other commands:"},
	)
	root.AddCommand(
		a.applyCommand(), a.confirmCommand(), a.offCommand(),
		a.checkCommand(), a.explainCommand(), a.statusCommand(), a.eventsCommand(), a.doctorCommand(),
		a.daemonCommand(), a.demoCommand(), a.versionCommand(), a.completionCommand(),
	)
	root.SetHelpCommand(a.helpCommand())
	return root
}

// Groups of commands in the help.
const (
	groupWrite = "write"
	groupRead  = "read"
	groupOther = "other"
)

// helpCommand is `egate help COMMAND`; unlike cobra's own it fails for a
// command that does not exist.
func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		GroupID: groupOther,
		Example: "  egate help apply",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return c.Root().Args(c.Root(), args[:1])
			}
			return found.Help()
		},
	}
}

// arguments checks how many arguments there are; names is what usage calls
// them, for example "FILE" or "FILE [PACKET]".
func arguments(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s wants %s", c.Name(), names)
		case len(args) > most && most == 0:
			return usagef("%s takes no arguments, found %q", c.Name(), args[0])
		case len(args) > most:
			return usagef("%s wants %s, found %q too", c.Name(), names, args[most])
		}
		return nil
	}
}

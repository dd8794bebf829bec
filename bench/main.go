// Command bench measures egate beside what people use today, in one run on one
// machine: what a packet costs, what loading a policy costs, and what memory
// they take. It needs root, and touches nothing outside of network namespaces
// of its own, which are gone with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"egate/bench/contender"
	"egate/bench/loading"
	"egate/bench/measure"
	"egate/bench/programs"
	"egate/bench/report"
	"egate/bench/result"
	"egate/bench/traffic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil && interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted; what it had set up is removed")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	quick bool
	list  bool
	out   string
	only  *regexp.Regexp
	egate string
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.quick, "quick", false, "take the form of at most three minutes: fewer sizes, fewer rounds")
	flags.BoolVar(&o.list, "list", false, "list the sheets and end")
	flags.StringVar(&o.out, "out", "bench-results", "write result.json and the plots into this `folder`")
	flags.StringVar(&o.egate, "egate", "", "measure this `binary` (default: built from this tree)")
	only := flags.String("only", "", "measure only the sheets whose id this `expression` matches")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("read -only: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	started := time.Now()
	progress := func(format string, args ...any) {
		fmt.Fprintf(stderr, "%5.0f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	lineup := &contender.Lineup{Strict: os.Getenv("CI") == "true", Progress: progress}
	groups := o.groups(lineup)
	if o.list {
		for _, g := range groups {
			for _, id := range g.IDs {
				fmt.Fprintln(stdout, id)
			}
		}
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("run as root: it makes network namespaces and loads programs")
	}
	command, remove, err := o.command(ctx)
	if err != nil {
		return err
	}
	defer remove()
	lineup.Contenders = contender.All(command)

	machine, err := describeMachine(ctx, command.Path)
	if err != nil {
		return err
	}
	found := &result.Run{Started: started, Form: o.form(), Machine: *machine}
	for _, g := range groups {
		sheets, err := g.Measure(ctx, o.only.MatchString)
		if err != nil {
			return fmt.Errorf("measure %s: %w", strings.Join(g.IDs, ", "), err)
		}
		found.Sheets = append(found.Sheets, sheets...)
		found.Took = time.Since(started)
		// At once: a run that is broken off keeps what it has found.
		if err := o.keep(found); err != nil {
			return err
		}
	}
	if err := report.Plots(o.out, found); err != nil {
		return err
	}
	return report.Table(stdout, found)
}

func (o *options) form() string {
	if o.quick {
		return "quick"
	}
	return "full"
}

// groups are those with a sheet that is wanted.
func (o *options) groups(lineup *contender.Lineup) []measure.Group {
	inTest, inTraffic, inLoading := programs.Full, traffic.Full, loading.Full
	if o.quick {
		inTest, inTraffic, inLoading = programs.Quick, traffic.Quick, loading.Quick
	}
	var all []measure.Group
	for _, s := range programs.Sheets() {
		all = append(all, measure.Group{
			IDs: []string{s.ID},
			Measure: func(ctx context.Context, _ func(string) bool) ([]result.Sheet, error) {
				lineup.Progress("measure %s", s.ID)
				sheet, err := s.Measure(ctx, inTest)
				if err != nil {
					return nil, err
				}
				return []result.Sheet{*sheet}, nil
			},
		})
	}
	all = append(all, traffic.Groups(lineup, inTraffic)...)
	all = append(all, loading.Groups(lineup, inLoading)...)

	var wanted []measure.Group
	for _, g := range all {
		var ids []string
		for _, id := range g.IDs {
			if o.only.MatchString(id) {
				ids = append(ids, id)
			}
		}
		if g.IDs = ids; len(ids) > 0 {
			wanted = append(wanted, g)
		}
	}
	return wanted
}

// command is egate: the binary that was named, or one built from this tree,
// which remove takes away.
func (o *options) command(ctx context.Context) (c contender.Command, remove func(), err error) {
	if o.egate != "" {
		path, err := filepath.Abs(o.egate)
		if err != nil {
			return c, nil, fmt.Errorf("find egate: %w", err)
		}
		return contender.Command{Path: path}, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "egate-bench-")
	if err != nil {
		return c, nil, fmt.Errorf("make folder: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) } // what stays of a temporary folder harms nobody
	c.Path = filepath.Join(dir, "egate")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", c.Path, "egate/cmd/egate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		remove()
		return c, nil, fmt.Errorf("build egate: %w: %s", err, out)
	}
	return c, remove, nil
}

// keep writes what was found so far.
func (o *options) keep(found *result.Run) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	file, err := os.Create(filepath.Join(o.out, "result.json"))
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if err := errors.Join(report.JSON(file, found), file.Close()); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

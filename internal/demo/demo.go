// Package demo belongs to stage 6: it shows egate at work. It makes two network
// namespaces joined by a cable, puts its policy in force on the inner one with
// the same stages that apply uses, sends real traffic, and compares what
// happened with what the policy says. Namespaces, pins and programs hang on
// file descriptors only, so nothing is left of them, even if it is killed.
package demo

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"egate/internal/cli/table"
	"egate/internal/compile"
	"egate/internal/datapath"
	"egate/internal/policy"
)

//go:embed policy.yaml
var policyText []byte

const policyFile = "policy.yaml (built in)"

// ErrNotAsWritten says that traffic did not do what the policy says.
var ErrNotAsWritten = errors.New("not as the policy says")

// ErrInterrupted says that the context ended before the demo did.
var ErrInterrupted = errors.New("interrupted")

// Options says how to show it.
type Options struct {
	Out      io.Writer
	Terminal bool          // redraw the table in place
	Width    int           // of the terminal, 0 for no limit
	For      time.Duration // how long to send traffic; 0 for one round

	// ShowStatus prints the gate's status; given by the caller, so that the
	// demo shows what `egate status` would.
	ShowStatus func(io.Writer, *datapath.Status) error
}

// redrawWidth is as wide as the table of attempts gets.
const redrawWidth = 78

// Run shows the demo. Whatever happens, all that it made is gone when it
// returns. Errors wrap ErrNotAsWritten, ErrInterrupted, or tell what the host
// lacks. It needs root.
func Run(ctx context.Context, o Options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and loads programs into the kernel, so it needs root: sudo egate demo")
	}
	if o.Width < redrawWidth {
		o.Terminal = false // a line that the terminal breaks cannot be drawn over
	}
	d := &demo{Options: o, gate: fmt.Sprintf("demo-%d", os.Getpid())}
	defer func() {
		if closing := d.close(); closing != nil {
			err = errors.Join(err, fmt.Errorf("remove the demo: %w", closing))
		} else if d.network != nil {
			fmt.Fprintf(o.Out, "\nAll of it is removed: namespaces, programs, maps, pins.\n")
			if err == nil {
				fmt.Fprintf(o.Out, "Next: write a policy of your own (start from examples/), look at it with\n"+
					"\"egate check\" and \"egate explain\", then \"sudo egate apply policy.yaml --confirm 60s\".\n")
			}
		}
		if ctx.Err() != nil {
			err = ErrInterrupted
		}
	}()
	return d.run(ctx)
}

// demo is one run.
type demo struct {
	Options
	gate       string
	network    *network
	bpffs      string
	closeBPFFS func() error
	attempts   []*attempt
	drawn      int // lines of the live table on the screen
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.network, err = newNetwork(); err != nil {
		return err
	}
	d.attempts = attempts(d.network)
	fmt.Fprintln(d.Out, table.Wrap("", fmt.Sprintf("Two network namespaces, joined by a cable: %s and %s inside, %s and %s outside. Nothing of yours is touched.",
		inside4.Addr(), inside6.Addr(), outside4.Addr(), outside6.Addr()), d.Width))
	if !d.network.hasIPv6 {
		fmt.Fprintln(d.Out, "This kernel has no IPv6, so only IPv4 is shown.")
	}
	if err := baseline(ctx, d.network, d.attempts); err != nil {
		return err
	}
	if err := d.apply(); err != nil {
		return err
	}
	if err := d.rounds(ctx); err != nil {
		return err
	}
	status, err := d.status()
	if err != nil {
		return err
	}
	fmt.Fprintln(d.Out)
	if err := d.ShowStatus(d.Out, status); err != nil {
		return err
	}
	return errors.Join(d.judge(), d.judgeCounters(status))
}

// rounds sends traffic until the time is over. On a terminal the table follows
// each outcome, elsewhere it is printed once.
func (d *demo) rounds(ctx context.Context) error {
	live := func() {}
	var drawing error
	if d.Terminal {
		live = func() {
			if err := d.draw(); err != nil && drawing == nil {
				drawing = err
			}
		}
		live()
	}
	for begin := time.Now(); ; {
		if err := round(ctx, d.network, d.attempts, true, live); err != nil {
			return err
		}
		if time.Since(begin) >= d.For {
			break
		}
	}
	if d.Terminal {
		return drawing
	}
	return d.draw()
}

// baselineTries is how often the traffic without a policy may be repeated: a
// machine under load can be slow to bring a new network to life.
const baselineTries = 3

// baseline shows that all traffic passes without a policy; otherwise a blocked
// attempt would prove nothing.
func baseline(ctx context.Context, n *network, all []*attempt) error {
	var failed *attempt
	for range baselineTries {
		if err := round(ctx, n, all, false, func() {}); err != nil {
			return err
		}
		failed = nil
		for _, a := range all {
			if a.before != passed {
				failed = a
			}
		}
		if failed == nil {
			return nil
		}
	}
	return fmt.Errorf("%s to %s is %v without any policy: the demo's own network does not work here", failed.what, failed.to, failed.before)
}

// apply puts the policy in force on the inside.
func (d *demo) apply() (err error) {
	model, problems := policy.Parse(policyFile, policyText, policy.OpenFile)
	if err := problems.Err(); err != nil {
		return err
	}
	set, _, err := compile.Compile(model)
	if err != nil {
		return err
	}
	if d.bpffs, d.closeBPFFS, err = privateBPFFS(); err != nil {
		return err
	}
	begin := time.Now()
	var applied *datapath.Applied
	err = d.network.inside.run(func() (err error) {
		applied, err = datapath.Apply(set, datapath.ApplyOptions{
			Gate:   d.gate,
			Source: datapath.Source{Path: policyFile, SHA256: sha256.Sum256(policyText)},
		})
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(d.Out, table.Wrap("", fmt.Sprintf("The policy is in force on %s (%s), after %s: ping is dropped, tcp/80 and tcp/443 rejected.",
		insideLink, applied.Hook, table.Duration(time.Since(begin))), d.Width))
	fmt.Fprintln(d.Out)
	return nil
}

func (d *demo) status() (status *datapath.Status, err error) {
	err = d.network.inside.run(func() error {
		status, err = datapath.ReadStatus(d.gate)
		return err
	})
	return status, err
}

// draw prints the table of attempts, over the one before on a terminal.
func (d *demo) draw() error {
	if d.drawn > 0 {
		fmt.Fprintf(d.Out, "\x1b[%dA\x1b[J", d.drawn)
	}
	t := table.New(
		table.Column{Head: "ATTEMPT", Min: 8},
		table.Column{Head: "TO", Min: 8},
		table.Column{Head: "WITHOUT"},
		table.Column{Head: "POLICY SAYS"},
		table.Column{Head: "SEEN"},
		table.Column{Head: "FASTEST", Right: true},
		table.Column{Head: "TRIES", Right: true},
	)
	for _, a := range d.attempts {
		seen := a.seen.String()
		if a.wrong > 0 {
			seen += " (WRONG)"
		}
		fastest := "-"
		if a.tries > 0 {
			fastest = table.Duration(a.best)
		}
		t.Add(a.what, a.to, a.before.String(), a.expected.String(), seen, fastest, table.Count(uint64(a.tries)))
	}
	d.drawn = t.Len() + 1
	return t.Write(d.Out, d.Width)
}

// close takes the gate away and checks that nothing of it is left.
func (d *demo) close() error {
	var err error
	if d.closeBPFFS != nil {
		err = d.network.inside.run(func() error {
			if err := datapath.Off(d.gate); err != nil && !errors.Is(err, datapath.ErrNoGate) {
				return err
			}
			return nil
		})
		left, reading := leftovers(d.bpffs)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is left: %w", strings.Join(left, ", "), ErrNotAsWritten)
		}
		err = errors.Join(err, reading, d.closeBPFFS())
	}
	if d.network != nil {
		err = errors.Join(err, d.network.close())
	}
	return err
}

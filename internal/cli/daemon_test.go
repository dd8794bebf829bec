package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"egate/internal/daemon"
	"egate/internal/datapath"
)

func TestDaemonCommand(t *testing.T) {
	for _, c := range []struct {
		args   []string
		err    error
		gate   string // that the daemon is to serve; "-": it is not to run
		code   int
		stderr string
	}{
		{args: []string{"daemon"}, gate: "", stderr: "ran\n"},
		{args: []string{"daemon", "--gate", "lab"}, gate: "lab", stderr: "ran\n"},
		{args: []string{"daemon", "--gate", "a.b"}, gate: "-", code: ExitUsage, stderr: "--gate"},
		{args: []string{"daemon", "lab"}, gate: "-", code: ExitUsage, stderr: "takes no arguments"},
		{
			args: []string{"daemon"}, code: ExitRefused, stderr: "try again when it is done",
			err: fmt.Errorf("serve: gate host: another daemon serves it (pid 7): %w", datapath.ErrBusy),
		},
	} {
		name := strings.Join(c.args, " ")
		ran := "-"
		r := run(t, func(a *app) {
			a.daemon = func(ctx context.Context, o daemon.Options) error {
				ran = o.Gate
				if o.Env == nil || ctx == nil {
					t.Errorf("%s: no environment or no context", name)
				}
				if c.err == nil {
					fmt.Fprintln(o.Log, "ran")
				}
				return c.err
			}
		}, c.args...)
		if ran != c.gate || r.code != c.code || !strings.Contains(r.stderr, c.stderr) || r.stdout != "" {
			t.Errorf("%s: served %q, code %d, stdout %q, stderr %q; want %q, %d, none, %q", name, ran, r.code, r.stdout, r.stderr, c.gate, c.code, c.stderr)
		}
	}
}

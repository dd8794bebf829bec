package cli

import (
	"github.com/spf13/cobra"

	"egate/internal/daemon"
)

func (a *app) daemonCommand() *cobra.Command {
	var gate gateName
	c := &cobra.Command{
		Use:     "daemon",
		Short:   "Keep gates up to date while interfaces and names come and go",
		GroupID: groupOther,
		Long: `daemon runs until SIGTERM or Ctrl-C, and logs to standard error, a line for each change.
What is in force does not depend on it: policies stay so without it, and it may be
killed and started again at any time. While it runs

  - interfaces that come later and match a policy's patterns are guarded at once, and
    so are those that come to carry a default route, where a policy says "default";
  - answers of DNS servers that the kernel side could not read, such as those over
    16 KB, are asked for again by the daemon, over TCP; without it they are dropped;
  - policies that name no DNS servers follow those that the host uses;
  - what has expired makes room: addresses of names, questions, connections.

It serves the gates of its network namespace, also those that come later; each gate has
one daemon at the most. It tells systemd how it does (Type=notify); "make install"
installs a unit.`,
		Example: `  sudo egate daemon
  sudo egate daemon --gate lab
  sudo systemctl enable --now egate-daemon`,
		Args: arguments(0, 0, ""),
	}
	a.addGate(c, &gate, "the only gate to serve (default: all of this network namespace)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.daemon(c.Context(), daemon.Options{Gate: string(gate), Log: a.stderr, Env: a.env})
	}
	return c
}

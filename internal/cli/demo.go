package cli

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"egate/internal/datapath"
	"egate/internal/demo"
)

const maxDemoSeconds = 3600

func (a *app) demoCommand() *cobra.Command {
	var once bool
	var seconds int
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Show egate at work, on real traffic between two network namespaces",
		GroupID: groupOther,
		Long: `demo makes two network namespaces joined by a cable, and servers in one of them. From the
other it sends pings, web requests and datagrams over IPv4 and IPv6: first without a
policy, then with one that drops pings and rejects tcp/80 and tcp/443. It shows what
passed and what did not, and what the kernel counted.

Nothing of yours is touched, and nothing is left, also after Ctrl-C. It fails if
anything did not go as the policy says.`,
		Example: `  sudo egate demo
  sudo egate demo --once           one round, for a script
  sudo egate demo --seconds 60`,
		Args: arguments(0, 0, ""),
	}
	c.Flags().BoolVar(&once, "once", false, "try everything once")
	c.Flags().IntVar(&seconds, "seconds", 4, "send traffic for `N` seconds")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if seconds < 1 || seconds > maxDemoSeconds {
			return usagef("--seconds takes 1 to %d, found %d", maxDemoSeconds, seconds)
		}
		o := demo.Options{
			Out: a.stdout, Terminal: a.isTerminal(), Width: a.width(), For: time.Duration(seconds) * time.Second,
			ShowStatus: func(w io.Writer, s *datapath.Status) error {
				return writeStatus(w, s, a.width(), time.Now())
			},
		}
		if once {
			o.For = 0
		}
		return demo.Run(c.Context(), o)
	}
	return c
}

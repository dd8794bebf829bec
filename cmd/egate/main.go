// Command egate is the egress gate of a Linux host. All of it is in package
// cli and the stages below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"egate/internal/cli"
)

// version is set with -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	// A reader that goes away (egate status | head) must not end a command
	// before it has cleaned up: writes fail with EPIPE instead.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := cli.Run(ctx, cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Env: os.Getenv, Version: version,
	})
	stop()
	os.Exit(code)
}

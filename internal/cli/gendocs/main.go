// Command gendocs writes docs/COMMANDS.md; `go generate ./internal/cli` runs
// it. It is part of building egate, not of egate.
package main

import (
	"bytes"
	"fmt"
	"os"

	"egate/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, the file to write, found %d", len(args))
	}
	var b bytes.Buffer
	if err := cli.Reference(&b); err != nil {
		return err
	}
	return os.WriteFile(args[0], b.Bytes(), 0o644)
}

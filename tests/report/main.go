// Command report stands beside the stages: it reads the record of a test run
// (`go test -json`) from standard input, prints what failed, what was skipped
// and why, and the counts. It exits with 1 if a test failed, or skipped
// without being listed in the file of allowed skips:
//
//	go test -json ./... | go run ./tests/report -where host -skips tests/skips.txt
//
// So a test that can never run is seen, instead of being green for ever.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	ok, err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) (ok bool, err error) {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	where := flags.String("where", "host", "`place` of the run: host, nobody, or a kernel line of tests/vm")
	skipsFile := flags.String("skips", "tests/skips.txt", "`file` of allowed skips")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	text, err := os.ReadFile(*skipsFile)
	if err != nil {
		return false, fmt.Errorf("read allowed skips: %w", err)
	}
	allowed, err := parseSkips(*skipsFile, string(text))
	if err != nil {
		return false, err
	}
	r, err := readRecord(stdin, stdout)
	if err != nil {
		return false, err
	}
	return r.print(stdout, *where, allowed), nil
}

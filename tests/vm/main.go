// Command vm stands beside the stages: it runs a test binary on another kernel
// than the host's, in a virtual machine that lives as long as the binary.
//
//	go build -o .cache/vm ./tests/vm
//	.cache/vm fetch
//	go test -exec "$PWD/.cache/vm exec --kernel 6.1" ./internal/datapath
//
// The kernels are Debian's, fetched as packages by apt and unpacked into the
// user's cache folder; nothing is installed. The guest has no disk and no
// network: its root is built from the kernel's modules, a static busybox, the
// module's files at their own paths and the host's network tools. The machine
// is emulated (qemu's TCG), so it needs no privilege and no KVM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Exit codes of the runner itself. Any other one is the test binary's.
const (
	exitUsage       = 2
	exitUnavailable = 120 // there is no kernel or no qemu to run: the test was not tried
	exitVMBroke     = 125 // the machine failed, so nothing is known about the test
)

var (
	// errUnavailable: this host cannot provide the machine: another
	// architecture, a missing tool, no package source within reach.
	errUnavailable = errors.New("no virtual machine here")
	// errVM: the machine was started and failed.
	errVM = errors.New("the virtual machine broke")
	// errUsage: the command line is wrong.
	errUsage = errors.New("usage")
)

const usage = `usage: vm fetch [KERNEL...]
       vm exec --kernel KERNEL [--file PATH]... [--memory MIB] [--console FILE] BINARY [ARG...]

fetch brings the kernels (default: all) into the cache and prints their versions.
exec runs a test binary on a kernel: same working folder, EGATE_* variables and
output, and its exit code. %s names the kernel to the binary.
KERNEL: %s

exit code %d: no kernel or no qemu on this machine, the binary was not tried
exit code %d: the machine broke
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(),
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	code, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
	}
	os.Exit(code)
}

// run is the command without the process around it: it returns the exit code,
// and the error to print if the code is the runner's own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	help := func() {
		fmt.Fprintf(stderr, usage, envVM, strings.Join(kernelNames(), ", "), exitUnavailable, exitVMBroke)
	}
	code, err := 0, error(nil)
	switch {
	case len(args) == 0:
		err = fmt.Errorf("%w: no command", errUsage)
	case args[0] == "fetch":
		err = fetchCommand(ctx, args[1:], stdout, stderr)
	case args[0] == "exec":
		code, err = execCommand(ctx, args[1:], stdout, stderr)
	case slices.Contains([]string{"help", "-h", "--help"}, args[0]):
		help()
		return 0, nil
	default:
		err = fmt.Errorf("%w: unknown command %q", errUsage, args[0])
	}
	switch {
	case err == nil:
		return code, nil
	case errors.Is(err, errUsage):
		help()
		return exitUsage, err
	case errors.Is(err, errUnavailable):
		return exitUnavailable, err
	default:
		return exitVMBroke, err
	}
}

func fetchCommand(ctx context.Context, names []string, stdout, stderr io.Writer) error {
	if len(names) == 0 {
		names = kernelNames()
	}
	for _, name := range names {
		k, err := kernelByName(name)
		if err != nil {
			return err
		}
		begin := time.Now()
		image, err := fetch(ctx, k, stderr)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: Linux %s, package version %s, %.1f s\n",
			k.name, image.release, image.version, time.Since(begin).Seconds())
	}
	return nil
}

func execCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	kernelName := flags.String("kernel", "", "")
	memory := flags.Int("memory", 1024, "")
	console := flags.String("console", "", "")
	var files []string
	flags.Func("file", "", func(path string) error {
		files = append(files, path)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return 0, fmt.Errorf("%w: %v", errUsage, err)
	}
	if flags.NArg() == 0 {
		return 0, fmt.Errorf("%w: exec needs a binary", errUsage)
	}
	if *memory < 256 {
		return 0, fmt.Errorf("%w: --memory %d: want at least 256 (MiB)", errUsage, *memory)
	}
	k, err := kernelByName(*kernelName)
	if err != nil {
		return 0, err
	}
	image, err := cached(k)
	if errors.Is(err, os.ErrNotExist) {
		image, err = fetch(ctx, k, stderr)
	}
	if err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, fmt.Errorf("find working folder: %w", err)
	}
	job := job{
		kernel: k.name, binary: flags.Arg(0), args: flags.Args()[1:],
		dir: dir, files: files, env: guestEnv(os.Environ(), k.name),
	}
	m := machine{
		image: image, memoryMiB: *memory, console: *console,
		limit: timeLimit(job.args), stdout: stdout, stderr: stderr,
	}
	return m.runJob(ctx, job)
}

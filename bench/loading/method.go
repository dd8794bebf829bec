package loading

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"egate/bench/contender"
	"egate/bench/prefixes"
	"egate/bench/result"
	"egate/bench/world"
)

// method is how one contender is given a list in a world.
type method struct {
	write   func(name string, t *contender.Task) (path string, err error)
	command func(ctx context.Context, path string) *exec.Cmd
	// weigh says how much kernel memory there is now that may be the
	// contender's, in MB. It is of use for lists of at least weighable prefixes.
	weigh     func(context.Context) (float64, error)
	weighable int
}

func newMethod(ctx context.Context, c *contender.Contender, w *world.World, t *contender.Task) (*method, error) {
	if c.Gate != nil {
		gate, err := c.Gate(w)
		if err != nil {
			return nil, err
		}
		return &method{
			write: gate.Write, command: gate.Apply,
			weigh: func(context.Context) (float64, error) { return gate.MapsMB() },
		}, nil
	}
	dir, err := os.MkdirTemp("", "egate-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	w.KeepUntilClose(folder(dir))
	if c.Name == result.IPSet {
		if err := contender.PrepareIPSet(ctx, w, t); err != nil {
			return nil, err
		}
		return &method{
			write: writer(dir, contender.IPSetText), command: reader("ipset", "restore", "-file"),
			weigh: func(ctx context.Context) (float64, error) { return ipsetMB(ctx, w) },
		}, nil
	}
	return &method{
		write: writer(dir, contender.NFTSetText), command: reader("nft", "-f"),
		weigh: func(context.Context) (float64, error) { return machineMB() }, weighable: 100_000,
	}, nil
}

// folder is removed by being closed.
type folder string

func (f folder) Close() error { return os.RemoveAll(string(f)) }

func writer(dir string, text func(*contender.Task) string) func(string, *contender.Task) (string, error) {
	return func(name string, t *contender.Task) (string, error) {
		path := filepath.Join(dir, name)
		return path, os.WriteFile(path, []byte(text(t)), 0o600)
	}
}

func reader(name string, args ...string) func(context.Context, string) *exec.Cmd {
	return func(ctx context.Context, path string) *exec.Cmd {
		return exec.CommandContext(ctx, name, append(args[:len(args):len(args)], path)...)
	}
}

// ipsetMB reads what ipset says of the sets of a world.
func ipsetMB(ctx context.Context, w *world.World) (float64, error) {
	text, err := w.Sender.Command(ctx, "ipset", "list", "-terse")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(text) {
		if bytes, ok := strings.CutPrefix(strings.TrimSpace(line), "Size in memory: "); ok {
			n, err := strconv.ParseFloat(bytes, 64)
			if err != nil {
				return 0, fmt.Errorf("read ipset's size: %w", err)
			}
			total += n
		}
	}
	return total / 1e6, nil
}

// machineMB is the memory of the kernel's allocators, of the whole machine.
func machineMB() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	total, found := 0.0, 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "Slab:" && fields[0] != "VmallocUsed:" {
			continue
		}
		kb, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, fmt.Errorf("read memory: %w", err)
		}
		total += kb * 1024 / 1e6
		found++
	}
	if found != 2 {
		return 0, errors.New("read memory: /proc/meminfo lacks Slab or VmallocUsed")
	}
	return total, nil
}

// spare is a prefix that no list has, to change one element to.
func spare(family prefixes.Family) netip.Prefix {
	if family == prefixes.IPv4 {
		return netip.MustParsePrefix("198.51.100.0/24")
	}
	return netip.MustParsePrefix("2001:db8:1::/48")
}

package contender

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"egate/bench/world"
	"egate/internal/datapath"
)

// Command is how egate is started: a program with environment variables.
type Command struct {
	Path string
	Env  []string
}

// gate is the gate's name; each world has a bpffs of its own, so it can be the
// same everywhere.
const gate = "bench"

// Gate is egate as it is used in one world.
type Gate struct {
	BPFFS string // where its pins are, as this process sees it
	Dir   string // for policy files

	Policy string // path of the one that the contender installed

	command Command
	mount   int
}

// Gate makes a place for egate's pins and files. Both go with the world.
func (c Command) Gate(w *world.World) (*Gate, error) {
	g := &Gate{command: c, mount: -1}
	w.KeepUntilClose(g)
	var err error
	if g.Dir, err = os.MkdirTemp("", "egate-bench-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	// A bpffs that no mount table lists: it hangs on a file descriptor, and
	// what is pinned in it is gone with this process, however that ends.
	settings, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	defer unix.Close(settings)
	if err := unix.FsconfigCreate(settings); err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	if g.mount, err = unix.Fsmount(settings, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("make bpffs: %w", err)
	}
	g.BPFFS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), g.mount)
	return g, nil
}

// Close removes files and pins.
func (g *Gate) Close() error {
	err := os.RemoveAll(g.Dir)
	if g.mount >= 0 {
		err = errors.Join(err, unix.Close(g.mount))
	}
	return err
}

// Write writes the policy of a task, with its list in a set file as people have
// it, and returns the policy's path. Name tells one policy from another.
func (g *Gate) Write(name string, t *Task) (string, error) { return g.write(name, t, policyText) }

func (g *Gate) write(name string, t *Task, text func(t *Task, list string) string) (string, error) {
	list := filepath.Join(g.Dir, name+".txt")
	if t.Prefixes != nil {
		if err := os.WriteFile(list, []byte(lines(t.Prefixes)), 0o600); err != nil {
			return "", fmt.Errorf("write list: %w", err)
		}
	}
	path := filepath.Join(g.Dir, name+".yaml")
	if err := os.WriteFile(path, []byte(text(t, list)), 0o600); err != nil {
		return "", fmt.Errorf("write policy: %w", err)
	}
	return path, nil
}

// Apply is the command that puts a policy in force.
func (g *Gate) Apply(ctx context.Context, path string) *exec.Cmd {
	return g.egate(ctx, "apply", "--gate", gate, path)
}

// Off is the command that takes the gate away.
func (g *Gate) Off(ctx context.Context) *exec.Cmd {
	return g.egate(ctx, "off", "--gate", gate)
}

// Check is the command that only reads and compiles a policy.
func (g *Gate) Check(ctx context.Context, path string) *exec.Cmd {
	return g.egate(ctx, "check", path)
}

func (g *Gate) egate(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.command.Path, args...)
	cmd.Env = append(os.Environ(), append(g.command.Env, datapath.EnvBPFFS+"="+g.BPFFS)...)
	return cmd
}

func (c Command) install(ctx context.Context, w *world.World, t *Task) error {
	return c.installAs(ctx, w, t, policyText)
}

// installWithReplies installs a policy that keeps a table of connections, which
// the others do not.
func (c Command) installWithReplies(ctx context.Context, w *world.World, t *Task) error {
	return c.installAs(ctx, w, t, func(t *Task, list string) string {
		return strings.Replace(policyText(t, list), "\n  replies: false\n", "\n", 1)
	})
}

func (c Command) installAs(ctx context.Context, w *world.World, t *Task, text func(t *Task, list string) string) error {
	g, err := c.Gate(w)
	if err != nil {
		return err
	}
	if g.Policy, err = g.write("policy", t, text); err != nil {
		return err
	}
	_, err = w.Sender.Measure(g.Apply(ctx, g.Policy))
	return err
}

func policyText(t *Task, list string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "version: 1\nname: bench\ninterfaces: [%s]\n", world.Link)
	if t.Prefixes != nil {
		fmt.Fprintf(&text, "sets:\n  listed: {file: %s}\n", list)
	}
	other := Allow
	if t.Action == Allow {
		other = Drop
	}
	// Without events, as the others report nothing either.
	fmt.Fprintf(&text, "egress:\n  default: %s\n  replies: false\n  rules:\n", other)
	if t.Prefixes != nil {
		fmt.Fprintf(&text, "    - {name: listed, action: %s, events: none, to: {sets: [listed]}}\n", t.Action)
	}
	for i, r := range t.Rules {
		fmt.Fprintf(&text, "    - {name: rule-%d, action: %s, events: none, to: {addresses: [\"%v\"], ports: [%s/%d]}}\n",
			i, t.Action, r.To, r.Protocol, r.Port)
	}
	if t.Domain != "" {
		fmt.Fprintf(&text, "    - {name: names, action: %s, events: none, to: {domains: [\"*.%s\"]}}\ndns: {servers: [%v]}\n",
			t.Action, t.Domain, world.Peer4.Addr())
	}
	fmt.Fprintf(&text, "ingress: {default: allow}\n")
	return text.String()
}

// Package contender stands beside the stages: it sets up egate, and what people
// use today, to do the same task, and makes sure that they do.
package contender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"

	"github.com/cilium/ebpf"

	"egate/bench/programs"
	"egate/bench/result"
	"egate/bench/world"
)

// ErrWrongDecision says that a contender lets pass what it must drop, or the
// reverse, so that its figures would mean nothing.
var ErrWrongDecision = errors.New("decides wrongly")

// Contender is one way to filter what leaves.
type Contender struct {
	Name string
	// Needs are the commands it takes.
	Needs []string
	// Filters is false for what passes everything and is there to compare with.
	Filters bool
	// Refuses says why a task is not for it, "" if it is.
	Refuses func(*Task) string
	// Install sets it up in a world, where it stays until the world is closed.
	Install func(context.Context, *world.World, *Task) error
	// Gate is how egate is used step by step; nil for the others.
	Gate func(*world.World) (*Gate, error)
}

// All are the contenders, from nothing to egate, the command found at a path.
func All(egate Command) []Contender {
	return []Contender{
		{Name: result.Nothing, Refuses: never, Install: func(context.Context, *world.World, *Task) error { return nil }},
		{Name: result.Empty, Refuses: never, Install: attach(func(*Task) (*ebpf.Program, io.Closer, error) { return programs.LoadEmpty() })},
		{Name: result.ICMPDrop, Refuses: never, Install: attach(func(*Task) (*ebpf.Program, io.Closer, error) { return programs.LoadICMPDrop() })},
		{Name: result.Trie, Filters: true, Refuses: trieRefuses, Install: attach(func(t *Task) (*ebpf.Program, io.Closer, error) {
			return programs.LoadTrie(t.Prefixes.Prefixes)
		})},
		{Name: result.NFTRules, Filters: true, Needs: []string{"nft"}, Refuses: atMostRules, Install: installNFTRules},
		{Name: result.NFTSet, Filters: true, Needs: []string{"nft"}, Refuses: never, Install: installNFTSet},
		{Name: result.IPTablesRules, Filters: true, Needs: []string{"iptables", "ip6tables"}, Refuses: atMostRules, Install: installIPTablesRules},
		{Name: result.IPSet, Filters: true, Needs: []string{"ipset", "iptables", "ip6tables"}, Refuses: never, Install: installIPSet},
		{Name: result.Dnsmasq, Needs: []string{"dnsmasq"}, Refuses: namesOnly, Install: installDnsmasq},
		{Name: result.DnsmasqNFTSet, Filters: true, Needs: []string{"dnsmasq", "nft"}, Refuses: namesOnly, Install: installDnsmasqNFTSet},
		{Name: result.Sniffer, Filters: true, Needs: []string{"ipset", "iptables"}, Refuses: namesOnly, Install: installSniffer},
		{Name: result.Egate, Filters: true, Refuses: never, Install: egate.install, Gate: egate.Gate},
		{Name: result.EgateReplies, Filters: true, Refuses: never, Install: egate.installWithReplies},
	}
}

func never(*Task) string { return "" }

// mostInARow bounds rules in a row: at more of them a packet takes
// milliseconds, and nobody would wait for the figure.
const mostInARow = 4096

func atMostRules(t *Task) string {
	if t.Size() > mostInARow {
		return fmt.Sprintf("left out above %d: a packet meets every rule", mostInARow)
	}
	return ""
}

func trieRefuses(t *Task) string {
	switch {
	case t.Prefixes == nil:
		return "left out: it knows addresses only"
	case t.Action != Drop:
		return "left out: it is a program that drops what is listed"
	}
	return ""
}

func namesOnly(t *Task) string {
	if t.Domain == "" {
		return "left out: it knows names only"
	}
	return ""
}

// Missing is the first command that the contender takes and the machine lacks,
// "" if it has all.
func (c *Contender) Missing() string {
	for _, name := range c.Needs {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return ""
}

// attach makes an Install of what loads a program.
func attach(load func(*Task) (*ebpf.Program, io.Closer, error)) func(context.Context, *world.World, *Task) error {
	return func(_ context.Context, w *world.World, t *Task) error {
		program, closer, err := load(t)
		if err != nil {
			return err
		}
		w.KeepUntilClose(closer)
		return w.AttachEgress(program)
	}
}

// Setup makes a world with the contender in it and shows that it decides as the
// task says (else ErrWrongDecision). The caller closes the world.
func (c *Contender) Setup(ctx context.Context, t *Task) (*world.World, error) {
	w, err := world.New()
	if err != nil {
		return nil, err
	}
	if err := c.Install(ctx, w, t); err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s with %d: %w", c.Name, t.Size(), err), w.Close())
	}
	if err := c.Check(w, t); err != nil {
		return nil, errors.Join(fmt.Errorf("%s with %d: %w", c.Name, t.Size(), err), w.Close())
	}
	return w, nil
}

// checked is how many destinations of each kind are tried.
const checked = 512

// Check sends packets and compares what gets out with what the task says
// (ErrWrongDecision).
func (c *Contender) Check(w *world.World, t *Task) error {
	for _, want := range []struct {
		what   string
		to     []netip.AddrPort
		passes bool
	}{
		{"that may be sent to", t.Passing(), true},
		{"that may not be sent to", t.Dropped(), !c.Filters},
	} {
		to := want.to[:min(len(want.to), checked)]
		expected := 0
		if want.passes {
			expected = len(to)
		}
		passed, err := w.Passing(to, expected)
		if err != nil {
			return err
		}
		if passed != expected {
			return fmt.Errorf("%w: of %d packets to destinations %s, %d passed and not %d",
				ErrWrongDecision, len(to), want.what, passed, expected)
		}
	}
	return nil
}

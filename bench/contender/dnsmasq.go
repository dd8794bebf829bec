package contender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"

	"egate/bench/result"
	"egate/bench/world"
)

// Forwarder is where programs of a world ask for names where a process of their
// own host answers them.
var Forwarder = netip.MustParseAddr("127.0.0.1")

// Resolver is whom programs ask for names in a world that a contender is in.
func Resolver(contender string) netip.Addr {
	if contender == result.Dnsmasq || contender == result.DnsmasqNFTSet {
		return Forwarder
	}
	return world.Peer4.Addr()
}

// Process is a process that belongs to a world, and ends with it.
type Process struct {
	cmd    *exec.Cmd
	stderr world.Tail
}

// startProcess starts a command in the world.
func startProcess(ctx context.Context, w *world.World, name string, args ...string) error {
	p := &Process{cmd: exec.CommandContext(ctx, name, args...)}
	p.cmd.Stderr = &p.stderr
	if err := w.Sender.Start(p.cmd); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	w.KeepUntilClose(p)
	return nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Close ends the process. One that has ended by itself is an error.
func (p *Process) Close() error {
	_ = p.cmd.Process.Kill() // fails if it has ended, which waiting tells too
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return nil // killed
	}
	return fmt.Errorf("run %s: it has ended by itself: %w: %s", p.cmd.Path, err, p.stderr.String())
}

// installDnsmasq installs a forwarder as people have it, without a cache, so
// that each look-up goes to the resolver as it does without a forwarder.
func installDnsmasq(ctx context.Context, w *world.World, _ *Task) error {
	return startDnsmasq(ctx, w)
}

func startDnsmasq(ctx context.Context, w *world.World, args ...string) error {
	return startProcess(ctx, w, "dnsmasq", append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--pid-file=", "--user=root",
		"--no-resolv", "--no-hosts", "--cache-size=0", "--bind-interfaces",
		"--listen-address=" + Forwarder.String(), "--server=" + world.Peer4.Addr().String(),
	}, args...)...)
}

func installDnsmasqNFTSet(ctx context.Context, w *world.World, t *Task) error {
	text := fmt.Sprintf(`table inet bench {
set %s { type ipv4_addr; flags timeout; timeout 1h; }
chain out {
type filter hook output priority 0; policy drop;
oifname != %q accept
ip daddr %v meta l4proto { tcp, udp } th dport 53 accept
ip daddr @%s accept
}
}
`, setName, world.Link, world.Peer4.Addr(), setName)
	if err := run(ctx, w, text, "nft", "-f", "-"); err != nil {
		return err
	}
	return startDnsmasq(ctx, w, fmt.Sprintf("--nftset=/%s/4#inet#bench#%s", t.Domain, setName))
}

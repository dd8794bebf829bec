package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"egate/internal/testutil"
)

// fetch is a client that looks a name up as programs written in Go do. It
// connects to HOST:PORT and prints the address that it has reached.
func fetch(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want HOST:PORT, got %q", args)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(longWait))
	defer cancel()
	// The C library's resolver is getent's business.
	d := net.Dialer{Resolver: &net.Resolver{PreferGo: true}}
	c, err := d.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println(c.RemoteAddr())
	return c.Close()
}

// resolverChain is a way from a program to the name server.
type resolverChain struct {
	name string
	// start starts the stub, if there is one, and says where it listens.
	start func(t *testing.T, w *nameWorld) netip.Addr
	// dns is the policy's section: none where egate finds out by itself.
	dns string
}

var chains = []resolverChain{
	{"unbound", func(*testing.T, *nameWorld) netip.Addr { return resolverAddrs[0].Addr() }, ""},
	{"unbound over IPv6", func(*testing.T, *nameWorld) netip.Addr { return resolverAddrs[1].Addr() }, ""},
	{"dnsmasq and unbound", startDnsmasq("127.0.0.1"), "dns: {servers: [127.0.0.1, 10.77.0.3, \"fd77::3\"]}\n"},
	{"dnsmasq over IPv6 and unbound", startDnsmasq("::1"), "dns: {servers: [\"::1\", 10.77.0.3, \"fd77::3\"]}\n"},
	{"systemd-resolved and unbound", startResolved, ""},
}

// TestResolverChains: programs of several kinds reach what names lead to, by
// every chain of resolvers that people have, with the first packet, and nothing
// else.
func TestResolverChains(t *testing.T) {
	t.Parallel()
	tried := chains
	if _, vm := testutil.InVM(); vm {
		tried = chains[len(chains)-1:] // with all that the others have
	}
	for _, c := range tried {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newNameWorld(t)
			serveHTTP(t, w.server.Netns, 80, servicePort)
			resolver := startUnbound(t, w.server.Netns)
			stub := c.start(t, w)
			w.resolver(stub)
			// Asked before the gate stands, which learns these from a stub's memory.
			for _, name := range []string{"a1.n.test", "a2.n.test", "a3.u.test"} {
				w.waitForName(name)
			}
			w.apply(policyFor("veth0", egress("reject", listedRule,
				`name: web, action: allow, to: {domains: ["*.n.test"], ports: [tcp/80]}`)) + c.dns)
			w.clients(t)
			if stub.IsLoopback() {
				resolver.Stop()
				if got := getent(w, "a2.n.test"); got != passes {
					t.Errorf("getent with a stub that nobody answers %s", got)
				}
			}
			w.run("off")
		})
	}
}

// clients tries the programs, each with names of its own.
func (w *nameWorld) clients(t *testing.T) {
	type client struct {
		name string
		try  func(w *nameWorld, host string) outcome
	}
	tried := []client{{"getent", getent}, {"curl", curlHost}, {"dig", digAndConnect}, {"go", goClient}, {"python3", python}}
	if _, vm := testutil.InVM(); vm { // which has no Python, and takes a second to start each of them
		tried = tried[:2]
	}
	for _, c := range tried {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			first := 100 * (1 + len(c.name)) // numbers of its own
			for _, a := range []struct {
				want  outcome
				hosts []string
			}{
				{passes, []string{
					"a1.n.test", // a stub knows it already
					fmt.Sprintf("a%d.n.test", first),
					fmt.Sprintf("A%d.Sub.N.Test", first+1),
					fmt.Sprintf("a%d.cname2.n.test", first+2),
				}},
				{refused, []string{
					"a3.u.test", // a stub knows it already
					fmt.Sprintf("a%d.u.test", unlistedNumbers+first),
				}},
			} {
				before := stoppedTCP(w.status("host"))
				for _, host := range a.hosts {
					if got := c.try(w, host); got != a.want {
						t.Errorf("%s to %s %s, want that it %s", c.name, host, got, a.want)
					}
				}
				stopped := stoppedTCP(w.status("host")) - before
				if a.want == passes && stopped != 0 || a.want != passes && stopped < uint64(len(a.hosts)) {
					t.Errorf("%s to %q %s, and %d packets were stopped", c.name, a.hosts, a.want, stopped)
				}
			}
		})
	}
}

// reachAll connects to each address.
func (w *nameWorld) reachAll(text string) outcome {
	all := passes
	seen := map[netip.Addr]bool{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil || seen[a] {
			continue // an alias, in dig's output
		}
		seen[a] = true
		c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(a, servicePort), testutil.Patience(longWait))
		if err == nil {
			c.Close()
		} else {
			all = outcomeOf(err)
		}
	}
	if len(seen) != 2 {
		return outcome(fmt.Sprintf("finds %d addresses instead of 2: %s", len(seen), text))
	}
	return all
}

func getent(w *nameWorld, host string) outcome {
	w.t.Helper()
	// The C library asks for both families and prefers one of them by its own
	// rules.
	r := w.files.try("getent", "ahosts", host)
	if r.Code != 0 {
		return outcome(fmt.Sprintf("exits with %d: %s", r.Code, r.Stderr))
	}
	return w.reachAll(r.Stdout)
}

func digAndConnect(w *nameWorld, host string) outcome {
	w.t.Helper()
	r := w.files.try("dig", "+short", host, "A", host, "AAAA")
	if r.Code != 0 {
		return outcome(fmt.Sprintf("exits with %d: %s%s", r.Code, r.Stdout, r.Stderr))
	}
	return w.reachAll(r.Stdout)
}

func curlHost(w *nameWorld, host string) outcome {
	w.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		r := w.files.try("curl", "--silent", family, "--noproxy", "*", "--max-time", fmt.Sprint(testutil.Patience(longWait).Seconds()), "http://"+host+"/")
		switch {
		case r.Code == 0 && r.Stdout == "hello\n":
		case r.Code == 7:
			return refused
		default:
			return outcome(fmt.Sprintf("exits with %d: %s%s", r.Code, r.Stdout, r.Stderr))
		}
	}
	return passes
}

func goClient(w *nameWorld, host string) outcome {
	w.t.Helper()
	r := w.files.try(w.commandAs(mainFetch, fmt.Sprintf("%s:%d", host, servicePort))...)
	switch {
	case r.Code == 0:
		return passes
	case strings.Contains(r.Stderr, "connection refused"):
		return refused
	}
	return outcome(fmt.Sprintf("exits with %d: %s", r.Code, r.Stderr))
}

func python(w *nameWorld, host string) outcome {
	w.t.Helper()
	r := w.files.try(need(w.t, "python3"), "-I", "-c",
		`import socket,sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).getpeername())`,
		host, fmt.Sprint(servicePort))
	switch {
	case r.Code == 0:
		return passes
	case strings.Contains(r.Stderr, "ConnectionRefusedError"):
		return refused
	}
	return outcome(fmt.Sprintf("exits with %d: %s", r.Code, r.Stderr))
}

// waitForName asks as the host's programs do until there is an answer.
func (w *nameWorld) waitForName(name string) {
	w.t.Helper()
	eventually(w.t, 10*time.Second, "an answer about "+name, func() bool {
		for _, qtype := range []string{"A", "AAAA"} {
			r := w.files.try("dig", "+short", "+tries=1", "+time=2", name, qtype)
			if r.Code != 0 || strings.TrimSpace(r.Stdout) == "" {
				return false
			}
		}
		return true
	})
}

// startUnbound starts a resolver on the addresses kept for it, which asks the
// name server.
func startUnbound(t *testing.T, in *testutil.Netns) *testutil.Process {
	t.Helper()
	program := need(t, "unbound")
	text := `server:
  verbosity: 0
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "/"
  pidfile: ""
  num-threads: 1
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  local-zone: "test." nodefault
  edns-buffer-size: 4096
  max-udp-size: 4096
`
	for _, a := range resolverAddrs {
		text += "  interface: " + a.Addr().String() + "\n"
	}
	text += "remote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n"
	for _, a := range serverAddrs {
		text += "  forward-addr: " + a.Addr().String() + "\n"
	}
	file := filepath.Join(t.TempDir(), "unbound.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return view{netns: in, dir: t.TempDir()}.start(program, "-c", file)
}

// startDnsmasq starts a stub on the guarded host that asks unbound.
func startDnsmasq(at string) func(*testing.T, *nameWorld) netip.Addr {
	return func(t *testing.T, w *nameWorld) netip.Addr {
		t.Helper()
		command := []string{need(t, "dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
			"--user=root", "--pid-file=", "--log-facility=-", "--bind-interfaces", "--interface=lo", "--except-interface=veth0",
			"--listen-address=" + at}
		for _, a := range resolverAddrs {
			command = append(command, "--server="+a.Addr().String())
		}
		w.files.start(command...)
		return netip.MustParseAddr(at)
	}
}

// startResolved starts systemd-resolved on the guarded host, without the rest
// of systemd and without D-Bus; it tells in /run whom it asks.
func startResolved(t *testing.T, w *nameWorld) netip.Addr {
	t.Helper()
	program := need(t, "systemd-resolved", "/lib/systemd", "/usr/lib/systemd", "../../.cache/systemd-resolved/lib/systemd")
	servers := ""
	for _, a := range resolverAddrs {
		servers += " " + a.Addr().String()
	}
	w.files.write(t, "/etc/systemd/resolved.conf", "[Resolve]\nDNS="+servers+
		"\nFallbackDNS=\nDomains=~.\nDNSSEC=no\nDNSOverTLS=no\nLLMNR=no\nMulticastDNS=no\n")
	w.files.write(t, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsystemd-resolve:x:991:991::/:/bin/false\n")
	w.files.write(t, "/run/systemd/here", "")
	w.files.start(program)
	eventually(t, 10*time.Second, "the file by which systemd-resolved tells whom it asks", func() bool {
		text, err := os.ReadFile(filepath.Join(w.files.dir, "/run/systemd/resolve/resolv.conf"))
		return err == nil && strings.Contains(string(text), resolverAddrs[0].Addr().String())
	})
	return netip.MustParseAddr("127.0.0.53")
}

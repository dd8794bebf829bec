package e2e

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// serveLines sends back each line that arrives at a TCP port.
func serveLines(t *testing.T, in *testutil.Netns, port uint16) {
	t.Helper()
	go accept(listenTCP(t, in, port), func(c net.Conn) {
		beQuiet(t, c)
		io.Copy(c, c)
	})
}

// beQuiet keeps a connection from sending what nobody says: a policy that does
// not allow it would reset it.
func beQuiet(t *testing.T, c net.Conn) {
	if err := c.(*net.TCPConn).SetKeepAlive(false); err != nil {
		t.Error(err)
	}
}

// conversation is a connection that stays open.
type conversation struct {
	net.Conn
	in *bufio.Reader
}

func (w *nameWorld) converse(to netip.Addr, port uint16) *conversation {
	w.t.Helper()
	c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(to, port), testutil.Patience(longWait))
	if err != nil {
		w.t.Fatalf("connect to %v: %v", to, err)
	}
	w.t.Cleanup(func() { c.Close() })
	beQuiet(w.t, c)
	return &conversation{c, bufio.NewReader(c)}
}

// say sends a line and waits for it to come back.
func (c *conversation) say(t *testing.T, line string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(testutil.Patience(longWait)))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Errorf("say %q: %v", line, err)
		return
	}
	if got, err := c.in.ReadString('\n'); err != nil || strings.TrimSpace(got) != line {
		t.Errorf("said %q, heard %q, %v", line, got, err)
	}
}

// TestNamesOutlivePolicies: what was learned, and the names that connections go
// by, stay when another policy takes over: nobody asks again.
func TestNamesOutlivePolicies(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveLines(t, w.server.Netns, servicePort)
	serveLines(t, w.server.Netns, 80)
	listed := policyFor("veth0", egress("reject", listedRule, `name: web, action: allow, to: {domains: ["*.n.test"], ports: [tcp/80]}`))
	// The same names by other rules, in another order and among others.
	others := policyFor("veth0", egress("reject",
		`name: no-ping, action: drop, to: {icmp: [echo-request]}`,
		`name: some, action: allow, to: {domains: ["x.test", "*.cdn.test"], ports: [tcp/443]}`,
		`name: exact, action: allow, to: {domains: [a1.n.test], ports: [tcp/80, tcp/8080]}`,
		`name: wild, action: allow, to: {domains: ["*.test"], ports: [tcp/80, tcp/8080]}`))
	unlisted := policyFor("veth0", egress("reject", `name: other, action: allow, to: {domains: ["*.m.test"], ports: [tcp/8080]}`))
	without := policyFor("veth0", egress("reject", `name: ping, action: allow, to: {icmp: [echo-request]}`))

	w.apply(listed)
	open, quiet := w.look("a1.n.test"), w.look("a2.n.test")
	asked := w.names.times("a1.n.test") + w.names.times("a2.n.test")
	var talks []*conversation
	for _, to := range open {
		c := w.converse(to, servicePort)
		c.say(t, "before")
		web := w.converse(to, 80)
		web.say(t, "GET / HTTP/1.1")
		web.say(t, "Host: a1.n.test")
		io.WriteString(web, "\r\n")
		if line, err := web.in.ReadString('\n'); err != nil || line != "\r\n" {
			t.Fatalf("after a request: %q, %v", line, err)
		}
		talks = append(talks, c, web)
	}
	all := func(when string, want outcome) {
		t.Helper()
		for _, to := range quiet {
			w.reach(to, want)
		}
		if want == passes {
			for _, c := range talks {
				c.say(t, when)
			}
		}
	}
	all("under the first policy", passes)
	w.applyWarned(others)
	all("under other rules", passes)
	w.apply(unlisted)
	all("", refused)
	w.apply(listed)
	all("listed again", passes)
	w.apply(without)
	all("", refused)
	w.apply(listed)
	all("after a policy without names", passes)

	w.apply(unlisted, "--confirm", shortTrial().String())
	all("", refused)
	sleepPast(t, deadlineOf(t, w.status("host")))
	all("after a trial that nobody confirmed", passes)
	if s := w.status("host"); s.State != datapath.Reverted {
		t.Errorf("the gate is %s, want %s", s.State, datapath.Reverted)
	}
	if n := w.names.times("a1.n.test") + w.names.times("a2.n.test"); n != asked {
		t.Errorf("the server was asked %d times more", n-asked)
	}

	// A connection goes by its name: where nothing allows that any more, it ends.
	w.apply(unlisted)
	for _, c := range talks {
		c.SetDeadline(time.Now().Add(testutil.Patience(longWait)))
		io.WriteString(c, "more\n")
		if line, err := c.in.ReadString('\n'); err == nil {
			t.Errorf("a connection to a name that nothing allows any more goes on: %q", line)
		}
	}
	w.run("off")
}

// TestServerOnLoopback: a stub on the guarded host itself is reached by lo,
// where the gate reads DNS and judges nothing. off takes all of it away.
func TestServerOnLoopback(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	client := w.client.Netns
	serveSink(t, w.server.Netns, servicePort)
	// Its own addresses are reached by lo as well.
	stubs := append(w.clientAddr(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	serveNames(t, client, stubs...)
	serveSink(t, client, servicePort)
	w.resolver(stubs...)
	before := hooks(t, client)
	w.apply(policyFor("veth0", egress("reject", listedRule)))

	s := w.status("host")
	if len(s.Interfaces) != 2 || s.Interfaces[0].Name != "lo" || !s.Interfaces[0].DNSOnly || s.Interfaces[1].DNSOnly {
		t.Errorf("the interfaces are %+v, want lo for DNS only and veth0", s.Interfaces)
	}
	for _, stub := range stubs {
		w.mustAsk(query{name: "a1.n.test", to: netip.AddrPortFrom(stub, 53)})
		w.mustAsk(query{name: "a2.n.test", to: netip.AddrPortFrom(stub, 53), network: "tcp", qtype: dns.TypeAAAA})
		w.mustAsk(query{name: "a3.u.test", to: netip.AddrPortFrom(stub, 53)})
		w.reach(stub, passes) // all else on lo
		if got := w.status("host").Interfaces[0].Hooks[0]; got.Allowed.Packets+got.Dropped.Packets+got.Rejected.Packets != 0 {
			t.Errorf("lo counts %+v, want nothing: packets there are not judged", got)
		}
	}
	first, _ := numbered(1)
	_, second := numbered(2)
	third, _ := numbered(3)
	w.reach(first, passes)
	w.reach(second, passes)
	w.reach(third, refused)

	w.run("off")
	w.reach(third, passes)
	if after := hooks(t, client); after != before {
		t.Errorf("off left the interfaces as\n%s\nthey were\n%s", after, before)
	}
	if _, err := os.Stat(filepath.Join(w.bpffs, "egate")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("off left its folder in the bpffs: %v", err)
	}
}

// hooks tells what stands on the interfaces of a namespace.
func hooks(t *testing.T, in *testutil.Netns) string {
	t.Helper()
	var text strings.Builder
	for _, name := range []string{"lo", "veth0"} {
		text.WriteString(in.Exec("tc", "qdisc", "show", "dev", name))
		text.WriteString(in.Exec("tc", "filter", "show", "dev", name, "egress"))
		text.WriteString(in.Exec("tc", "filter", "show", "dev", name, "ingress"))
		l, err := in.Handle().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		in.Run(func() {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXEgress, ebpf.AttachTCXIngress} {
				found, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: at})
				if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
					continue // a kernel without TCX
				}
				if err != nil {
					t.Fatal(err)
				}
				for range found.Programs {
					text.WriteString(name + ": a program at " + at.String() + "\n")
				}
			}
		})
	}
	return text.String()
}

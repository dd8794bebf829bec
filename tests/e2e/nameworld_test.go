package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/cli"
	"egate/internal/testutil"
)

// A host that names lead to has every address of these, so that each name can
// have one of its own: see numbered.
var (
	named4 = netip.MustParsePrefix("198.18.0.0/15")
	named6 = netip.MustParsePrefix("2001:db8:77::/48")
)

// numbered is the address of each family that the name aN leads to.
func numbered(n int) (v4, v6 netip.Addr) {
	a := named4.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
	b := named6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], uint32(n))
	return netip.AddrFrom4(a), netip.AddrFrom16(b)
}

// The resolver in front of the name server, where a test starts one.
var resolverAddrs = testutil.Addrs("10.77.0.3/24", "fd77::3/64")

// nameWorld is a guarded host, and behind a wire the host that all names lead
// to, which also is the name server of all of them.
type nameWorld struct {
	pair
	*egate
	names *nameserver
	files view // what programs on the guarded host see
}

func newNameWorld(t *testing.T) *nameWorld {
	t.Helper()
	p := newPair(t)
	server := p.server.Netns
	for _, a := range resolverAddrs {
		// KnowEachOther knew nothing of these yet.
		setUp(t, server, "veth0", a)
		p.client.Netns.Exec("ip", "neigh", "replace", a.Addr().String(), "dev", "veth0", "lladdr", p.server.MAC.String())
	}
	for _, prefix := range []netip.Prefix{named4, named6} {
		server.Exec("ip", "route", "add", "local", prefix.String(), "dev", "lo")
	}
	for family, every := range []string{"0.0.0.0/0", "::/0"} {
		testutil.Route(t, p.client, netip.MustParsePrefix(every), p.serverAddr()[family])
	}
	w := &nameWorld{pair: p, egate: newEgate(t, p.client.Netns), names: serveNames(t, server, p.serverAddr()...)}
	w.files = view{netns: p.client.Netns, dir: t.TempDir()}
	w.files.write(t, "/etc/nsswitch.conf", "hosts: files dns\n")
	w.resolver(p.serverAddr()...)
	return w
}

// in is the same world in a subtest.
func (w *nameWorld) in(t *testing.T) *nameWorld {
	sub := *w
	sub.egate = &egate{t, w.netns, w.bpffs}
	return &sub
}

// resolver says whom the guarded host's programs ask.
func (w *nameWorld) resolver(addrs ...netip.Addr) {
	w.t.Helper()
	w.files.write(w.t, "/etc/resolv.conf", resolvConf(addrs))
}

// resolvConf is the text of an /etc/resolv.conf.
func resolvConf(servers []netip.Addr) string {
	text := ""
	for _, a := range servers {
		text += "nameserver " + a.String() + "\n"
	}
	return text
}

// apply puts a policy of egress rules in force, as a person on the guarded host
// does: egate finds the host's servers where the policy names none.
func (w *nameWorld) apply(policy string, flags ...string) {
	w.t.Helper()
	if r := w.applyWarned(policy, flags...); r.Stderr != "" {
		w.t.Fatalf("egate apply warns:\n%s\n%s", r.Stderr, policy)
	}
}

// applyWarned is apply for a policy of which check warns.
func (w *nameWorld) applyWarned(policy string, flags ...string) testutil.Result {
	w.t.Helper()
	r := w.files.try(w.command(append([]string{"apply", w.file(policy)}, flags...)...)...)
	if r.Code != cli.ExitOK {
		w.t.Fatalf("egate apply: exit code %d\n%s%s\n%s", r.Code, r.Stdout, r.Stderr, policy)
	}
	return r
}

// dnsSection writes the part of a policy that names the name server, and
// further keys.
func dnsSection(keys ...string) string {
	servers := ""
	for i, a := range serverAddrs {
		if i > 0 {
			servers += ", "
		}
		servers += fmt.Sprintf("%q", a.Addr())
	}
	text := "dns:\n  servers: [" + servers + "]\n"
	for _, k := range keys {
		text += "  " + k + "\n"
	}
	return text
}

// query is one question, to the name server unless it says whom.
type query struct {
	name    string
	qtype   uint16 // 0: A
	network string // "": udp
	to      netip.AddrPort
	edns    uint16 // bytes of an answer that fit; 0: no EDNS
}

// ask sends a question from the guarded host and waits for the answer.
func (w *nameWorld) ask(q query) (*dns.Msg, time.Duration, error) {
	w.t.Helper()
	return w.askWithin(q, testutil.Patience(longWait))
}

func (w *nameWorld) askWithin(q query, limit time.Duration) (*dns.Msg, time.Duration, error) {
	w.t.Helper()
	if q.network == "" {
		q.network = "udp"
	}
	if q.qtype == 0 {
		q.qtype = dns.TypeA
	}
	if !q.to.IsValid() {
		q.to = netip.AddrPortFrom(w.serverAddr()[0], 53)
	}
	begin := time.Now()
	answer, err := exchangeDNS(w.client.Netns, q, limit)
	return answer, time.Since(begin), err
}

// exchangeDNS sends a question by a socket of its own and waits for the answer.
func exchangeDNS(from *testutil.Netns, q query, limit time.Duration) (*dns.Msg, error) {
	message := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), q.qtype)
	if q.edns > 0 {
		message.SetEdns0(q.edns, false)
	}
	end := time.Now().Add(limit)
	c, err := dial(from, q.network, q.to, limit)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(end); err != nil {
		return nil, err
	}
	d := dns.Conn{Conn: c, UDPSize: 4096}
	if err := d.WriteMsg(message); err != nil {
		return nil, err
	}
	answer, err := d.ReadMsg()
	if err == nil && answer.Id != message.Id {
		return nil, fmt.Errorf("the answer's id is %d, want %d", answer.Id, message.Id)
	}
	return answer, err
}

// mustAsk is ask where an answer must come. It gives the addresses in it.
func (w *nameWorld) mustAsk(q query) []netip.Addr {
	w.t.Helper()
	answer, _, err := w.ask(q)
	if err != nil {
		w.t.Fatalf("ask for %s: %v", q.name, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		w.t.Fatalf("ask for %s: %s", q.name, dns.RcodeToString[answer.Rcode])
	}
	return addressesIn(answer)
}

// addressesIn are those of A and AAAA records, and hints.
func addressesIn(m *dns.Msg) (all []netip.Addr) {
	add := func(ip []byte) {
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap())
		}
	}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			add(rr.A)
		case *dns.AAAA:
			add(rr.AAAA)
		case *dns.HTTPS:
			for _, value := range rr.Value {
				switch hint := value.(type) {
				case *dns.SVCBIPv4Hint:
					for _, ip := range hint.Hint {
						add(ip)
					}
				case *dns.SVCBIPv6Hint:
					for _, ip := range hint.Hint {
						add(ip)
					}
				}
			}
		}
	}
	return all
}

// servicePort is one where nothing is verified and serveNamed listens.
const servicePort = 8080

// reach connects to an address from the guarded host.
func (w *nameWorld) reach(to netip.Addr, want outcome) {
	w.t.Helper()
	connect(servicePort).check(w.t, w.client.Netns, to, want)
}

// view is a folder whose files take the place of the machine's own for the
// programs that are run in it: nothing of the machine is changed.
type view struct {
	netns *testutil.Netns
	dir   string
}

// write makes a file of the view, or gives it another content. The name is one
// that programs look for; the machine must have it too.
func (v view) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inView mounts what stands before "--", pairs of a source and its place, and
// becomes what stands behind.
const inView = `while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 125; shift 2; done; shift; exec "$@"`

// leaveBPFFS is for what lives long: a mount of its own would keep what others
// pin alive.
const leaveBPFFS = `umount -a -t bpf 2>/dev/null; `

func (v view) commandLine(first string, command []string) []string {
	line := []string{"--mount", "--propagation", "private", "sh", "-c", first + inView, "sh"}
	add := func(name string) {
		path := filepath.Join(v.dir, name)
		if _, err := os.Stat(path); err == nil {
			line = append(line, path, name)
		}
	}
	for _, name := range []string{"/run", "/etc/passwd", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/systemd"} {
		add(name)
	}
	return append(append(line, "--", "env"), command...)
}

// try runs a program to its end.
func (v view) try(command ...string) testutil.Result {
	return v.netns.Try("unshare", v.commandLine("", command)...)
}

// start runs a program until the test ends.
func (v view) start(command ...string) *testutil.Process {
	return v.netns.Start("unshare", v.commandLine(leaveBPFFS, command)...)
}

// need finds a program where it is installed, or in one of the folders given,
// and skips the test without it.
func need(t *testing.T, name string, folders ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil && !strings.Contains(path, "/shims/") {
		return path
	}
	for _, dir := range append(folders, "/usr/bin", "/usr/sbin") {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("needs %s", name)
	return ""
}

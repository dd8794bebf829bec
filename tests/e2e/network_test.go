package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// Two hosts and the wire between them, which most tests use.
var (
	clientAddrs = testutil.Addrs("10.77.0.1/24", "fd77::1/64")
	serverAddrs = testutil.Addrs("10.77.0.2/24", "fd77::2/64")
)

type pair struct {
	client, server testutil.Link // "veth0" in a namespace of its own each
}

// newPair makes two namespaces with a wire between them on which nothing moves
// that no test sends.
func newPair(t *testing.T) pair {
	t.Helper()
	p := newTalkingPair(t)
	testutil.KnowEachOther(t, p.client, p.server)
	settle(t, p.client, p.server)
	return p
}

// newTalkingPair is newPair where the hosts must find each other first.
func newTalkingPair(t *testing.T) pair {
	t.Helper()
	client, server := quietNetns(t), quietNetns(t)
	var p pair
	p.client, p.server = testutil.VethPair(t,
		testutil.Port{Netns: client, Name: "veth0", Addrs: clientAddrs},
		testutil.Port{Netns: server, Name: "veth0", Addrs: serverAddrs})
	return p
}

// quietNetns is a namespace whose multicast listener reports come at once, and
// not at a random time within the next second.
func quietNetns(t *testing.T) *testutil.Netns {
	t.Helper()
	n := testutil.NewNetns(t)
	n.Sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1")
	return n
}

// settle waits until the kernel has sent by itself what it sends on new
// interfaces: both ends of each wire have a link-local address, which can take
// a second, and nothing moves for a while.
func settle(t *testing.T, ends ...testutil.Link) {
	t.Helper()
	for _, l := range ends {
		h := l.Netns.Handle()
		eventually(t, 5*time.Second, "a link-local address of "+l.Name, func() bool {
			link, err := h.LinkByIndex(l.Index)
			if err != nil {
				t.Fatal(err)
			}
			all, err := h.AddrList(link, netlink.FAMILY_V6)
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				return false // addresses changed meanwhile; eventually asks again
			}
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(all, func(a netlink.Addr) bool {
				return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
			})
		})
	}
	for _, l := range ends {
		waitForCalm(t, l)
	}
}

// waitForCalm waits until nothing moves on a wire for a while.
func waitForCalm(t *testing.T, l testutil.Link) {
	t.Helper()
	calm := testutil.Patience(100 * time.Millisecond)
	last, since := readWire(t, l), time.Now()
	eventually(t, 5*time.Second, "silence on "+l.Name, func() bool {
		if now := readWire(t, l); now.tx != last.tx || now.rx != last.rx {
			last, since = now, time.Now()
		}
		return time.Since(since) > calm
	})
}

// serverAddr gives the server's address of each family.
func (p pair) serverAddr() []netip.Addr { return addrsOf(p.server) }
func (p pair) clientAddr() []netip.Addr { return addrsOf(p.client) }

func addrsOf(l testutil.Link) []netip.Addr {
	var all []netip.Addr
	for _, prefix := range l.Addrs {
		all = append(all, prefix.Addr())
	}
	return all
}

// policyFor writes a policy text for interfaces: chains are of egress() and
// ingress(); a direction that is not given is open.
func policyFor(interfaces string, chains ...string) string {
	text := fmt.Sprintf("version: 1\nname: e2e\ninterfaces: [%s]\n", interfaces)
	all := strings.Join(chains, "")
	for _, direction := range []string{"egress", "ingress"} {
		if !strings.Contains(all, direction+":\n") {
			all += chain(direction, "allow")
		}
	}
	return text + all
}

func egress(defaultAction string, rules ...string) string {
	return chain("egress", defaultAction, rules...)
}

func ingress(defaultAction string, rules ...string) string {
	return chain("ingress", defaultAction, rules...)
}

// chain writes a direction; a default may have further keys on lines of its own.
func chain(direction, defaultAction string, rules ...string) string {
	text := fmt.Sprintf("%s:\n  default: %s\n", direction, strings.ReplaceAll(defaultAction, "\n", "\n  "))
	if len(rules) > 0 {
		text += "  rules:\n"
	}
	for _, r := range rules {
		text += "    - {" + r + "}\n"
	}
	return text
}

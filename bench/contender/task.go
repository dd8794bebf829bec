package contender

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"egate/bench/prefixes"
)

// Action is what is done with what a task lists; the rest gets the opposite.
type Action string

const (
	Drop  Action = "drop"
	Allow Action = "allow"
)

// Task is what all contenders of a comparison must decide alike: a list of
// rules or a list of prefixes, of one family, or the names below a domain.
type Task struct {
	Family   prefixes.Family
	Action   Action
	Rules    []Rule
	Prefixes *prefixes.List
	// Domain is one whose names may be sent to, once they were looked up at
	// the peer. Their addresses are not known before.
	Domain string

	// Listed and Unlisted are destinations of UDP packets, in no order. A
	// contender that decides otherwise about one of them is not measured.
	Listed, Unlisted []netip.AddrPort
}

// Rule lists packets of one protocol to one port of one network.
type Rule struct {
	To       netip.Prefix
	Protocol string // tcp or udp
	Port     uint16
}

// freePort is in no rule.
const freePort = 9

// Rules makes a task of n rules and so many destinations. Each rule has a
// network of its own; ports and protocols repeat. Half of the unlisted
// destinations are in networks of rules, on another port.
func Rules(family prefixes.Family, action Action, n, destinations int) Task {
	t := Task{Family: family, Action: action, Rules: make([]Rule, n)}
	random := rand.New(rand.NewPCG(uint64(family), uint64(n)))
	for i := range t.Rules {
		t.Rules[i] = Rule{To: network(family, i), Protocol: "udp", Port: uint16(1000 + i%97)}
		// The last rule, which a packet meets last, is always of UDP.
		if (n-i)%2 == 0 {
			t.Rules[i].Protocol = "tcp"
		}
	}
	for i := range destinations {
		rule := t.Rules[n-1-2*random.IntN((n+1)/2)]
		host := inside(rule.To, random)
		t.Listed = append(t.Listed, netip.AddrPortFrom(host, rule.Port))
		if i%2 == 1 {
			host = inside(network(family, n+random.IntN(4096)), random)
		}
		t.Unlisted = append(t.Unlisted, netip.AddrPortFrom(host, freePort))
	}
	return t
}

// network is the i-th network of rules: a /24 or a /48.
func network(family prefixes.Family, i int) netip.Prefix {
	if family == prefixes.IPv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 20<<24|uint32(i)<<8)
		return netip.PrefixFrom(netip.AddrFrom4(b), 24)
	}
	b := [16]byte{0x26}
	binary.BigEndian.PutUint32(b[2:], uint32(i))
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

func inside(p netip.Prefix, random *rand.Rand) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(1 + random.IntN(254))
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return a
}

// Prefixes makes a task of a list and so many destinations.
func Prefixes(list *prefixes.List, action Action, destinations int) Task {
	t := Task{Family: list.Family, Action: action, Prefixes: list}
	for _, a := range list.Inside(destinations) {
		t.Listed = append(t.Listed, netip.AddrPortFrom(a, freePort))
	}
	for _, a := range list.Outside(destinations) {
		t.Unlisted = append(t.Unlisted, netip.AddrPortFrom(a, freePort))
	}
	return t
}

// Names makes a task of the names below a domain.
func Names(domain string) Task {
	return Task{Family: prefixes.IPv4, Action: Allow, Domain: domain}
}

// Passing are the destinations that may be sent to.
func (t *Task) Passing() []netip.AddrPort {
	if t.Action == Allow {
		return t.Listed
	}
	return t.Unlisted
}

// Dropped are the destinations that may not.
func (t *Task) Dropped() []netip.AddrPort {
	if t.Action == Allow {
		return t.Unlisted
	}
	return t.Listed
}

// Size is the number of rules, prefixes or domains.
func (t *Task) Size() int {
	if t.Domain != "" {
		return 1
	}
	if t.Prefixes != nil {
		return len(t.Prefixes.Prefixes)
	}
	return len(t.Rules)
}

// lines is a list as text, one prefix a line.
func lines(list *prefixes.List) string {
	var text strings.Builder
	for _, p := range list.Prefixes {
		fmt.Fprintln(&text, p)
	}
	return text.String()
}

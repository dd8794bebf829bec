package programs

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"egate/bench/prefixes"
	"egate/bench/result"
)

// Sheets are all that this package measures.
func Sheets() []Sheet {
	return slices.Concat(prefixSheets(), destinationSheets(), ruleSheets(), nameSheets())
}

// ruleSheets are the sheets over rules and over flows. No other program takes
// part that knows rules; what those of others cost is in the sheets with real
// traffic.
func ruleSheets() []Sheet {
	return []Sheet{
		{
			ID: "programs-rules-hot", Title: "Program alone: packet of the last rule (address, protocol, port), again and again", Size: "rules",
			build: func(b *bench, form Form) error { return b.rules(form.Rules, 1) },
		},
		{
			ID: "programs-rules-random", Title: "Program alone: packets of random rules (address, protocol, port)", Size: "rules",
			build: func(b *bench, form Form) error { return b.rules(form.Rules, form.Targets) },
		},
		{
			ID: "programs-flows", Title: "Program alone: packets of so many flows in turn, remembered for their replies", Size: "flows",
			build: func(b *bench, form Form) error { return b.flows(form.Flows) },
		},
	}
}

// rules adds the contenders of these numbers of rules. One target is one of the
// last rule.
func (b *bench) rules(sizes []int, targets int) error {
	for _, size := range sizes {
		l := prefixes.New(prefixes.IPv4, size)
		random := rand.New(rand.NewPCG(1, uint64(size)))
		all := make([]target, targets)
		for i := range all {
			rule := size - 1
			if targets > 1 {
				rule = random.IntN(size)
			}
			all[i] = target{to: netip.AddrPortFrom(l.InsideOf(rule), rulePort(rule))}
		}
		p, err := b.apply(allowlist(l.Prefixes, false), "")
		if err != nil {
			return err
		}
		if err := b.compare(size, all, []filter{{result.Egate, p}}); err != nil {
			return err
		}
	}
	return nil
}

// flows adds a policy of 20 rules, once remembering who opened a connection and
// once not, for these numbers of flows.
func (b *bench) flows(sizes []int) error {
	networks := make([]netip.Prefix, 20)
	for i := range networks {
		networks[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i)}), 16)
	}
	for _, size := range sizes {
		all := make([]target, size)
		for i := range all {
			rule := i % len(networks)
			to := networks[rule].Addr().As4()
			// An odd factor leads to every address of a network once.
			binary.BigEndian.PutUint16(to[2:], uint16(i/len(networks)*40503))
			all[i] = target{to: netip.AddrPortFrom(netip.AddrFrom4(to), rulePort(rule))}
		}
		// Gates of their own, for each begins with no flow.
		forgets, err := b.apply(allowlist(networks, false), "")
		if err != nil {
			return err
		}
		remembers, err := b.apply(allowlist(networks, true), "")
		if err != nil {
			return err
		}
		if err := b.compare(size, all, []filter{{nameNoTrack, forgets}, {result.Egate, remembers}}); err != nil {
			return err
		}
	}
	return nil
}

// allowlist is the policy that allows one UDP port to each prefix and drops the
// rest.
func allowlist(to []netip.Prefix, replies bool) string {
	var text strings.Builder
	fmt.Fprintf(&text, "version: 1\ninterfaces: [%s]\negress:\n  default: drop\n  replies: %t\n  rules:\n", guardedLink, replies)
	for i, p := range to {
		fmt.Fprintf(&text, "    - {action: allow, to: {addresses: [%s], ports: [udp/%d]}}\n", p, rulePort(i))
	}
	return text.String()
}

// rulePort is another one for each of the rules.
func rulePort(rule int) uint16 { return uint16(10_000 + rule) }

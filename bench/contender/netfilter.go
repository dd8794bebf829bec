package contender

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"egate/bench/prefixes"
	"egate/bench/world"
)

// setName is the set's name in nftables and in ipset.
const setName = "listed"

// word returns one of two words, for IPv4 and IPv6.
func word(f prefixes.Family, v4, v6 string) string {
	if f == prefixes.IPv4 {
		return v4
	}
	return v6
}

// run starts a command in the world with a text as its standard input.
func run(ctx context.Context, w *world.World, text, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(text)
	_, err := w.Sender.Measure(cmd)
	return err
}

func installNFTRules(ctx context.Context, w *world.World, t *Task) error {
	var text strings.Builder
	nftTable(&text, t, "", func() {
		family, verdict := word(t.Family, "ip", "ip6"), nftVerdict(t.Action)
		for _, r := range t.Rules {
			fmt.Fprintf(&text, "%s daddr %v %s dport %d %s\n", family, r.To, r.Protocol, r.Port, verdict)
		}
		if t.Prefixes != nil {
			for _, p := range t.Prefixes.Prefixes {
				fmt.Fprintf(&text, "%s daddr %v %s\n", family, p, verdict)
			}
		}
	})
	return run(ctx, w, text.String(), "nft", "-f", "-")
}

// installNFTSet takes nftables' best form: for prefixes a set of intervals, for
// rules one look-up of address, protocol and port together.
func installNFTSet(ctx context.Context, w *world.World, t *Task) error {
	return run(ctx, w, NFTSetText(t), "nft", "-f", "-")
}

// NFTSetText is the input of `nft -f` that makes the set anew and judges by it.
// It takes the place of what an earlier one made.
func NFTSetText(t *Task) string {
	var text strings.Builder
	nftTable(&text, t, nftSet(t), func() {
		family, verdict := word(t.Family, "ip", "ip6"), nftVerdict(t.Action)
		if t.Prefixes != nil {
			fmt.Fprintf(&text, "%s daddr @%s %s\n", family, setName, verdict)
		} else {
			fmt.Fprintf(&text, "%s daddr . meta l4proto . th dport @%s %s\n", family, setName, verdict)
		}
	})
	return text.String()
}

// nftTable writes a table with a set, if any, and the chain that guards the
// link; rules writes what is in it.
func nftTable(text *strings.Builder, t *Task, set string, rules func()) {
	policy := "accept"
	if t.Action == Allow {
		policy = "drop"
	}
	// The first line makes a table where there is none, so that it can be deleted.
	fmt.Fprintf(text, "table netdev bench\ndelete table netdev bench\ntable netdev bench {\n%s", set)
	fmt.Fprintf(text, "chain out {\ntype filter hook egress device %q priority 0; policy %s;\n", world.Link, policy)
	rules()
	fmt.Fprintf(text, "}\n}\n")
}

func nftSet(t *Task) string {
	var text strings.Builder
	address := word(t.Family, "ipv4_addr", "ipv6_addr")
	if t.Prefixes == nil {
		fmt.Fprintf(&text, "set %s {\ntype %s . inet_proto . inet_service; flags interval;\nelements = {\n", setName, address)
		for _, r := range t.Rules {
			fmt.Fprintf(&text, "%v . %s . %d,\n", r.To, r.Protocol, r.Port)
		}
	} else {
		fmt.Fprintf(&text, "set %s {\ntype %s; flags interval; auto-merge;\nelements = {\n", setName, address)
		for _, p := range t.Prefixes.Prefixes {
			fmt.Fprintf(&text, "%v,\n", p)
		}
	}
	fmt.Fprintf(&text, "}\n}\n")
	return text.String()
}

func nftVerdict(a Action) string {
	if a == Allow {
		return "accept"
	}
	return "drop"
}

func installIPTablesRules(ctx context.Context, w *world.World, t *Task) error {
	var rules strings.Builder
	target := iptablesTarget(t.Action)
	for _, r := range t.Rules {
		fmt.Fprintf(&rules, "-A OUTPUT -o %s -d %v -p %s --dport %d -j %s\n", world.Link, r.To, r.Protocol, r.Port, target)
	}
	if t.Prefixes != nil {
		for _, p := range t.Prefixes.Prefixes {
			fmt.Fprintf(&rules, "-A OUTPUT -o %s -d %v -j %s\n", world.Link, p, target)
		}
	}
	return iptablesRestore(ctx, w, t, rules.String())
}

func iptablesRestore(ctx context.Context, w *world.World, t *Task, rules string) error {
	if t.Action == Allow {
		rules += fmt.Sprintf("-A OUTPUT -o %s -j DROP\n", world.Link)
	}
	text := "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n" + rules + "COMMIT\n"
	return run(ctx, w, text, word(t.Family, "iptables-restore", "ip6tables-restore"))
}

func iptablesTarget(a Action) string {
	if a == Allow {
		return "ACCEPT"
	}
	return "DROP"
}

func installIPSet(ctx context.Context, w *world.World, t *Task) error {
	if err := PrepareIPSet(ctx, w, t); err != nil {
		return err
	}
	return run(ctx, w, IPSetText(t), "ipset", "restore")
}

// PrepareIPSet makes an empty set for a task and the rule that judges by it.
func PrepareIPSet(ctx context.Context, w *world.World, t *Task) error {
	if err := run(ctx, w, "create "+setName+ipsetForm(t), "ipset", "restore"); err != nil {
		return err
	}
	parts := "dst"
	if t.Prefixes == nil {
		parts = "dst,dst"
	}
	return iptablesRestore(ctx, w, t, fmt.Sprintf("-A OUTPUT -o %s -m set --match-set %s %s -j %s\n",
		world.Link, setName, parts, iptablesTarget(t.Action)))
}

// IPSetText is the input of `ipset restore` that fills another set and puts it
// in the place of the one that the rule refers to.
func IPSetText(t *Task) string {
	var text strings.Builder
	const next = setName + "-next"
	fmt.Fprintf(&text, "create %s%s", next, ipsetForm(t))
	for _, r := range t.Rules {
		fmt.Fprintf(&text, "add %s %v,%s:%d\n", next, r.To, r.Protocol, r.Port)
	}
	if t.Prefixes != nil {
		for _, p := range t.Prefixes.Prefixes {
			fmt.Fprintf(&text, "add %s %v\n", next, p)
		}
	}
	fmt.Fprintf(&text, "swap %s %s\ndestroy %s\n", setName, next, next)
	return text.String()
}

// ipsetForm is what kind of set a task takes.
func ipsetForm(t *Task) string {
	kind := "hash:net"
	if t.Prefixes == nil {
		kind = "hash:net,port"
	}
	room := max(t.Size(), 64)
	return fmt.Sprintf(" %s family %s hashsize %d maxelem %d\n", kind, word(t.Family, "inet", "inet6"), room, room)
}

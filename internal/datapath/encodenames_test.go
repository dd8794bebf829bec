package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"egate/internal/domain"
	"egate/internal/policy"
	"egate/internal/resolvers"
	"egate/internal/tables"
	"egate/internal/verdict"
)

const listsNames = "interfaces: [eth0]\negress:\n  default: drop\n  rules:\n" +
	"    - {name: named, action: allow, to: {domains: [a.example, \"*.b.example\"], ports: [tcp/443, udp/443, tcp/9]}}\n"

func TestEncodeNames(t *testing.T) {
	key := domain.Key{3, 4}
	for _, c := range []struct {
		name, policy string
		want         abiEgateNamesConfig
		rejects      uint8
	}{
		{"no names", onlyPorts(53), abiEgateNamesConfig{}, 0},
		{"dns alone", onlyPorts(53) + "dns: {servers: [10.0.0.53]}\n", abiEgateNamesConfig{MaxLabel: 63}, 1},
		{"rules alone", strings.Replace(listsNames, "udp/443, ", "", 1), abiEgateNamesConfig{MaxLabel: 63, Deepest: 2}, 1},
		{"unverified", strings.ReplaceAll(listsNames, "tcp/9]}", "tcp/9]}, verify: none"), abiEgateNamesConfig{MaxLabel: 63, Deepest: 2}, 1},
		{"quic", strings.ReplaceAll(listsNames, "tcp/9]}", "tcp/9]}, verify: none, quic: drop"), abiEgateNamesConfig{MaxLabel: 63, Deepest: 2}, 1},
		{"listed", onlyPorts() + "dns: {names: listed, refuse: nxdomain}\n", abiEgateNamesConfig{MaxLabel: 63, ListedOnly: 1, Nxdomain: 1}, 1},
		{"types", onlyPorts() + "dns: {types: [A, AAAA, TYPE255, TYPE300, HTTPS]}\n",
			abiEgateNamesConfig{MaxLabel: 63, CheckTypes: 1, Types: [4]uint64{1<<1 | 1<<28, 1 << (65 - 64), 0, 1 << 63}}, 1},
		{"label", onlyPorts() + "dns: {max_label: 20}\n", abiEgateNamesConfig{MaxLabel: 20}, 1},
		{"rate", onlyPorts() + "dns: {rate: 50/s}\n", abiEgateNamesConfig{MaxLabel: 63, RateIntervalNs: 20_000_000, RateBurst: 50}, 1},
		{"elsewhere dropped", onlyPorts() + "dns: {elsewhere: drop}\n", abiEgateNamesConfig{MaxLabel: 63, Elsewhere: uint8(verdict.Drop)}, 1},
		{"elsewhere rejected", onlyPorts() + "dns: {elsewhere: reject}\n", abiEgateNamesConfig{MaxLabel: 63, Elsewhere: uint8(verdict.Reject)}, 1},
		{"deep", strings.ReplaceAll(listsNames, "a.example", "a.b.c.d.e.example"), abiEgateNamesConfig{MaxLabel: 63, Deepest: 6}, 1},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			if c.want.MaxLabel != 0 {
				c.want.InUse, c.want.Key = 1, key
			}
			got := encode(testSet(t, c.policy), 5, 9, key)
			if got.config.Names != c.want {
				t.Errorf("names %+v, want %+v", got.config.Names, c.want)
			}
			if r := got.config.Chain[verdict.Egress].Rejects; r != c.rejects {
				t.Errorf("rejects %d, want %d", r, c.rejects)
			}
			if r := got.config.Chain[verdict.Ingress].Rejects; r != 0 {
				t.Errorf("ingress rejects %d, want 0", r)
			}
		})
	}
}

func TestRuleFlags(t *testing.T) {
	rule := func(action, more string) string {
		return "interfaces: [eth0]\negress:\n  default: drop\n  rules:\n    - {action: " + action + ", to: {domains: [a.example]}" + more + "}\n"
	}
	const named, verify, all, ech, quic = 1, 2, 4, 8, 16
	for _, c := range []struct {
		policy string
		want   uint8
	}{
		{onlyPorts(9), 0},
		{rule("allow", ""), named | verify},
		{rule("drop", ""), named},
		{rule("allow", ", verify: none"), named},
		{rule("allow", ", verify: sni"), named | verify | all},
		{rule("allow", ", ech: drop"), named | verify | ech},
		{rule("allow", ", quic: drop, verify: none"), named | quic},
	} {
		got := encode(testSet(t, c.policy), 1, 1, domain.Key{})
		if flags := got.rules[0].Flags; flags != c.want {
			t.Errorf("flags %d, want %d\n%s", flags, c.want, c.policy)
		}
		if flags := got.rules[len(got.rules)-1].Flags; flags != 0 {
			t.Errorf("the default has flags %d", flags)
		}
	}
}

// TestEncodeNameVectors: the name dimension has vectors and no other table.
func TestEncodeNameVectors(t *testing.T) {
	set := testSet(t, listsNames)
	c := encode(set, 1, 1, domain.Key{})
	egress := &c.config.Chain[verdict.Egress]
	v := set.Chains[verdict.Egress].Vectors[tables.Name]
	at := egress.Vectors[tables.Name]
	if egress.Used[tables.Name] != 1 || egress.Strides[tables.Name] != uint32(v.Stride) || at == 0 || at%8 != 0 {
		t.Fatalf("used %d, stride %d, at %d", egress.Used[tables.Name], egress.Strides[tables.Name], at)
	}
	for i, word := range v.Words {
		if c.vectors[int(at)+i] != word {
			t.Errorf("word %d: %x, want %x", i, c.vectors[int(at)+i], word)
		}
	}
	if i := c.config.Chain[verdict.Ingress]; i.Used[tables.Name] != 0 {
		t.Error("ingress uses names")
	}
}

func TestEncodeDomains(t *testing.T) {
	key := domain.Key{5, 6}
	table := &tables.NameTable{Entries: []tables.NameEntry{
		{Name: "a.example", Exact: 1, AskExact: true},
		{Name: "b.example", Exact: 2, Below: 3, AskBelow: true},
	}}
	hashes, values, err := encodeDomains(table, key)
	if err != nil {
		t.Fatal(err)
	}
	want := []abiEgateDomain{{Exact: 1, AskExact: 1}, {Exact: 2, Below: 3, AskBelow: 1}}
	for i := range want {
		if values[i] != want[i] || hashes[i] != key.Hash(table.Entries[i].Name) {
			t.Errorf("%s: %x %+v, want %x %+v", table.Entries[i].Name, hashes[i], values[i], key.Hash(table.Entries[i].Name), want[i])
		}
	}
	// No two names are known to collide; the same name twice does.
	table.Entries = append(table.Entries, tables.NameEntry{Name: "a.example"})
	_, _, err = encodeDomains(table, key)
	wantError(t, "collision", err, ErrUnsupported)
	if err != nil && strings.Count(err.Error(), "a.example") != 2 {
		t.Errorf("collision: %v; want it to name both", err)
	}
}

func TestTrustedServers(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	own := []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("::1")}
	many := make([]netip.Addr, policy.MaxServers+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	}
	for _, c := range []struct {
		name string
		dns  tables.DNS
		host []netip.Addr
		want []netip.Addr // nil with InUse: an error
	}{
		{"not in use", tables.DNS{}, nil, nil},
		{"of the policy", tables.DNS{InUse: true, DNS: policy.DNS{Servers: own}}, host, own},
		{"of the host", tables.DNS{InUse: true}, host, host},
		{"none", tables.DNS{InUse: true}, nil, nil},
		{"too many", tables.DNS{InUse: true}, many, nil},
	} {
		setHostServers(t, c.host...)
		got, err := trustedServers(&c.dns)
		if c.dns.InUse && c.want == nil {
			wantError(t, c.name, err, ErrNoServer)
			continue
		}
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

// setHostServers makes the host use these servers for one test.
func setHostServers(t testing.TB, servers ...netip.Addr) {
	before := hostServers
	hostServers = func() ([]netip.Addr, error) { return servers, nil }
	t.Cleanup(func() { hostServers = before })
}

func TestResolverFlags(t *testing.T) {
	const trusted, doh = 1, 2
	known := resolvers.Known()[0]
	servers := []netip.Addr{netip.MustParseAddr("10.0.0.53"), known}
	for _, c := range []struct {
		elsewhere verdict.Action
		known     uint32
		others    bool
	}{{verdict.Allow, trusted, false}, {verdict.Drop, trusted | doh, true}} {
		got := resolverFlags(&tables.DNS{InUse: true, DNS: policy.DNS{Elsewhere: c.elsewhere}}, servers)
		if got[addrKey(servers[0])] != trusted || got[addrKey(known)] != c.known || (len(got) > 2) != c.others {
			t.Errorf("elsewhere %v: %d entries, %d of the server, %d of %v; want %d and %d", c.elsewhere, len(got), got[addrKey(servers[0])], got[addrKey(known)], known, trusted, c.known)
		}
	}
}

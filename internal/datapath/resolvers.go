package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"egate/internal/policy"
	"egate/internal/resolvers"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// Names of a generation's maps about names, which are pinned where it uses some.
const (
	resolversMap  = "resolvers"   // what addresses are to its section dns
	nameEpochsMap = "name_epochs" // changed when an address is given a name, so that nothing cached holds
	domainsMap    = "domains"
	vectorsMap    = "vectors"
)

// hostServers finds the servers that the host uses. Tests set it.
var hostServers = resolvers.HostServers

// trustedServers gives the servers whose answers open names, sorted: the
// policy's, or those of the host. Errors wrap ErrNoServer where there are none.
func trustedServers(dns *tables.DNS) ([]netip.Addr, error) {
	if !dns.InUse {
		return nil, nil
	}
	servers := dns.Servers
	if servers == nil {
		var err error
		if servers, err = hostServers(); err != nil {
			return nil, fmt.Errorf("find DNS servers: %w", err)
		}
	}
	switch {
	case len(servers) == 0:
		return nil, fmt.Errorf("find DNS servers: the policy uses names, and neither it nor /etc/resolv.conf says whose answers count; list them in the policy as dns: {servers: [...]}: %w", ErrNoServer)
	case len(servers) > policy.MaxServers:
		return nil, fmt.Errorf("find DNS servers: the host has %d, at most %d can be trusted; list them in the policy as dns: {servers: [...]}: %w", len(servers), policy.MaxServers, ErrNoServer)
	}
	return servers, nil
}

// resolverFlags is what map `resolvers` holds of these servers and, where the
// policy says what becomes of DNS elsewhere, of known resolvers.
func resolverFlags(dns *tables.DNS, servers []netip.Addr) map[abiEgateAddr]uint32 {
	flags := map[abiEgateAddr]uint32{}
	for _, a := range servers {
		flags[addrKey(a)] |= uint32(abiEgateResolverEGATE_RESOLVER_TRUSTED)
	}
	if dns.Elsewhere == verdict.Allow {
		return flags
	}
	for _, a := range resolvers.Known() {
		flags[addrKey(a)] |= uint32(abiEgateResolverEGATE_RESOLVER_DOH)
	}
	return flags
}

// fillResolvers writes a generation's map of resolvers.
func fillResolvers(m *ebpf.Map, flags map[abiEgateAddr]uint32) error {
	for a, f := range flags {
		if err := m.Put(&a, f); err != nil {
			return fmt.Errorf("write resolvers: %w", err)
		}
	}
	return nil
}

// findDNSOnly finds the interface by which servers on this host are reached
// where the policy does not guard it: lo, on which packets between addresses of
// one network namespace run. Warnings name servers whose answers come by
// another interface that the policy does not guard, so that they open nothing.
func findDNSOnly(servers []netip.Addr, found []guarded) (only []guarded, warnings []string, err error) {
	if len(servers) == 0 {
		return nil, nil, nil
	}
	own, err := ownAddresses()
	if err != nil {
		return nil, nil, err
	}
	links, err := listLinks()
	if err != nil {
		return nil, nil, err
	}
	for _, server := range servers {
		if server.IsLoopback() || own[server] {
			if only, err = addLoopback(only, found, links); err != nil {
				return nil, nil, err
			}
			continue
		}
		if server.IsLinkLocalUnicast() { // a route to it needs the interface, and its zone is not known
			continue
		}
		if name := unguardedWay(server, found, links); name != "" {
			warnings = append(warnings, fmt.Sprintf("DNS server %v is reached by %s, which the policy does not guard, so its answers open no names; add %s to interfaces", server, name, name))
		}
	}
	return only, warnings, nil
}

// addLoopback adds the loopback interface unless it is guarded.
func addLoopback(only, found []guarded, links []netlink.Link) ([]guarded, error) {
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Flags&net.FlagLoopback != 0 })
	if i < 0 {
		return only, nil
	}
	lo := links[i].Attrs()
	isLoopback := func(g guarded) bool { return g.Index == lo.Index }
	if slices.ContainsFunc(found, isLoopback) || slices.ContainsFunc(only, isLoopback) {
		return only, nil
	}
	g, err := guardedOf(lo)
	if err != nil {
		return nil, err
	}
	return append(only, g), nil
}

// ownAddresses are those of this network namespace's interfaces.
func ownAddresses() (map[netip.Addr]bool, error) {
	own := map[netip.Addr]bool{}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	for _, a := range list {
		own[addrOf(a.IP)] = true
	}
	return own, nil
}

// unguardedWay gives the name of the interface by which packets to an address
// leave, if the policy does not guard it; "" otherwise, and where no route leads
// there or the kernel does not tell.
func unguardedWay(to netip.Addr, found []guarded, links []netlink.Link) string {
	routes, err := netlink.RouteGet(net.IP(to.AsSlice()))
	if err != nil || len(routes) == 0 || routes[0].LinkIndex == 0 {
		return ""
	}
	index := routes[0].LinkIndex
	if slices.ContainsFunc(found, func(g guarded) bool { return g.Index == index }) {
		return ""
	}
	for _, l := range links {
		if l.Attrs().Index == index {
			return l.Attrs().Name
		}
	}
	return ""
}

// trustedOf lists the servers in a map of resolvers, sorted.
func trustedOf(m *ebpf.Map) ([]netip.Addr, error) {
	trusted := []netip.Addr{}
	var key abiEgateAddr
	var flags uint32
	entries := m.Iterate()
	for entries.Next(&key, &flags) {
		if flags&uint32(abiEgateResolverEGATE_RESOLVER_TRUSTED) != 0 {
			trusted = append(trusted, netipOf(key))
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read resolvers: %w", err)
	}
	slices.SortFunc(trusted, netip.Addr.Compare)
	return trusted, nil
}

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"egate/internal/policy"
)

// FollowServers makes the policies of a gate that name no DNS servers trust
// those that the host uses now, and tells which are new and which are trusted
// no longer. New ones come in before old ones go, and where the host has none at
// present nothing changes: one that is being configured anew has none for a
// moment. Where a new one is reached by loopback, Adopt attaches there.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged, ErrNoServer or
// ErrPermission.
func FollowServers(gate string) (added, removed []netip.Addr, err error) {
	added, removed, err = followServers(gate)
	if err != nil {
		return added, removed, fmt.Errorf("follow DNS servers: %w", explain(err))
	}
	return added, removed, nil
}

func followServers(name string) (added, removed []netip.Addr, err error) {
	g, err := findGate(name)
	if err != nil {
		return nil, nil, err
	}
	exists, err := g.exists()
	if err != nil {
		return nil, nil, err
	}
	if !exists {
		return nil, nil, g.errNone()
	}
	v, err := patiently(g.adoptable)
	if err != nil {
		return nil, nil, err
	}
	defer v.close()
	for _, gen := range v.kept() {
		if !gen.meta.HostServers {
			continue
		}
		servers, err := hostServers()
		if err != nil {
			return added, removed, fmt.Errorf("find DNS servers: %w", err)
		}
		if len(servers) > policy.MaxServers {
			return added, removed, fmt.Errorf("find DNS servers: the host has %d, at most %d can be trusted; those of before stay: %w", len(servers), policy.MaxServers, ErrNoServer)
		}
		if len(servers) == 0 {
			continue
		}
		fresh, gone, err := gen.trust(servers)
		added, removed = append(added, fresh...), append(removed, gone...)
		if err != nil {
			return added, removed, err
		}
	}
	return unique(added), unique(removed), nil
}

func unique(list []netip.Addr) []netip.Addr {
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// trust makes a generation trust these servers and no others.
func (gen *generation) trust(servers []netip.Addr) (added, removed []netip.Addr, err error) {
	m, err := gen.openWritable(resolversMap)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	now, err := trustedOf(m)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range servers {
		if slices.Contains(now, a) {
			continue
		}
		if err := changeFlags(m, a, func(f uint32) uint32 { return f | uint32(abiEgateResolverEGATE_RESOLVER_TRUSTED) }); err != nil {
			return added, nil, err
		}
		added = append(added, a)
	}
	for _, a := range now {
		if slices.Contains(servers, a) {
			continue
		}
		if err := changeFlags(m, a, func(f uint32) uint32 { return f &^ uint32(abiEgateResolverEGATE_RESOLVER_TRUSTED) }); err != nil {
			return added, removed, err
		}
		removed = append(removed, a)
	}
	return added, removed, nil
}

// changeFlags changes what an address is to the policy; one that is nothing
// leaves the map.
func changeFlags(m *ebpf.Map, a netip.Addr, change func(uint32) uint32) error {
	key := addrKey(a)
	var flags uint32
	if err := m.Lookup(&key, &flags); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read resolvers: %w", err)
	}
	var err error
	if flags = change(flags); flags != 0 {
		err = m.Put(&key, flags)
	} else if err = m.Delete(&key); errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("write resolvers: %w", err)
	}
	return nil
}

// missingForDNS gives the loopback interface if a server that the generation
// trusts is reached by it, and DNS is not read there yet. ok is false where there
// is nothing to do.
func (gen *generation) missingForDNS(links *linkTable) (lo guarded, ok bool, err error) {
	if gen.meta.Names == nil {
		return guarded{}, false, nil
	}
	m, err := gen.openMap(resolversMap)
	if err != nil {
		return guarded{}, false, err
	}
	defer m.Close()
	servers, err := trustedOf(m)
	if err != nil {
		return guarded{}, false, err
	}
	own, err := ownAddresses()
	if err != nil {
		return guarded{}, false, err
	}
	if !slices.ContainsFunc(servers, func(a netip.Addr) bool { return a.IsLoopback() || own[a] }) {
		return guarded{}, false, nil
	}
	only, err := addLoopback(nil, gen.attached(), links.all)
	if err != nil || len(only) == 0 {
		return guarded{}, false, err
	}
	return only[0], true, nil
}

// enterForDNS makes the generation read DNS on an interface, and let its packets
// pass unjudged.
func (gen *generation) enterForDNS(lo guarded) error {
	r, err := openRoster(gen)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.ifaces.Put(uint32(lo.Index), &abiEgateIface{Link: lo.Link, DnsOnly: 1}); err != nil {
		return fmt.Errorf("write interfaces: %w", err)
	}
	return r.note(onlyForDNS, newAdoption(lo, 0))
}

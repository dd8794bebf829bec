package datapath

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/ipset"
	"egate/internal/packet"
)

// Socket states of include/net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpClose       = 7
	tcpListen      = 10
)

// seedFlows tells a table of connections about those that exist already in
// this network namespace, so that a policy that begins to drop does not cut
// connections which peers opened before. The side that opened a TCP connection
// is not kept by the kernel: a connection at a port where something listens
// counts as opened from outside, every other one as opened from here. What is
// only forwarded has no socket, and is not known. A problem is a sentence for
// people: the kernel does not list its sockets.
func seedFlows(flows *ebpf.Map) (problem string, err error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "", fmt.Errorf("read clock: %w", err)
	}
	s := seeder{flows: flows, seenNs: uint64(now.Nano())}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		tcp, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return noSockets(err), nil
		}
		udp, err := netlink.SocketDiagUDP(family)
		if err != nil {
			return noSockets(err), nil
		}
		s.tcp, s.udp = append(s.tcp, tcp...), append(s.udp, udp...)
	}
	return "", s.run()
}

func noSockets(err error) string {
	return fmt.Sprintf("the kernel does not list its sockets (%v), so replies on connections that peers opened before are not recognised", err)
}

type seeder struct {
	flows    *ebpf.Map
	seenNs   uint64
	tcp, udp []*netlink.Socket
}

// listener is a local address and port; the unspecified address of either
// family stands for all.
type listener struct {
	addr netip.Addr
	port uint16
}

func (s *seeder) run() error {
	listens := map[listener]bool{}
	for _, k := range s.tcp {
		if k.State == tcpListen {
			listens[listener{addrOf(k.ID.Source), k.ID.SourcePort}] = true
		}
	}
	isListening := func(k *netlink.Socket) bool {
		for _, addr := range []netip.Addr{addrOf(k.ID.Source), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if listens[listener{addr, k.ID.SourcePort}] {
				return true
			}
		}
		return false
	}
	for _, k := range s.tcp {
		if k.State == tcpListen || k.State == tcpClose {
			continue
		}
		opener := abiEgateDirectionEGATE_EGRESS
		if k.State != tcpSynSent && isListening(k) {
			opener = abiEgateDirectionEGATE_INGRESS
		}
		if err := s.add(k, packet.ProtoTCP, opener); err != nil {
			return err
		}
	}
	for _, k := range s.udp {
		if k.State != tcpEstablished { // connected
			continue
		}
		if err := s.add(k, packet.ProtoUDP, abiEgateDirectionEGATE_EGRESS); err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) add(k *netlink.Socket, proto uint8, opener abiEgateDirection) error {
	local, remote := addrOf(k.ID.Source), addrOf(k.ID.Destination)
	if !local.IsValid() || !remote.IsValid() {
		return nil
	}
	key := abiEgateFlowKey{
		Local: addrKey(local), Remote: addrKey(remote),
		LocalPort: k.ID.SourcePort, RemotePort: k.ID.DestinationPort, Proto: proto,
	}
	return addFlow(s.flows, &key, &abiEgateFlow{SeenNs: s.seenNs, Opener: uint8(opener)})
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func addrKey(a netip.Addr) abiEgateAddr {
	n := ipset.FromNetip(a)
	return abiEgateAddr{Hi: n.Hi, Lo: n.Lo}
}

func netipOf(a abiEgateAddr) netip.Addr { return ipset.Addr{Hi: a.Hi, Lo: a.Lo}.Netip() }

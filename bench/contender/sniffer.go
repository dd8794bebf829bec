package contender

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/bench/world"
)

// sniffer reads DNS answers beside their way, and enters their addresses into a
// set, while the application already has the answer.
type sniffer struct {
	socket int
	sets   *netlink.Handle
	suffix string
	ending atomic.Bool
	wait   sync.WaitGroup
	failed error // of the reader, once wait is over
}

func installSniffer(ctx context.Context, w *world.World, t *Task) error {
	if err := run(ctx, w, fmt.Sprintf("create %s hash:ip maxelem 1000000\n", setName), "ipset", "restore"); err != nil {
		return err
	}
	err := iptablesRestore(ctx, w, t, fmt.Sprintf("-A OUTPUT -o %s -d %v -p udp --dport 53 -j ACCEPT\n-A OUTPUT -o %s -m set --match-set %s dst -j ACCEPT\n",
		world.Link, world.Peer4.Addr(), world.Link, setName))
	if err != nil {
		return err
	}
	s := &sniffer{socket: -1, suffix: "." + t.Domain + "."}
	if err := w.Sender.Run(s.open); err != nil {
		return errors.Join(fmt.Errorf("make sniffer: %w", err), s.Close())
	}
	w.KeepUntilClose(s)
	s.wait.Go(func() { s.failed = s.read() })
	return nil
}

// open makes the sockets, in the network namespace of its thread.
func (s *sniffer) open() (err error) {
	if s.sets, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	link, err := net.InterfaceByName(world.Link)
	if err != nil {
		return err
	}
	ipv4 := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	if s.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(ipv4)); err != nil {
		return err
	}
	// So that reading ends soon after the socket is to be closed.
	wait := unix.Timeval{Usec: 50_000}
	return errors.Join(unix.SetsockoptTimeval(s.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.Bind(s.socket, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: link.Index}))
}

// read enters addresses until the sniffer is closed.
func (s *sniffer) read() error {
	packet := make([]byte, 4096)
	for !s.ending.Load() {
		n, _, err := unix.Recvfrom(s.socket, packet, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read answers: %w", err)
		}
		if err := s.enter(packet[:n]); err != nil {
			return err
		}
	}
	return nil
}

// enter reads an IPv4 packet, and what it is an answer about.
func (s *sniffer) enter(packet []byte) error {
	const udpHeader = 8
	if len(packet) < 20 {
		return nil
	}
	header := int(packet[0]&15) * 4
	if packet[9] != unix.IPPROTO_UDP || len(packet) < header+udpHeader || binary.BigEndian.Uint16(packet[header:]) != 53 {
		return nil
	}
	var m dns.Msg
	if err := m.Unpack(packet[header+udpHeader:]); err != nil || len(m.Question) != 1 || !strings.HasSuffix(m.Question[0].Name, s.suffix) {
		return nil // nothing that this one knows
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			if err := s.sets.IpsetAdd(setName, &netlink.IPSetEntry{IP: a.A, Replace: true}); err != nil {
				return fmt.Errorf("enter %v into the set: %w", a.A, err)
			}
		}
	}
	return nil
}

// Close ends the reader.
func (s *sniffer) Close() error {
	s.ending.Store(true)
	s.wait.Wait()
	if s.socket >= 0 {
		unix.Close(s.socket)
	}
	if s.sets != nil {
		s.sets.Close()
	}
	return s.failed
}

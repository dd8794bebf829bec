package traffic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/bench/world"
)

// Names below the first domain are listed, those below the other one are not.
// Both are equally long.
const (
	listedDomain   = "cdn.example.com"
	unlistedDomain = "odd.example.org"
)

// Ports at the peer; connections are to addresses of names.
const (
	dnsPort    = 53
	listenPort = 443
)

// Addresses of names begin with one of these bytes.
const (
	listedNetwork   = 20
	unlistedNetwork = 21
)

// nameServer is the peer, as the resolver that answers for every name, and as
// every host that a name leads to. A name's first label is a number in eight
// letters, see spell; it has two addresses.
type nameServer struct {
	resolver, listener int
	ending             atomic.Bool
	wait               sync.WaitGroup
	failed             [2]error // once wait is over
}

// newNameServer makes it. The caller closes.
func newNameServer(w *world.World) (*nameServer, error) {
	s := &nameServer{resolver: -1, listener: -1}
	if err := w.Peer.Run(s.open); err != nil {
		return nil, errors.Join(fmt.Errorf("make server of names: %w", err), s.Close())
	}
	s.wait.Go(func() { s.failed[0] = pinned(s.answerQuestions) })
	s.wait.Go(func() { s.failed[1] = pinned(s.accept) })
	return s, nil
}

func (s *nameServer) open() (err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, network := range []byte{listedNetwork, unlistedNetwork} {
		err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST,
			Dst: &net.IPNet{IP: net.IPv4(network, 0, 0, 0), Mask: net.CIDRMask(8, 32)},
		})
		if err != nil {
			return fmt.Errorf("take the addresses of names: %w", err)
		}
	}
	if s.resolver, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(s.resolver, resolverAt); err != nil {
		return err
	}
	if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(s.listener, &unix.SockaddrInet4{Port: listenPort}); err != nil {
		return err
	}
	return unix.Listen(s.listener, 4096)
}

var resolverAt = world.Sockaddr(netip.AddrPortFrom(world.Peer4.Addr(), dnsPort))

// answerQuestions answers what is asked until the server is closed.
func (s *nameServer) answerQuestions() error {
	question, answer := make([]byte, 4096), make([]byte, 0, 4096)
	for {
		var from unix.Sockaddr
		var n int
		err := again(func() (err error) { n, from, err = unix.Recvfrom(s.resolver, question, 0); return err })
		if err != nil || s.ending.Load() {
			return err
		}
		if answer = appendAnswer(answer[:0], question[:n]); len(answer) == 0 {
			continue
		}
		if err := again(func() error { return unix.Sendto(s.resolver, answer, 0, from) }); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

const (
	dnsHeader = 12
	labelAt   = dnsHeader + 1
)

// appendAnswer appends the answer to a question about an address of one of the
// names; else it appends nothing.
func appendAnswer(b, question []byte) []byte {
	end := dnsHeader + 1 + 8 + 1 + len(listedDomain) + 1 + 4
	if len(question) < end {
		return b
	}
	network := byte(unlistedNetwork)
	if bytes.Contains(question[:end], []byte(listedDomain[:3])) {
		network = listedNetwork
	}
	b = append(b, question[:2]...)
	b = append(b, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0) // a response without error: 1 question, 2 answers
	b = append(b, question[dnsHeader:end]...)
	number := 2 * read(question[labelAt:])
	for i := range uint32(2) {
		// The question's name, A, IN, 300 s, 4 bytes.
		b = append(b, 0xc0, dnsHeader, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4)
		b = binary.BigEndian.AppendUint32(b, uint32(network)<<24|(number+i)&0xffffff)
	}
	return b
}

// spell writes a number as eight letters.
func spell(to []byte, number uint32) {
	for i := range 8 {
		to[i] = 'a' + byte(number>>(28-4*i)&15)
	}
}

// read is what spell wrote.
func read(letters []byte) (number uint32) {
	for _, l := range letters[:8] {
		number = number<<4 | uint32(l-'a')&15
	}
	return number
}

// accept takes connections and gives them up until the server is closed.
func (s *nameServer) accept() error {
	for {
		var fd int
		err := again(func() (err error) { fd, _, err = unix.Accept4(s.listener, unix.SOCK_CLOEXEC); return err })
		switch {
		case s.ending.Load():
			if err == nil {
				unix.Close(fd)
			}
			return nil
		case errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		default:
			unix.Close(fd)
		}
	}
}

// Close ends the server.
func (s *nameServer) Close() error {
	s.ending.Store(true)
	if s.resolver >= 0 {
		_ = unix.Sendto(s.resolver, []byte{0}, 0, resolverAt) // wakes who waits for questions
	}
	if s.listener >= 0 {
		_ = unix.Shutdown(s.listener, unix.SHUT_RDWR) // and who waits for connections
	}
	s.wait.Wait()
	for _, fd := range []int{s.resolver, s.listener} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return errors.Join(s.failed[0], s.failed[1])
}

package world

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Passing sends a UDP packet to each destination and returns how many got onto
// the cable. The kernel sends packets of its own now and then, which are
// counted with them: where the number is not the expected one, it is taken
// again, up to five times.
func (w *World) Passing(destinations []netip.AddrPort, expected int) (passed int, err error) {
	for range 5 {
		before, err := w.Sent()
		if err != nil {
			return 0, err
		}
		if err := w.Sender.Run(func() error { return sendEach(destinations) }); err != nil {
			return 0, fmt.Errorf("send: %w", err)
		}
		after, err := w.Sent()
		if err != nil {
			return 0, err
		}
		if passed = int(after - before); passed == expected {
			return passed, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return passed, nil
}

func sendEach(destinations []netip.AddrPort) error {
	sockets := map[bool]int{}
	defer func() {
		for _, fd := range sockets {
			unix.Close(fd)
		}
	}()
	for _, to := range destinations {
		is4 := to.Addr().Is4()
		if _, ok := sockets[is4]; !ok {
			family := unix.AF_INET6
			if is4 {
				family = unix.AF_INET
			}
			fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			sockets[is4] = fd
		}
		err := unix.Sendto(sockets[is4], []byte("bench"), 0, Sockaddr(to))
		// A filter may tell the sender that it drops.
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("to %v: %w", to, err)
		}
	}
	return nil
}

// Sockaddr is a destination as system calls take it.
func Sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

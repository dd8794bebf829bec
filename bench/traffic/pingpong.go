package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"egate/bench/world"
)

// pingPongPort is in no task.
const pingPongPort = 7

// PingPong is one TCP connection over which one byte goes to the peer and one
// comes back, again and again. Both ends run on one processor: what waking
// another one takes varies more than anything that is measured here.
type PingPong struct {
	client int
	server int
	wait   sync.WaitGroup
	failed error // of the server, once wait is over
}

// NewPingPong connects the sender with the peer. The caller closes it.
func NewPingPong(w *world.World) (*PingPong, error) {
	p := &PingPong{client: -1, server: -1}
	if err := p.connect(w); err != nil {
		return nil, errors.Join(fmt.Errorf("make connection: %w", err), p.Close())
	}
	p.wait.Go(func() { p.failed = pinned(func() error { return answer(p.server) }) })
	return p, nil
}

func (p *PingPong) connect(w *world.World) error {
	to := world.Sockaddr(netip.AddrPortFrom(world.Peer4.Addr(), pingPongPort))
	listener := -1
	err := w.Peer.Run(func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(listener, to); err != nil {
			return err
		}
		return unix.Listen(listener, 1)
	})
	if listener >= 0 {
		defer unix.Close(listener)
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	err = w.Sender.Run(func() (err error) {
		if p.client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// A connection that nothing comes over must not hang for ever.
		if err := waitAtMost(p.client, 10*time.Second); err != nil {
			return err
		}
		return again(func() error { return unix.Connect(p.client, to) })
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	err = again(func() (err error) {
		p.server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return errors.Join(unix.SetsockoptInt(p.client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(p.server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

func waitAtMost(fd int, limit time.Duration) error {
	t := unix.NsecToTimeval(limit.Nanoseconds())
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t))
}

// again repeats a system call that a signal interrupts.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// answer sends back every byte until the client has closed.
func answer(fd int) error {
	buf := make([]byte, 1)
	for {
		n, err := exchange(fd, buf, unix.Read)
		if err != nil || n == 0 {
			return err
		}
		if _, err := exchange(fd, buf, unix.Write); err != nil {
			return err
		}
	}
}

func exchange(fd int, buf []byte, call func(int, []byte) (int, error)) (n int, err error) {
	err = again(func() error { n, err = call(fd, buf); return err })
	return n, err
}

// RoundTrips exchanges bytes for a while and returns how long each took, in
// nanoseconds of the clock on the wall.
func (p *PingPong) RoundTrips(ctx context.Context, lasting time.Duration) (ns []float64, err error) {
	err = pinned(func() error {
		buf := make([]byte, 1)
		for begin := time.Now(); time.Since(begin) < lasting && ctx.Err() == nil; {
			sent := time.Now()
			if _, err := exchange(p.client, buf, unix.Write); err != nil {
				return fmt.Errorf("send request: %w", err)
			}
			n, err := exchange(p.client, buf, unix.Read)
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			if n == 0 {
				return errors.New("read answer: the peer has closed the connection")
			}
			ns = append(ns, float64(time.Since(sent)))
		}
		return ctx.Err()
	})
	return ns, err
}

// Close ends both sides.
func (p *PingPong) Close() error {
	var err error
	if p.client >= 0 {
		err = unix.Close(p.client) // the server reads the end
	}
	p.wait.Wait()
	if p.server >= 0 {
		err = errors.Join(err, unix.Close(p.server))
	}
	return errors.Join(err, p.failed)
}

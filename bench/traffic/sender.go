// Package traffic stands beside the stages: it sends packets through what is
// compared, and says what that cost.
package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"egate/bench/measure"
	"egate/bench/world"
)

const (
	payloadBytes = 64
	// batch is the packets of one system call, so that the price of calling
	// the kernel hardly counts.
	batch = 64
	// chunk is the packets between two looks at the clock.
	chunk = 4 * batch
	// sampleTime is how long one sample lasts.
	sampleTime = 40 * time.Millisecond
)

// message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

// Train is small UDP packets to a list of destinations, as the kernel takes
// them. Several senders may share one.
type Train struct {
	family   int
	connect  unix.Sockaddr // of a train to one destination, else nil
	messages []message     // a multiple of batch
}

// Sender sends a train again and again. One sender may not be used twice at
// once.
type Sender struct {
	socket int
	train  *Train
	next   int
}

// NewTrain makes a train to one or more destinations of one family. Packets to
// one destination are sent by a connected socket: a flow as programs have it.
func NewTrain(destinations []netip.AddrPort) *Train {
	t := &Train{family: unix.AF_INET}
	if destinations[0].Addr().Is6() {
		t.family = unix.AF_INET6
	}
	if len(destinations) == 1 {
		t.connect = world.Sockaddr(destinations[0])
	}
	count := max(len(destinations)/batch, 1) * batch
	payload := make([]byte, payloadBytes)
	part := []unix.Iovec{{Base: &payload[0], Len: payloadBytes}}
	t.messages = make([]message, count)
	names4 := make([]unix.RawSockaddrInet4, count)
	names6 := make([]unix.RawSockaddrInet6, count)
	for i := range t.messages {
		h := &t.messages[i].header
		h.Iov, h.Iovlen = &part[0], 1
		if t.connect != nil {
			continue
		}
		to := destinations[i%len(destinations)]
		port := to.Port()<<8 | to.Port()>>8 // network byte order; both architectures are little-endian
		if to.Addr().Is4() {
			names4[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().As4()}
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&names4[i])), unix.SizeofSockaddrInet4
		} else {
			names6[i] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&names6[i])), unix.SizeofSockaddrInet6
		}
	}
	return t
}

// NewSender makes a sender in a world. The caller closes it.
func NewSender(w *world.World, t *Train) (*Sender, error) {
	s := &Sender{socket: -1, train: t}
	err := w.Sender.Run(func() (err error) {
		// Non-blocking: with the buffer full a batch is cut short instead.
		s.socket, err = unix.Socket(t.family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(s.socket, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
			return err
		}
		if t.connect == nil {
			return nil
		}
		return unix.Connect(s.socket, t.connect)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make sender: %w", err), s.Close())
	}
	return s, nil
}

// Close closes the socket.
func (s *Sender) Close() error {
	if s.socket < 0 {
		return nil
	}
	return unix.Close(s.socket)
}

// Send sends the next packets, up to a batch in one system call.
func (s *Sender) Send(packets int) error {
	messages := s.train.messages
	for packets > 0 {
		count := min(batch, packets, len(messages)-s.next)
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.socket),
			uintptr(unsafe.Pointer(&messages[s.next])), uintptr(count), 0, 0, 0)
		switch errno {
		case 0:
		case unix.EPERM, unix.ENOBUFS, unix.EACCES, unix.ECONNREFUSED:
			n = 1 // this one was dropped on its way out; the next one's turn
		case unix.EAGAIN, unix.EINTR:
			runtime.Gosched()
			continue
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
		packets -= int(n)
		s.next = (s.next + int(n)) % len(messages)
	}
	return nil
}

// Sample sends for a while on one processor and returns the nanoseconds of
// processor time that a packet took: the median over chunks, so that an
// interrupt or a neighbour's turn does not count.
func (s *Sender) Sample() (ns float64, err error) {
	err = pinned(func() error {
		var chunks []float64
		for begin := time.Now(); time.Since(begin) < sampleTime; {
			before, err := threadTime()
			if err != nil {
				return err
			}
			if err := s.Send(chunk); err != nil {
				return err
			}
			after, err := threadTime()
			if err != nil {
				return err
			}
			chunks = append(chunks, float64(after-before)/chunk)
		}
		ns = measure.Quantile(chunks, 0.5)
		return nil
	})
	return ns, err
}

// threadTime is the processor time that the calling thread has had. The
// scheduler counts it in nanoseconds and leaves out who else ran meanwhile.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read thread time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

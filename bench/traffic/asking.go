package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"egate/bench/measure"
	"egate/bench/world"
)

const (
	// atOnce is how many look-ups are under way together where as many as go
	// are made.
	atOnce = 32
	// turn is how many names are asked for in turn.
	turn = 4096
	// patience is how long an answer or a connection may take.
	patience = 2 * time.Second
	// firstTry is how long a connection may take that lost nothing: the first
	// packet is sent again after a second.
	firstTry = 30 * time.Millisecond
)

// asker looks names up and connects to their addresses, as a program of the
// sender does. It may not be used twice at once.
type asker struct {
	world    *world.World
	socket   int
	question []byte
	answer   []byte
	id       uint16
	next     uint32 // number of the next name
}

// newAsker asks a resolver. The caller closes.
func newAsker(w *world.World, resolver netip.Addr) (*asker, error) {
	a := &asker{world: w, socket: -1, answer: make([]byte, 4096), question: newQuestion(listedDomain)}
	err := w.Sender.Run(func() (err error) {
		if a.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := waitAtMost(a.socket, patience); err != nil {
			return err
		}
		return unix.Connect(a.socket, world.Sockaddr(netip.AddrPortFrom(resolver, dnsPort)))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make asker: %w", err), a.Close())
	}
	return a, nil
}

// newQuestion is for the address of a name below a domain; its id and its first
// label are to be filled in.
func newQuestion(domain string) []byte {
	b := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	for start, i := 0, 0; i <= len(domain); i++ {
		if i == len(domain) || domain[i] == '.' {
			b = append(append(b, byte(i-start)), domain[start:i]...)
			start = i + 1
		}
	}
	return append(b, 0, 0, 1, 0, 1)
}

func (a *asker) Close() error {
	if a.socket < 0 {
		return nil
	}
	return unix.Close(a.socket)
}

// ask sends a question about the name of that number.
func (a *asker) ask(number uint32) error {
	a.id++
	binary.BigEndian.PutUint16(a.question, a.id)
	spell(a.question[labelAt:], number)
	if _, err := exchange(a.socket, a.question, unix.Write); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	return nil
}

// hear reads an answer, and gives the last address in it.
func (a *asker) hear() (netip.Addr, error) {
	n, err := exchange(a.socket, a.answer, unix.Read)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read answer: %w", err)
	}
	if n < len(a.question)+4 || a.answer[3]&15 != 0 || binary.BigEndian.Uint16(a.answer[6:]) == 0 {
		return netip.Addr{}, fmt.Errorf("read answer: %x is none with an address", a.answer[:n])
	}
	// Behind the question there are two records of 16 bytes, and perhaps others.
	at := len(a.question) + 2*16 - 4
	if n < at+4 {
		return netip.Addr{}, fmt.Errorf("read answer: %d bytes", n)
	}
	return netip.AddrFrom4([4]byte(a.answer[at:])), nil
}

// lookUp looks the name of that number up.
func (a *asker) lookUp(number uint32) (netip.Addr, error) {
	if err := a.ask(number); err != nil {
		return netip.Addr{}, err
	}
	return a.hear()
}

// eachTime makes one look-up after another for a while and returns the median
// of what one took, in nanoseconds on the wall.
func (a *asker) eachTime() (ns float64, err error) {
	err = pinned(func() error {
		var took []float64
		for begin := time.Now(); time.Since(begin) < sampleTime; {
			sent := time.Now()
			if _, err := a.lookUp(a.nextName()); err != nil {
				return err
			}
			took = append(took, float64(time.Since(sent)))
		}
		ns = measure.Quantile(took, 0.5)
		return nil
	})
	return ns, err
}

func (a *asker) nextName() uint32 {
	a.next++
	return a.next % turn
}

// rate makes as many look-ups as go for a while and returns how many a second
// that were.
func (a *asker) rate() (perSecond float64, err error) {
	err = pinned(func() error {
		begin, done := time.Now(), 0
		for time.Since(begin) < sampleTime {
			for range atOnce {
				if err := a.ask(a.nextName()); err != nil {
					return err
				}
			}
			for range atOnce {
				if _, err := a.hear(); err != nil {
					return err
				}
			}
			done += atOnce
		}
		perSecond = float64(done) / time.Since(begin).Seconds()
		return nil
	})
	return perSecond, err
}

// errLost says that a connection's first packet came to nothing.
var errLost = errors.New("first packet lost")

// connect opens a connection, gives it up, and says how long opening it took;
// errLost if the first packet did not reach the other side, or its answer this
// one. It is called on a thread of the sender.
func connect(to netip.Addr) (ns float64, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// No trace of it stays, however many there are.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	if err := waitAtMost(fd, firstTry); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = unix.Connect(fd, world.Sockaddr(netip.AddrPortFrom(to, listenPort)))
	if errors.Is(err, unix.EINTR) { // a signal; the connection goes on being opened
		err = waitConnected(fd, begin.Add(firstTry))
	}
	took := time.Since(begin)
	switch {
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPERM), errors.Is(err, unix.ECONNREFUSED),
		errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return 0, errLost
	case err != nil:
		return 0, fmt.Errorf("connect to %v: %w", to, err)
	}
	return float64(took), nil
}

// waitConnected waits until a connection is open; unix.EINPROGRESS if it is not
// in time.
func waitConnected(fd int, until time.Time) error {
	for {
		left := time.Until(until).Milliseconds()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(max(left, 0)))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return unix.EINPROGRESS
		default:
			state, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && state != 0 {
				err = unix.Errno(state)
			}
			return err
		}
	}
}

// firstConnections looks new names up and connects to each at once. It returns
// the median of what connecting took, in nanoseconds, and how many connections
// of how many lost their first packet.
func (a *asker) firstConnections(count int) (ns float64, lost int, err error) {
	err = a.world.Sender.Run(func() error {
		if err := pin(); err != nil {
			return err
		}
		var took []float64
		for range count {
			a.next++
			to, err := a.lookUp(turn + a.next)
			if err != nil {
				return err
			}
			t, err := connect(to)
			switch {
			case errors.Is(err, errLost):
				lost++
			case err != nil:
				return err
			default:
				took = append(took, t)
			}
		}
		ns = measure.Quantile(took, 0.5)
		return nil
	})
	return ns, lost, err
}

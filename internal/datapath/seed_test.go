package datapath

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// udpServer is inside and answers what it gets.
type udpServer struct {
	w    *world
	conn *net.UDPConn
}

func (w *world) serveUDP(port int) *udpServer {
	w.t.Helper()
	s := &udpServer{w: w}
	var err error
	w.inside.Run(func() { s.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		var buf [100]byte
		for {
			n, from, err := s.conn.ReadFromUDPAddrPort(buf[:])
			if err != nil {
				return // closed
			}
			// A dropped answer is what the test looks for at the other end.
			_, _ = s.conn.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	w.t.Cleanup(func() { s.conn.Close() })
	return s
}

// udpClient is outside.
type udpClient struct {
	w    *world
	conn *net.UDPConn
}

func (w *world) dialUDP(port int) *udpClient {
	w.t.Helper()
	c := &udpClient{w: w}
	var err error
	w.outside.Run(func() {
		c.conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(insideAddr), uint16(port))))
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.conn.Close() })
	return c
}

// echoes tells whether a packet gets an answer.
func (c *udpClient) echoes() bool {
	c.w.t.Helper()
	if _, err := c.conn.Write([]byte("ping")); err != nil {
		c.w.t.Fatal(err)
	}
	return c.receives()
}

// hears tells whether a packet that the server sends by itself arrives.
func (c *udpClient) hears(s *udpServer) bool {
	c.w.t.Helper()
	to := c.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := s.conn.WriteToUDPAddrPort([]byte("news"), to); err != nil && !errors.Is(err, unix.EPERM) {
		c.w.t.Fatal(err)
	}
	return c.receives()
}

func (c *udpClient) receives() bool {
	c.w.t.Helper()
	var buf [100]byte
	if err := c.conn.SetReadDeadline(time.Now().Add(testutil.Patience(200 * time.Millisecond))); err != nil {
		c.w.t.Fatal(err)
	}
	_, err := c.conn.Read(buf[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.w.t.Fatal(err)
	}
	return err == nil
}

// TestOpenConnectionsSurviveTheFirstPolicy: a TCP connection that a peer opened
// before goes on under default drop; one that this side opened does not.
func TestOpenConnectionsSurviveTheFirstPolicy(t *testing.T) {
	for _, addrs := range [][2]string{{insideAddr, outsideAddr}, {"fd09::1", "fd09::2"}} {
		w := newWorld(t, HookAuto)
		incoming, incomingFar := w.connect(w.inside, w.outside, addrs[0])
		outgoingFar, outgoing := w.connect(w.outside, w.inside, addrs[1])

		// They must be known at the switch, not only when all is done.
		setStep(t, func(at string) error {
			if at == "finish" {
				return errBoom
			}
			return nil
		})
		if _, err := w.tryApply(testSet(t, "interfaces: [eth0]\negress: {default: drop}\n"), w.options()); err != nil {
			t.Fatal(err)
		}
		setStep(t, func(string) error { return nil })
		if !talks(t, incoming, incomingFar) || !talks(t, incomingFar, incoming) {
			t.Errorf("%s: the connection that a peer opened was cut", addrs[0])
		}
		if talks(t, outgoing, outgoingFar) {
			t.Errorf("%s: the connection that this side opened goes on under default drop", addrs[0])
		}
		if s := w.status(); s.Flows.Known < 2 {
			t.Errorf("%s: %d connections known, want 2", addrs[0], s.Flows.Known)
		}
	}
}

// connect opens a TCP connection: listening at an address in one namespace,
// dialled from the other.
func (w *world) connect(listens, dials *testutil.Netns, addr string) (accepted, dialled net.Conn) {
	w.t.Helper()
	var l net.Listener
	var err error
	listens.Run(func() { l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() }) // it goes on listening: that is how the side is told
	dials.Run(func() { dialled, err = net.DialTimeout("tcp", l.Addr().String(), testutil.Patience(2*time.Second)) })
	if err != nil {
		w.t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { accepted.Close(); dialled.Close() })
	return accepted, dialled
}

// talks tells whether bytes written at one end arrive at the other.
func talks(t *testing.T, from, to net.Conn) bool {
	t.Helper()
	if _, err := from.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(testutil.Patience(400 * time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	var buf [5]byte
	_, err := io.ReadFull(to, buf[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

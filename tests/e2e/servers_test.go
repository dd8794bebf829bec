package e2e

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"egate/internal/testutil"
)

// Addresses that the DNS server has for every name.
var (
	answer4 = netip.MustParseAddr("192.0.2.99")
	answer6 = netip.MustParseAddr("2001:db8::99")
)

// serveHTTP answers every request at these ports with "hello", until the test
// ends.
func serveHTTP(t *testing.T, in *testutil.Netns, ports ...uint16) {
	t.Helper()
	for _, port := range ports {
		l := listenTCP(t, in, port)
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hello\n")
		})
		go http.Serve(l, handler)
	}
}

// serveSink reads and forgets what arrives at a TCP port.
func serveSink(t *testing.T, in *testutil.Netns, port uint16) {
	t.Helper()
	l := listenTCP(t, in, port)
	go accept(l, func(c net.Conn) { io.Copy(io.Discard, c) })
}

// serveEcho sends back what arrives at a UDP port.
func serveEcho(t *testing.T, in *testutil.Netns, port uint16) {
	t.Helper()
	c := listenUDP(t, in, port)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

// serveDNS answers every question for A and AAAA, over UDP and TCP.
func serveDNS(t *testing.T, in *testutil.Netns) {
	t.Helper()
	c := listenUDP(t, in, 53)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if reply, ok := answerQuestion(buf[:n]); err == nil && ok {
				c.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	go accept(listenTCP(t, in, 53), func(c net.Conn) {
		for {
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			question := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, question); err != nil {
				return
			}
			reply, ok := answerQuestion(question)
			if !ok {
				return
			}
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
		}
	})
}

func answerQuestion(message []byte) (reply []byte, ok bool) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	resource := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}}
	switch q.Type {
	case dnsmessage.TypeA:
		resource.Body = &dnsmessage.AResource{A: answer4.As4()}
		out.Answers = append(out.Answers, resource)
	case dnsmessage.TypeAAAA:
		resource.Body = &dnsmessage.AAAAResource{AAAA: answer6.As16()}
		out.Answers = append(out.Answers, resource)
	}
	reply, err = out.Pack()
	return reply, err == nil
}

// accept serves each connection in a goroutine of its own until the listener
// is closed.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}
}

// listenTCP listens for both families until the test ends.
func listenTCP(t *testing.T, in *testutil.Netns, port uint16) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	in.Run(func() { l, err = net.Listen("tcp", ":"+strconv.Itoa(int(port))) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// listenUDP listens for both families until the test ends. It leaves an answer
// from the address that was asked to the kernel, so a host that has several
// addresses of a family must be asked at the first.
func listenUDP(t *testing.T, in *testutil.Netns, port uint16) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	var err error
	in.Run(func() { c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

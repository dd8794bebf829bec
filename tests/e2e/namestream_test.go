package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

// serveStream answers DNS over TCP honestly, but cuts what it sends: it waits
// for so many questions, and sends their answers together, in pieces of so many
// bytes (0: as one).
func serveStream(t *testing.T, in *testutil.Netns, at netip.AddrPort, together, size int) {
	t.Helper()
	var l net.Listener
	var err error
	in.Run(func() { l, err = net.Listen("tcp", at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go accept(l, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			var out []byte
			for range together {
				question, err := readStreamed(r)
				if err != nil {
					return
				}
				wire, err := answerFor(question, true).Pack()
				if err != nil {
					return
				}
				out = append(binary.BigEndian.AppendUint16(out, uint16(len(wire))), wire...)
			}
			if err := writePieces(c, out, size); err != nil {
				return
			}
		}
	})
}

func readStreamed(r io.Reader) (*dns.Msg, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(r, wire); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(wire)
}

func writePieces(c net.Conn, b []byte, size int) error {
	if size == 0 {
		size = len(b)
	}
	_, err := inPieces{c, size}.Write(b)
	return err
}

// TestStreams: over TCP, messages need not begin or end where segments do.
func TestStreams(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	withoutOffload(t, w.server)
	withoutOffload(t, w.client)
	_, vm := testutil.InVM()
	number := 0
	for i, c := range []struct {
		about     string
		name      string // with %d in place of the number
		together  int    // questions, and answers, at once
		asked     int    // bytes of a segment of questions, 0: all
		answered  int
		addresses int // of each name
	}{
		{"one after the other", "a%d.n.test", 1, 0, 0, 1},
		{"4 questions in a segment", "a%d.n.test", 4, 0, 0, 1},
		{"questions in bytes", "a%d.n.test", 1, 1, 0, 1},
		{"answers in bytes", "a%d.n.test", 1, 0, 1, 1},
		{"4 and 4 in pieces of 33 bytes", "a%d.n.test", 4, 33, 33, 1},
		{"long answers in small pieces", "a%d.many100.n.test", 1, 0, 700, 100},
		{"two long answers over segments", "a%d.many300.n.test", 2, 0, 0, 300},
	} {
		if vm && i%2 == 0 { // where a policy takes seconds to load
			continue
		}
		t.Run(c.about, func(t *testing.T) {
			w := w.in(t)
			at := netip.AddrPortFrom(resolverAddrs[i/2%2].Addr(), 53)
			serveStream(t, w.server.Netns, at, c.together, c.answered)
			w.apply(policyFor("veth0", egress("reject", listedRule)) + fmt.Sprintf("dns: {servers: [%q], names: listed}\n", at.Addr()))
			conn, err := dial(w.client.Netns, "tcp", at, testutil.Patience(longWait))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testutil.Patience(longWait)))
			r := bufio.NewReader(conn)
			for range 3 {
				var out []byte
				first := number
				for range c.together {
					out = appendQuestion(t, out, fmt.Sprintf(c.name, number))
					number += c.addresses
				}
				if err := writePieces(conn, out, c.asked); err != nil {
					t.Fatal(err)
				}
				for range c.together {
					answer, err := readStreamed(r)
					if err != nil {
						t.Fatalf("read an answer: %v; DNS messages: %v", err, messages(w.status("host")))
					}
					if n := len(addressesIn(answer)); n != c.addresses {
						t.Errorf("%d addresses of %s, want %d", n, answer.Question[0].Name, c.addresses)
					}
				}
				for n := first; n < number; n += max(1, c.addresses/3) {
					v4, _ := numbered(n)
					w.reach(v4, passes)
				}
				v4, _ := numbered(number)
				w.reach(v4, refused)
			}
		})
	}
	w.run("off")
}

func appendQuestion(t *testing.T, out []byte, name string) []byte {
	t.Helper()
	wire, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(out, uint16(len(wire))), wire...)
}

// TestHiddenQuestions: a question for a name that is not listed does not leave
// by TCP, wherever in the stream it stands.
func TestHiddenQuestions(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	withoutOffload(t, w.client)
	w.apply(policyFor("veth0", egress("reject", listedRule)) + dnsSection("names: listed"))
	for _, c := range []struct {
		about string
		names []string
		size  int
	}{
		{"behind one that is listed", []string{"a1.n.test", "secret1.u.test"}, 0},
		{"in bytes", []string{"secret2.u.test"}, 1},
		{"behind one that is listed, in bytes", []string{"a1.n.test", "secret3.u.test"}, 1},
		{"cut behind the length", []string{"secret4.u.test"}, 2},
		{"cut in the listed one", []string{"a1.n.test", "secret5.u.test"}, 17},
		{"many", []string{"a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "a1.n.test", "secret6.u.test"}, 0},
	} {
		for _, server := range w.serverAddr() {
			conn, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(server, 53), testutil.Patience(longWait))
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(testutil.Patience(longWait)))
			var out []byte
			for _, name := range c.names {
				out = appendQuestion(t, out, name)
			}
			err = writePieces(conn, out, c.size)
			for err == nil {
				_, err = readStreamed(conn)
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: %v, want a reset", c.about, err)
			}
			conn.Close()
			if hidden := c.names[len(c.names)-1]; w.names.times(hidden) != 0 {
				t.Errorf("%s: the question for %s has reached the server", c.about, hidden)
			}
		}
	}
	w.run("off")
}

package e2e

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// sendUrgent sends bytes that TCP marks as urgent. Of these the last one is no
// part of the stream that most servers read (tcp(7), SO_OOBINLINE).
func sendUrgent(t *testing.T, c net.Conn, b string) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sending := error(nil)
	err = raw.Write(func(fd uintptr) bool {
		sending = unix.Sendto(int(fd), []byte(b), unix.MSG_OOB, nil)
		return sending != unix.EAGAIN
	})
	if err != nil {
		t.Fatal(err)
	}
	if sending != nil {
		t.Logf("send urgent data: %v", sending) // the connection has been reset
	}
}

// TestUrgentData: a byte that the server would leave out of what it reads must
// not make another name of a request, or another question, of what the gate has
// read.
func TestUrgentData(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	hosts := make(chan string, 10)
	go http.Serve(listenTCP(t, w.server.Netns, 80), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
	}))
	w.apply(policyFor("veth0", egress("reject", webRule)))
	for _, to := range w.look("a1.x.n.test") {
		c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(to, 80), testutil.Patience(longWait))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testutil.Patience(2 * time.Second)))
		// Write errors show in what arrives, or does not.
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nConnection: close\r\nHost: a1.x")
		sendUrgent(t, c, ".")
		_, _ = io.WriteString(c, "n.test\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
		select {
		case host := <-hosts:
			if host != "a1.x.n.test" {
				t.Errorf("a request for %s has reached %v", host, to)
			}
		default:
		}
	}
	w.run("off")
}

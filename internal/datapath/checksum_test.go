package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/packet"
	"egate/internal/testutil"
	"egate/internal/testutil/frames"
	"egate/internal/verdict"
)

// rejected opens a connection, with IPv4 options that do nothing, and gives
// the error that its answer made of it.
func rejected(from *testutil.Netns, network, address string, options int) error {
	var err error
	from.Run(func() {
		d := net.Dialer{Timeout: testutil.Patience(time.Second), Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			if options > 0 {
				nops := make([]byte, options)
				for i := range nops {
					nops[i] = 1
				}
				err := c.Control(func(fd uintptr) {
					failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, string(nops))
				})
				if err != nil {
					return err
				}
			}
			return failed
		}}
		var c net.Conn
		if c, err = d.Dial(network, address); err != nil {
			return
		}
		defer c.Close()
		if _, err = c.Write([]byte("eleven byte")); err != nil {
			return
		}
		if err = c.SetDeadline(time.Now().Add(testutil.Patience(time.Second))); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
	})
	return err
}

// TestAnswersToUnfinishedChecksums rejects packets whose checksum the sender
// left to the device. Coming in, they are answered through a device that fills
// checksums in, and would spoil the answer's; going out, the answer must not
// end before the place where the checksum was to be.
func TestAnswersToUnfinishedChecksums(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		for _, dir := range []string{"egress", "ingress"} {
			t.Run(dir, func(t *testing.T) {
				w := newWorld(t, hook)
				sender, v4, v6 := w.inside, outsideAddr, "fd09::2"
				if dir == "ingress" {
					sender, v4, v6 = w.outside, insideAddr, "fd09::1"
					w.inside.Exec("ethtool", "-K", "eth0", "tx", "off")
				}
				w.apply("interfaces: [eth0]\n" + dir + ": {default: reject}\n")
				for _, c := range []struct {
					network, host string
					options       int
					want          error
				}{
					{"tcp4", v4, 0, unix.ECONNREFUSED},
					{"tcp4", v4, 4, unix.ECONNREFUSED},
					{"tcp4", v4, 40, unix.ECONNREFUSED},
					{"tcp6", v6, 0, unix.ECONNREFUSED},
					{"udp4", v4, 0, unix.EHOSTUNREACH},
					{"udp4", v4, 4, unix.EHOSTUNREACH},
					{"udp4", v4, 40, unix.EHOSTUNREACH},
					{"udp6", v6, 0, unix.EACCES},
				} {
					err := rejected(sender, c.network, net.JoinHostPort(c.host, "99"), c.options)
					if !errors.Is(err, c.want) {
						t.Errorf("%s with %d bytes of options: %v, want %v", c.network, c.options, err, c.want)
					}
				}
			})
		}
	})
}

// TestErrorsGoBackToTheSender: an ICMP error about a connection from outside
// passes to who sent the packet it quotes, and to nobody else.
func TestErrorsGoBackToTheSender(t *testing.T) {
	testutil.RequireRoot(t)
	set := testSet(t, "interfaces: [lo]\negress: {default: drop}\n")
	for _, c := range []struct{ inside, peer, other netip.Addr }{
		{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")},
		{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("2001:db8::a")},
	} {
		b := newTestBench(t, set)
		t.Cleanup(b.Close)
		opening := frames.UDP(c.peer, c.inside, 5000, 6000, []byte("hello"))
		b.Run(t, opening, verdict.Ingress)
		kind, quoted := uint8(3), opening[14:]
		if c.inside.Is6() {
			kind = 1
		}
		for to, want := range map[netip.Addr]uint32{c.peer: actUnspec, c.other: actShot} {
			t.Run(fmt.Sprintf("from %s to %s", c.inside, to), func(t *testing.T) {
				frame := frames.ICMPFrame(c.inside, to, kind, 0, 0, quoted)
				if k := packet.Decode(frame, packet.FrameInfo{}); !k.HasICMP() {
					t.Fatalf("the test's frame is %v", &k)
				}
				if got, _ := b.Run(t, frame, verdict.Egress); got != want {
					t.Errorf("returned %d, want %d", got, want)
				}
			})
		}
	}
}

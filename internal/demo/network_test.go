package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"egate/internal/testutil"
)

func TestAllTrafficPassesWithoutPolicy(t *testing.T) {
	testutil.RequireRoot(t)
	n, err := newNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	all := attempts(n)
	if err := baseline(context.Background(), n, all); err != nil {
		t.Fatal(err)
	}
	if n.hasIPv6 && len(all) != 10 {
		t.Errorf("%d attempts, want 5 for each family", len(all))
	}
}

func TestRawPingWorksWhereNoPingIsInstalled(t *testing.T) {
	testutil.RequireRoot(t)
	n, err := newNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for _, to := range append(n.targets(), outside4.Addr().Next()) {
		want := passed
		if to == outside4.Addr().Next() {
			want = rejected // nobody has this address: the kernel says so, or nothing comes
		}
		// A request can be lost while a busy machine still finds the neighbour.
		var got outcome
		for tries := 0; tries < 5 && (tries == 0 || want == passed && got != passed); tries++ {
			err := n.inside.run(func() (err error) {
				got, err = rawPing(context.Background(), to)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if want == passed && got != passed || want != passed && got == passed {
			t.Errorf("rawPing(%v) = %v", to, got)
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		err  error
		want outcome
	}{
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), rejected},
		{fmt.Errorf("read: %w", os.ErrDeadlineExceeded), blocked},
		{&net.DNSError{IsTimeout: true}, blocked},
	} {
		if got, err := refusal(c.err); got != c.want || err != nil {
			t.Errorf("refusal(%v) = %v, %v; want %v", c.err, got, err, c.want)
		}
	}
	strange := errors.New("strange")
	if got, err := refusal(strange); got != untried || err != strange {
		t.Errorf("refusal of a strange error = %v, %v", got, err)
	}
}

func TestChecksum(t *testing.T) {
	// The example of RFC 1071, section 3.
	if got, want := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}), ^uint16(0xddf2); got != want {
		t.Errorf("checksum = %#04x, want %#04x", got, want)
	}
}

func TestIsEcho(t *testing.T) {
	header := append([]byte{0x45}, make([]byte, 19)...)
	reply := []byte{0, 0, 0, 0, 0x12, 0x34, 0, 1}
	for _, c := range []struct {
		name    string
		message []byte
		want    bool
	}{
		{"plain", reply, true},
		{"behind an IPv4 header", append(header[:20:20], reply...), true},
		{"another identifier", []byte{0, 0, 0, 0, 0x12, 0x35, 0, 1}, false},
		{"short", reply[:7], false},
		{"a header that is longer than the message", []byte{0x4f, 0, 0}, false},
		{"empty", nil, false},
	} {
		if got := isEcho(c.message, 0, 0x1234, true); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

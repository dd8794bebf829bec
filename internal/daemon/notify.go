package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notifier tells the service manager how the daemon does, see sd_notify(3): a
// datagram to the socket that NOTIFY_SOCKET names. Without one it tells nobody.
type notifier struct {
	socket   string
	interval time.Duration // in which the manager wants to hear of the daemon; 0: it does not
}

func newNotifier(env func(string) string) *notifier {
	n := &notifier{socket: env("NOTIFY_SOCKET")}
	pid := env("WATCHDOG_PID")
	if us, err := strconv.ParseUint(env("WATCHDOG_USEC"), 10, 63); err == nil && us > 0 && us < 1<<50 &&
		(pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.interval = time.Duration(us) * time.Microsecond
	}
	return n
}

func (n *notifier) ready() error {
	return n.send("READY=1\nMAINPID=" + strconv.Itoa(os.Getpid()))
}

func (n *notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	// A name that begins with '@' is one in the abstract name space for Go too.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// watchdog ticks when the manager is to be told; three times in its interval.
// The caller stops it.
func (n *notifier) watchdog() *time.Ticker {
	if n.interval == 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(max(n.interval/3, time.Millisecond))
}

package daemon

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"egate/internal/datapath"
)

// resubscribeAfter is the pause after the kernel ended a subscription, as it does
// when more happens than its reader takes.
const resubscribeAfter = 100 * time.Millisecond

// watchInterfaces makes the daemon look when interfaces or routes change, until
// ctx ends. What happens while it is not subscribed, the look after it finds.
func (d *daemon) watchInterfaces(ctx context.Context) {
	for ctx.Err() == nil {
		if err := d.subscribe(ctx); err != nil {
			// The look every 10 s goes on.
			d.log.Printf("subscribe to changes of interfaces: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(resubscribeAfter):
		}
	}
}

// subscribe returns when the kernel ends one of the subscriptions, or ctx does.
func (d *daemon) subscribe(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	links := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribe(links, done); err != nil {
		return err
	}
	routes := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		drain(links)
		return err
	}
	defer drain(links)
	defer drain(routes)
	d.lookSoon()
	for {
		ok := true
		select {
		case <-ctx.Done():
			return nil
		case _, ok = <-links:
		case r, more := <-routes:
			if ok = more; ok && !leadsAnywhere(&r) {
				continue
			}
		}
		if !ok {
			return nil
		}
		d.lookSoon()
	}
}

// drain lets the sender of a channel see that its subscription is over: it may
// be about to send.
func drain[T any](c <-chan T) {
	go func() {
		for range c {
		}
	}()
}

// leadsAnywhere tells whether a route may be a default route; of others there
// are many, and often new ones.
func leadsAnywhere(r *netlink.RouteUpdate) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// serverFiles are those that name the DNS servers of the host.
var serverFiles = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// fileMarks tells whether a file was changed or replaced.
type fileMarks map[string]os.FileInfo

// changed looks at the files, and notes what they are now.
func (m fileMarks) changed(files []string) bool {
	changed := false
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			info = nil // no file has no mark
		}
		was, known := m[file]
		same := known && (info == nil && was == nil ||
			info != nil && was != nil && os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime()))
		if !same {
			changed = true
			m[file] = info
		}
	}
	return changed
}

// lookAtServers makes policies follow the DNS servers of the host, if their
// files were changed or always.
func (d *daemon) lookAtServers(always bool) {
	if d.servers == nil {
		d.servers = fileMarks{}
	}
	if changed := d.servers.changed(serverFiles); !changed && !always {
		return
	}
	for name := range d.gates {
		added, removed, err := datapath.FollowServers(name)
		if errors.Is(err, datapath.ErrNoGate) { // the next look at gates tells
			continue
		}
		for _, a := range added {
			d.logOf(name, "trusts DNS server %v from now on", a)
		}
		for _, a := range removed {
			d.logOf(name, "trusts DNS server %v no longer", a)
		}
		if len(added) > 0 {
			d.lookSoon() // it may be reached by loopback
		}
		d.complain(name, "follow DNS servers", err)
	}
}

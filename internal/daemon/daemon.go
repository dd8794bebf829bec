// Package daemon stands beside stage 4: it keeps gates up to date where that
// takes a living process. It makes policies guard interfaces that come later,
// removes what has expired, asks DNS servers what the programs could not read in
// their answers, and follows the servers that the host uses.
//
// Nothing that is enforced depends on it. It keeps no state of its own: killed at
// any point, it leaves gates as `egate apply` and the programs keep them, and the
// next one goes on.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"egate/internal/datapath"
)

// How often the daemon looks without being told.
const (
	gatesEvery = 2 * time.Second // gates, and the files that name DNS servers
	lookEvery  = 10 * time.Second
	sweepEvery = 30 * time.Second
	retryAfter = time.Second // another writer had the lock
	// A gate that is being made or removed can't be served for a moment.
	patience = 3
)

// Options of a daemon.
type Options struct {
	Gate string // the only one to serve; "" for all of this network namespace
	Log  io.Writer
	Env  func(key string) string // of the service manager
}

// Run serves until ctx ends, and then returns nil. Gates may come and go. It
// belongs to the network namespace of its process.
//
// Errors wrap those of datapath.Serve: one that another daemon serves already
// (datapath.ErrBusy), or that the only gate belongs to another network namespace
// (datapath.ErrNetns), and of datapath.Gates.
func Run(ctx context.Context, o Options) error {
	flags := log.LstdFlags
	if o.Env("JOURNAL_STREAM") != "" {
		flags = 0 // the journal has a clock
	}
	d := &daemon{
		options: o, log: log.New(o.Log, "", flags), notifier: newNotifier(o.Env),
		gates: map[string]*served{}, troubles: map[trouble]string{}, waiting: map[string]int{},
		look: make(chan struct{}, 1),
	}
	defer d.close()
	return d.run(ctx)
}

// daemon is one run. All but the goroutines that read rings is done by the one
// that calls run.
type daemon struct {
	options  Options
	log      *log.Logger
	notifier *notifier
	gates    map[string]*served
	troubles map[trouble]string // what was complained of last
	waiting  map[string]int     // how often a gate could not be served in a row
	servers  fileMarks
	look     chan struct{} // interfaces may have changed
	status   string        // as the service manager was told last
}

// trouble is what can go wrong again and again, and is complained of once.
type trouble struct{ gate, doing string }

func (d *daemon) run(ctx context.Context) error {
	// Before the first look, so that nothing comes unseen in between.
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go d.watchInterfaces(watching)

	if err := d.findGates(true); err != nil {
		return err
	}
	d.lookAtServers(true)
	d.adopt()
	d.tellStatus()
	if err := d.notifier.ready(); err != nil {
		d.log.Printf("tell the service manager: %v", err)
	}
	defer func() {
		// Nobody is left to tell of an error.
		_ = d.notifier.send("STOPPING=1")
	}()

	gates, look, sweep := time.NewTicker(gatesEvery), time.NewTicker(lookEvery), time.NewTicker(sweepEvery)
	defer gates.Stop()
	defer look.Stop()
	defer sweep.Stop()
	watchdog := d.notifier.watchdog()
	defer watchdog.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.look:
			d.adopt()
		case <-gates.C:
			if err := d.findGates(false); err != nil {
				d.complain("", "list gates", err)
			}
			d.lookAtServers(false)
		case <-look.C:
			d.lookAtServers(true)
			d.adopt()
		case <-sweep.C:
			d.sweep()
		case <-watchdog.C:
			if err := d.notifier.send("WATCHDOG=1"); err != nil {
				d.complain("", "tell the service manager", err)
			}
		}
		d.tellStatus()
	}
}

// lookSoon makes the daemon look at interfaces, once however often it is called.
func (d *daemon) lookSoon() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// complain logs an error unless it is the same as the last time; nil says that
// there is none any more.
func (d *daemon) complain(gate, doing string, err error) {
	key := trouble{gate, doing}
	if err == nil {
		if _, was := d.troubles[key]; was {
			delete(d.troubles, key)
			d.logOf(gate, "%s: works again", doing)
		}
		return
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if d.troubles[key] == text {
		return
	}
	d.troubles[key] = text
	d.logOf(gate, "%s", text)
}

func (d *daemon) logOf(gate, format string, args ...any) {
	if gate != "" {
		format = "gate " + gate + ": " + format
	}
	d.log.Printf(format, args...)
}

// findGates begins to serve gates that are new and stops with those that are
// gone. At the beginning, a gate that can't be served ends the daemon.
func (d *daemon) findGates(beginning bool) error {
	names, err := datapath.Gates()
	if err != nil {
		return err
	}
	if d.options.Gate != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n != d.options.Gate })
	}
	d.complain("", "list gates", nil)
	for name, s := range d.gates {
		current, err := s.service.IsCurrent()
		d.complain(name, "look at the gate", err)
		if err == nil && !current {
			d.stop(s)
			d.logOf(name, "is off")
		}
	}
	for _, name := range names {
		if d.gates[name] != nil {
			continue
		}
		err := d.serve(name)
		switch {
		case err == nil:
			d.waiting[name] = 0
			d.complain(name, "serve", nil)
			if !beginning {
				d.lookSoon()
			}
		case errors.Is(err, datapath.ErrNetns) && d.options.Gate == "":
			// Each network namespace has a daemon of its own.
		case beginning && (errors.Is(err, datapath.ErrBusy) || errors.Is(err, datapath.ErrNetns) || errors.Is(err, datapath.ErrPermission)):
			return err
		default:
			if d.waiting[name]++; d.waiting[name] >= patience {
				d.complain(name, "serve", err)
			}
		}
	}
	for name := range d.waiting {
		if !slices.Contains(names, name) {
			delete(d.waiting, name)
			delete(d.troubles, trouble{name, "serve"})
		}
	}
	return nil
}

// adopt makes policies guard the interfaces that have come.
func (d *daemon) adopt() {
	for name, s := range d.gates {
		adopted, err := datapath.Adopt(name)
		for _, i := range adopted {
			if i.DNSOnly {
				d.logOf(name, "reads DNS on %s from now on", i.Name)
				continue
			}
			s.adopted++
			d.logOf(name, "guards %s from now on", i.Name)
		}
		switch {
		case errors.Is(err, datapath.ErrNoGate): // the next look at gates tells
		case errors.Is(err, datapath.ErrBusy):
			time.AfterFunc(retryAfter, d.lookSoon)
		default:
			d.complain(name, "adopt interfaces", err)
		}
	}
}

// sweep removes what has expired.
func (d *daemon) sweep() {
	for name, s := range d.gates {
		_, err := s.sweeper.Sweep()
		if !errors.Is(err, datapath.ErrNoGate) {
			d.complain(name, "sweep", err)
		}
	}
}

// tellStatus tells the service manager what is served.
func (d *daemon) tellStatus() {
	status := "no gate to serve"
	if len(d.gates) > 0 {
		var parts []string
		for name, s := range d.gates {
			parts = append(parts, fmt.Sprintf("%s (%d interfaces adopted, %d answers asked for)", name, s.adopted, s.asker.answered.Load()))
		}
		slices.Sort(parts)
		status = "serves " + strings.Join(parts, ", ")
	}
	if status == d.status {
		return
	}
	d.status = status
	if err := d.notifier.send("STATUS=" + status); err != nil {
		d.complain("", "tell the service manager", err)
	}
}

// served is a gate that the daemon serves.
type served struct {
	name    string
	service *datapath.Service
	sweeper *datapath.Sweeper
	unread  *datapath.UnreadReader
	asker   *asker
	adopted int
}

// serve begins with a gate.
func (d *daemon) serve(name string) error {
	service, err := datapath.Serve(name)
	if err != nil {
		return err
	}
	unread, err := datapath.OpenUnread(name)
	if err != nil {
		return errors.Join(err, service.Close())
	}
	s := &served{name: name, service: service, sweeper: datapath.NewSweeper(name), unread: unread}
	s.asker = newAsker(s, d.log)
	d.gates[name] = s
	d.logOf(name, "served from now on")
	go s.asker.run()
	return nil
}

// stop ends with a gate.
func (d *daemon) stop(s *served) {
	delete(d.gates, s.name)
	s.asker.stop()
	if err := errors.Join(s.unread.Close(), s.service.Close()); err != nil && !errors.Is(err, os.ErrClosed) {
		d.logOf(s.name, "stop: %v", err)
	}
	for key := range d.troubles {
		if key.gate == s.name {
			delete(d.troubles, key)
		}
	}
}

func (d *daemon) close() {
	for _, s := range d.gates {
		d.stop(s)
	}
}

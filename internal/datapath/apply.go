package datapath

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"egate/internal/tables"
)

// Apply puts a policy in force on the interfaces of the calling thread's
// network namespace, at all of them and in both directions with one write. If
// it returns an error, what was in force before is in force still, unchanged;
// what could not be tidied up after the switch is a warning. One writer at a
// time; another one waits for up to 5 s. Needs Linux 6.1.
//
// Errors wrap ErrGateName, ErrBusy, ErrPermission, ErrNoInterface,
// ErrInterface, ErrNoServer, ErrNetns, ErrPending, ErrABI, ErrDamaged or ErrUnsupported.
func Apply(set *tables.Set, o ApplyOptions) (*Applied, error) {
	if err := CheckGateName(o.Gate); err != nil {
		return nil, err
	}
	h, err := lockHost()
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	a := &application{gate: h.gate(o.Gate), set: set, options: o}
	applied, err := a.run()
	a.close()
	if closeErr := h.close(); closeErr != nil {
		if err == nil {
			a.warn(closeErr)
			applied.Warnings = a.warnings
		} else {
			err = errors.Join(err, closeErr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("apply: %w", explain(err))
	}
	return applied, nil
}

// application is one run of Apply.
type application struct {
	gate     *gate
	set      *tables.Set
	options  ApplyOptions
	warnings []string

	before     *view // what is in force at the beginning
	replace    bool  // the state is of another version and given up
	state      state
	interfaces []guarded
	dnsOnly    []guarded    // interfaces on which DNS is read and nothing judged
	servers    []netip.Addr // whose answers open names
	hook       Hook
	fresh      *generation
}

func (a *application) warn(err error) {
	a.warnings = append(a.warnings, fmt.Sprintf("the new policy is in force, but: %v", err))
}

// stage tells the caller what is done now.
func (a *application) stage(name string) {
	if a.options.Stage != nil {
		a.options.Stage(name)
	}
}

func (a *application) close() {
	if a.before != nil {
		a.before.close()
	}
	if a.fresh != nil {
		a.fresh.close()
	}
	a.state.close()
}

func (a *application) run() (*Applied, error) {
	err := a.look()
	if err != nil {
		return nil, err
	}
	if err = a.prepare(); err == nil {
		err = a.toSwitch()
	}
	if err != nil {
		return nil, errors.Join(err, a.undo())
	}
	if err := a.finish(); err != nil {
		a.warn(err)
	}
	out := &Applied{
		Gate: a.gate.name, Generation: a.fresh.number, Hook: a.hook.String(), Warnings: a.warnings, Servers: a.servers,
	}
	for _, i := range a.interfaces {
		out.Interfaces = append(out.Interfaces, i.Name)
	}
	if a.options.Confirm > 0 {
		// Both from the same moment: when the guard was given its deadline.
		out.Deadline = a.fresh.meta.Guarded.Add(a.options.Confirm)
	}
	return out, nil
}

// look finds out what is in force, tidies up after writers that were killed,
// and refuses what cannot be done. It leaves a gate in force as it is.
func (a *application) look() (err error) {
	g := a.gate
	if a.interfaces, a.warnings, err = resolveInterfaces(a.set.Interfaces); err != nil {
		return err
	}
	if a.servers, err = trustedServers(&a.set.DNS); err != nil {
		return err
	}
	only, warnings, err := findDNSOnly(a.servers, a.interfaces)
	if err != nil {
		return err
	}
	a.dnsOnly, a.warnings = only, append(a.warnings, warnings...)
	a.before = &view{}
	exists, err := g.exists()
	if err != nil || !exists {
		return err
	}
	slot, err := g.slot()
	if err != nil {
		return err
	}
	if slot == 0 {
		return g.wipe()
	}
	if err := g.settleReplacement(); err != nil {
		return err
	}
	if err := g.checkABI(); err != nil {
		if !errors.Is(err, ErrABI) || !a.options.ReplaceState {
			return err
		}
		if a.options.Confirm > 0 {
			return fmt.Errorf("a replaced state can't be taken back, so --replace-state and --confirm do not go together: %w", ErrUnsupported)
		}
		a.replace = true
		return nil
	}
	if a.before, err = g.view(); err != nil {
		a.before = nil
		return err
	}
	if a.before.current != nil {
		if err := g.checkNetns(a.before.current); err != nil {
			return err
		}
	}
	a.before.close()
	if a.before, err = g.settle(); err != nil {
		a.before = nil
		return err
	}
	if a.before.pending {
		left := time.Until(a.before.deadline).Round(time.Second)
		return fmt.Errorf("gate %s: `egate confirm` is due within %v; confirm the policy, or wait until the one before is in force again: %w", g.name, left, ErrPending)
	}
	if a.before.slot == 0 { // the confirmation of a first policy did not come
		a.before.close()
		a.before = &view{}
		return g.wipe()
	}
	return nil
}

// realtimeFile is there, and holds 1, on kernels built with PREEMPT_RT.
const realtimeFile = "/sys/kernel/realtime"

// refuseRealtime refuses kernels on which one run of a TC program can interrupt
// another on the same processor: the record of a packet that the program keeps
// per processor would be that of two. Errors wrap ErrUnsupported.
func refuseRealtime(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whether the kernel is a realtime one: %w", err)
	}
	if strings.TrimSpace(string(text)) == "1" {
		return fmt.Errorf("this kernel is built with PREEMPT_RT, on which packets could be taken for one another: %w", ErrUnsupported)
	}
	return nil
}

// prepare makes what the gate needs beside the policy.
func (a *application) prepare() (err error) {
	g := a.gate
	if err := refuseRealtime(realtimeFile); err != nil {
		return err
	}
	if a.hook, err = chooseHook(a.options.Hook, a.before.current, a.interfaces[0].Index); err != nil {
		return err
	}
	if err := step("prepare"); err != nil {
		return err
	}
	for _, dir := range []string{g.host.root, g.dir, g.path(linksPin)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make folder of the gate: %w", err)
		}
	}
	switch {
	case a.replace:
		a.state, err = g.replaceState(a.set)
	case a.before.slot != 0:
		a.state, err = g.openState()
	default:
		if a.state, err = g.newState(a.set, ""); err == nil {
			err = g.newDispatchers()
		}
	}
	if err != nil {
		return err
	}
	if err := step("state"); err != nil {
		return err
	}
	if err := g.needNameState(a.state, a.set); err != nil {
		return err
	}
	return g.resizeFlows(a.state, a.set)
}

// toSwitch does all up to the one write that puts the policy in force.
func (a *application) toSwitch() error {
	g := a.gate
	p, err := a.plan()
	if err != nil {
		return err
	}
	a.stage("loading")
	if a.fresh, err = g.build(p); err != nil {
		return err
	}
	a.stage("attaching")
	// The old policy does not know interfaces that are new, and an empty slot
	// has none, so they are attached before the switch and stay unjudged until it.
	warnings, err := g.attach(a.hook, a.options.Place, a.interfaces)
	a.warnings = append(a.warnings, warnings...)
	if err != nil {
		return err
	}
	if len(a.dnsOnly) > 0 {
		warnings, err = g.attach(a.hook, a.options.Place, a.dnsOnly)
		a.warnings = append(a.warnings, warnings...)
		if err != nil {
			return err
		}
	}
	a.stage("switching")
	if err := a.seed(); err != nil {
		return err
	}
	if err := step("switch"); err != nil {
		return err
	}
	return g.putGeneration(a.fresh)
}

func (a *application) plan() (*plan, error) {
	netns, err := currentNetns()
	if err != nil {
		return nil, err
	}
	number, err := a.state.nextGeneration()
	if err != nil {
		return nil, err
	}
	secret, err := a.gate.host.secret()
	if err != nil {
		return nil, err
	}
	return &plan{
		set: a.set, interfaces: a.interfaces, secret: secret, state: a.state,
		servers: a.servers, previous: a.before.current, confirm: a.options.Confirm,
		meta: &meta{
			Gate: a.gate.name, Generation: number, Policy: a.set.Name,
			Path: a.options.Source.Path, SHA256: hex.EncodeToString(a.options.Source.SHA256[:]),
			Applied: time.Now().Round(0), Audit: a.set.Audit, Netns: netns, Hook: a.hook.String(),
			Place: a.options.Place, Patterns: a.set.Interfaces, Interfaces: a.interfaces, DNSOnly: a.dnsOnly,
			HostServers: a.set.DNS.InUse && a.set.DNS.Servers == nil, Chains: metaChains(a.set),
		},
	}, nil
}

// seed tells a policy that tracks of the connections that exist. One that the
// kernel won't list is a warning: replies on it may be dropped.
func (a *application) seed() error {
	if !tracks(a.set) {
		return nil
	}
	if err := step("seed"); err != nil {
		return err
	}
	problem, err := seedFlows(a.state[flowsMap])
	if problem != "" && !slices.Contains(a.warnings, problem) {
		a.warnings = append(a.warnings, problem)
	}
	return err
}

// undo takes back what was done before the switch did not happen. What is in
// force decides what is to be taken back; so it does not matter how far this got.
func (a *application) undo() error {
	g := a.gate
	slot, err := g.slot()
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	switch {
	case slot == 0:
		err = g.wipe()
	case a.replace:
		err = g.settleReplacement()
	default:
		var v *view
		if v, err = g.settle(); err == nil {
			v.close()
		}
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// finish takes the old policy away.
func (a *application) finish() error {
	a.stage("taking the old policy away")
	if err := step("finish"); err != nil {
		return err
	}
	if a.replace {
		if err := a.gate.settleReplacement(); err != nil {
			return err
		}
	}
	v, err := a.gate.settle()
	if err != nil {
		return err
	}
	v.close()
	// Connections that were opened between the first look and the switch.
	return a.seed()
}

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/verdict"
)

// dispatchers are the two programs that are attached to interfaces; index:
// verdict.Direction. They go on living while policies change.
type dispatchers [2]*ebpf.Program

// newDispatchers loads and pins the active slot and the dispatchers on it.
func (g *gate) newDispatchers() error {
	spec, err := loadDispatch()
	if err != nil {
		return fmt.Errorf("read embedded dispatcher: %w", err)
	}
	var objects struct {
		Egress  *ebpf.Program `ebpf:"egate_egress"`
		Ingress *ebpf.Program `ebpf:"egate_ingress"`
		Active  *ebpf.Map     `ebpf:"active"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return explain(fmt.Errorf("load dispatchers: %w", err))
	}
	d := dispatchers{objects.Egress, objects.Ingress}
	defer d.close()
	defer objects.Active.Close()
	if err := objects.Active.Pin(g.path(activePin)); err != nil {
		return explain(fmt.Errorf("pin active slot: %w", err))
	}
	for _, dir := range verdict.Directions {
		if err := d[dir].Pin(g.path(dispatchPin + dir.String())); err != nil {
			return explain(fmt.Errorf("pin %s dispatcher: %w", dir, err))
		}
	}
	return nil
}

// openDispatchers opens those of the gate. The caller closes them.
func (g *gate) openDispatchers() (dispatchers, error) {
	var d dispatchers
	for _, dir := range verdict.Directions {
		p, err := ebpf.LoadPinnedProgram(g.path(dispatchPin+dir.String()), nil)
		if err != nil {
			d.close()
			return d, fmt.Errorf("open %s dispatcher: %w", dir, err)
		}
		d[dir] = p
	}
	return d, nil
}

func (d dispatchers) close() {
	for _, p := range d {
		p.Close()
	}
}

// ids are the program ids of the dispatchers.
func (d dispatchers) ids() (ids [2]ebpf.ProgramID, err error) {
	for _, dir := range verdict.Directions {
		if ids[dir], err = programID(d[dir]); err != nil {
			return ids, err
		}
	}
	return ids, nil
}

// chooseHook tells which hook this kernel, this gate and the caller agree on.
// Errors wrap ErrUnsupported.
func chooseHook(want Hook, current *generation, ifindex int) (Hook, error) {
	if current != nil {
		is := hookNamed(current.meta.Hook)
		if want != HookAuto && want != is {
			return 0, fmt.Errorf("choose hook: the gate is attached through %s; `egate off` it first to go over to %s: %w", is, want, ErrUnsupported)
		}
		return is, nil
	}
	if want == HookClsact {
		return want, nil
	}
	_, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXEgress})
	switch {
	case err == nil:
		return HookTCX, nil
	case errors.Is(err, unix.ENODEV):
		return 0, fmt.Errorf("choose hook: look at the first interface: %w", err)
	case want == HookTCX:
		return 0, fmt.Errorf("choose hook: this kernel has no TCX, which came with Linux 6.6: %w (%w)", ErrUnsupported, err)
	}
	return HookClsact, nil
}

func hookNamed(name string) Hook {
	if name == HookTCX.String() {
		return HookTCX
	}
	return HookClsact
}

// attach attaches the dispatchers to the interfaces where they are not yet.
// Warnings tell of foreign filters that could not be passed by.
func (g *gate) attach(hook Hook, place Place, interfaces []guarded) (warnings []string, err error) {
	d, err := g.openDispatchers()
	if err != nil {
		return nil, err
	}
	defer d.close()
	gone := 0
	for _, i := range interfaces {
		more, err := g.attachInterface(d, hook, place, i)
		warnings = append(warnings, more...)
		switch {
		case err != nil && hasVanished(i.Index):
			// Interfaces of containers come and go; nothing leaves by one that is gone.
			gone++
			warnings = append(warnings, fmt.Sprintf("interface %s has gone in the meantime", i.Name))
		case err != nil:
			return nil, err
		}
	}
	if gone == len(interfaces) {
		return nil, fmt.Errorf("attach: every interface that the policy names has gone in the meantime: %w", ErrNoInterface)
	}
	return warnings, nil
}

// attachInterface attaches to both directions of one interface.
func (g *gate) attachInterface(d dispatchers, hook Hook, place Place, i guarded) (warnings []string, err error) {
	for _, dir := range verdict.Directions {
		if err := step("attach"); err != nil {
			return nil, err
		}
		var warning string
		if hook == HookTCX {
			err = g.attachTCX(d[dir], i, dir, place)
		} else {
			warning, err = g.attachClsact(d[dir], i, dir, place)
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		if err != nil {
			return warnings, explain(fmt.Errorf("attach to %s of %s: %w", dir, i.Name, err))
		}
	}
	return warnings, nil
}

// hasVanished tells whether no interface of this network namespace has the index.
func hasVanished(ifindex int) bool {
	_, err := netlink.LinkByIndex(ifindex)
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// detach takes the dispatchers off every interface for which unwanted holds.
// Links go from any network namespace; filters only in the gate's own, so
// where m says that the gate has filters, the caller has checked that.
// m is nil where nothing is known.
func (g *gate) detach(unwanted func(ifindex int) bool, m *meta) error {
	if err := g.detachTCX(unwanted); err != nil {
		return err
	}
	if m != nil && hookNamed(m.Hook) == HookTCX {
		return nil
	}
	return g.detachClsact(unwanted)
}

// attachTCX attaches and pins one link, unless one is there and alive.
func (g *gate) attachTCX(p *ebpf.Program, i guarded, dir verdict.Direction, place Place) error {
	path := g.path(linksPin, fmt.Sprintf("%d-%s", i.Index, dir))
	if is, err := linkedIfindex(path); err == nil {
		if is == i.Index {
			return nil
		}
		// The interface is gone, and this is another one with its number.
		if err := removePin(path); err != nil {
			return err
		}
	} else if _, statErr := os.Stat(path); statErr == nil {
		return err
	}
	anchor := link.Head()
	if place == PlaceLast {
		anchor = link.Tail()
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: p, Attach: tcxAttachTypes[dir], Anchor: anchor})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}

var tcxAttachTypes = [2]ebpf.AttachType{verdict.Egress: ebpf.AttachTCXEgress, verdict.Ingress: ebpf.AttachTCXIngress}

// linkedIfindex tells which interface a pinned link is on: 0 if that is gone.
func linkedIfindex(path string) (int, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0, fmt.Errorf("open link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for the link's interface: %w", err)
	}
	tcx := info.TCX()
	if tcx == nil {
		return 0, fmt.Errorf("ask for the link's interface: %s is not a TCX link: %w", path, ErrDamaged)
	}
	return int(tcx.Ifindex), nil
}

// pinnedLinks lists the pins of links with the ifindex they were made for.
func (g *gate) pinnedLinks() (map[string]int, error) {
	entries, err := os.ReadDir(g.path(linksPin))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	found := map[string]int{}
	for _, e := range entries {
		var ifindex int
		var dir string
		if _, err := fmt.Sscanf(e.Name(), "%d-%s", &ifindex, &dir); err != nil {
			return nil, fmt.Errorf("list links: %q is none of egate's: %w", e.Name(), ErrDamaged)
		}
		found[filepath.Join(g.path(linksPin), e.Name())] = ifindex
	}
	return found, nil
}

// detachTCX removes links. An interface that is gone has taken its
// attachments along; only the pin is left then.
func (g *gate) detachTCX(unwanted func(ifindex int) bool) error {
	links, err := g.pinnedLinks()
	if err != nil {
		return err
	}
	for path, ifindex := range links {
		is, err := linkedIfindex(path)
		if err != nil {
			return err
		}
		if is == ifindex && !unwanted(ifindex) {
			continue
		}
		// Removing the pin alone would detach some time later.
		if is != 0 {
			if err := detachLink(path); err != nil {
				return err
			}
		}
		if err := removePin(path); err != nil {
			return err
		}
	}
	return nil
}

func detachLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		// Meanwhile the interface may have gone.
		if is, again := linkedIfindex(path); again == nil && is == 0 {
			return nil
		}
		return fmt.Errorf("detach link: %w", err)
	}
	return nil
}

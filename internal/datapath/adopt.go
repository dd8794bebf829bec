package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"egate/internal/verdict"
)

// Adopted is an interface to which a gate was attached after its policy was
// applied.
type Adopted struct {
	Name    string
	DNSOnly bool // it is not guarded: DNS is read there
}

// Adopt makes the policies of a gate guard the interfaces of the calling
// thread's network namespace that match their patterns and came after they
// were applied, or came to carry a default route where they say so. It attaches
// again where somebody has detached the gate, and lets go what is gone. Where
// there is nothing to do it takes no lock and writes nothing. It names what it is
// attached to from now on.
//
// What can't be guarded, because of its type or because there is no room, is an
// error that wraps ErrInterface, and does not keep the others from being
// guarded. Other errors wrap ErrGateName, ErrNoGate, ErrNetns, ErrBusy, ErrABI,
// ErrDamaged or ErrPermission.
func Adopt(name string) (adopted []Adopted, err error) {
	if err := CheckGateName(name); err != nil {
		return nil, err
	}
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return nil, fmt.Errorf("adopt interfaces: gate %s: %w", name, ErrNoGate)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt interfaces: %w", explain(err))
	}
	todo, refused, err := h.gate(name).lookForInterfaces()
	switch {
	case err == nil && !todo:
		return nil, refused
	case errors.Is(err, ErrNoGate), errors.Is(err, ErrNetns), errors.Is(err, ErrABI):
		return nil, fmt.Errorf("adopt interfaces: %w", err)
	}
	// Other errors may be those of a gate that is being changed: the lock tells.
	err = change(name, func(g *gate) error {
		adopted, refused, err = g.adopt()
		return err
	})
	if err != nil {
		return adopted, fmt.Errorf("adopt interfaces: %w", errors.Join(explain(err), refused))
	}
	return adopted, refused
}

// linkTable is the interfaces of a network namespace.
type linkTable struct {
	all       []netlink.Link
	index     map[int]bool
	isDefault map[int]bool // those that carry a default route, where a policy asks for them
}

// listFor lists the interfaces, with what the generations want to know of them.
func listFor(generations []*generation) (*linkTable, error) {
	t := &linkTable{index: map[int]bool{}}
	var err error
	if t.all, err = listLinks(); err != nil {
		return nil, err
	}
	for _, l := range t.all {
		t.index[l.Attrs().Index] = true
	}
	for _, gen := range generations {
		if t.isDefault == nil && slices.Contains(gen.meta.Patterns, defaultPattern) {
			if t.isDefault, err = defaultRouteLinks(); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// adoptable opens the view of a gate whose interfaces may be changed from here.
// The caller closes it.
func (g *gate) adoptable() (*view, error) {
	if err := g.checkABI(); err != nil {
		return nil, err
	}
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	if v.current == nil {
		v.close()
		return nil, fmt.Errorf("gate %s: what is in force has no pins: %w", g.name, ErrDamaged)
	}
	if err := g.checkNetns(v.current); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// lookForInterfaces tells whether there is something to do for adopt.
func (g *gate) lookForInterfaces() (todo bool, refused, err error) {
	exists, err := g.exists()
	if err != nil {
		return false, nil, err
	}
	if !exists {
		return false, nil, g.errNone()
	}
	v, err := g.adoptable()
	if err != nil {
		return false, nil, err
	}
	defer v.close()
	links, err := listFor(v.kept())
	if err != nil {
		return false, nil, err
	}
	for _, gen := range v.kept() {
		missing, cannot, err := gen.missing(links)
		if err != nil {
			return false, nil, err
		}
		refused = errors.Join(refused, errors.Join(cannot...))
		_, dns, err := gen.missingForDNS(links)
		if err != nil {
			return false, nil, err
		}
		todo = todo || dns || len(missing) > 0 || len(gen.gone(links)) > 0
	}
	if todo {
		return true, refused, nil
	}
	detached, err := g.detached(v, links)
	return len(detached) > 0, refused, err
}

// missing lists the interfaces that the generation's patterns mean and that it
// does not guard, or not to the end: whoever noted them may have been killed.
func (gen *generation) missing(links *linkTable) (missing []guarded, refused []error, err error) {
	found, refused, err := matchesNow(gen.meta.Patterns, links)
	if err != nil {
		return nil, nil, err
	}
	ifaces, err := gen.openMap("ifaces")
	if err != nil {
		return nil, nil, err
	}
	defer ifaces.Close()
	for _, f := range found {
		o := gen.owner(f.Index)
		if o == nil {
			missing = append(missing, f)
			continue
		}
		var entry abiEgateIface
		if err := ifaces.Lookup(uint32(f.Index), &entry); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, nil, fmt.Errorf("read interfaces: %w", err)
		}
		if int(entry.Slot) != o.position+1 {
			missing = append(missing, o.guarded)
		}
	}
	return missing, refused, nil
}

// gone lists the owners whose interfaces are.
func (gen *generation) gone(links *linkTable) []owner {
	var gone []owner
	for _, o := range gen.owners {
		if !links.index[o.Index] {
			gone = append(gone, o)
		}
	}
	return gone
}

// detached lists the interfaces that the generations want and on which the
// dispatchers hang not, or not any more.
func (g *gate) detached(v *view, links *linkTable) ([]guarded, error) {
	var off []guarded
	seen := map[int]bool{}
	hook := hookNamed(v.current.meta.Hook)
	isAttached := g.hasLinks
	if hook == HookClsact {
		var err error
		if isAttached, err = g.filterFinder(); err != nil {
			return nil, err
		}
	}
	for _, gen := range v.kept() {
		for _, i := range gen.attached() {
			if seen[i.Index] || !links.index[i.Index] {
				continue
			}
			seen[i.Index] = true
			attached, err := isAttached(i.Index)
			if err != nil && hasVanished(i.Index) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if !attached {
				off = append(off, i)
			}
		}
	}
	return off, nil
}

// hasLinks tells whether both dispatchers hang on an interface, by TCX.
func (g *gate) hasLinks(ifindex int) (bool, error) {
	for _, dir := range verdict.Directions {
		is, err := linkedIfindex(g.path(linksPin, fmt.Sprintf("%d-%s", ifindex, dir)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && is != ifindex {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// filterFinder gives what tells whether both dispatchers hang on an interface, by
// clsact.
func (g *gate) filterFinder() (func(ifindex int) (bool, error), error) {
	d, err := g.openDispatchers()
	if err != nil {
		return nil, err
	}
	ids, err := d.ids()
	d.close()
	if err != nil {
		return nil, err
	}
	kinds, err := ingressQdiscs()
	if err != nil {
		return nil, err
	}
	return func(ifindex int) (bool, error) {
		for _, dir := range verdict.Directions {
			filters, err := filtersUnder(kinds[ifindex], ifindex, dir)
			if err != nil {
				return false, err
			}
			if !slices.ContainsFunc(filters, func(f netlink.Filter) bool { return programOf(f) == ids[dir] }) {
				return false, nil
			}
		}
		return true, nil
	}, nil
}

// adopt does what Adopt promises, under the lock.
func (g *gate) adopt() (adopted []Adopted, refused, err error) {
	v, err := g.adoptable()
	if err != nil {
		return nil, nil, err
	}
	defer v.close()
	links, err := listFor(v.kept())
	if err != nil {
		return nil, nil, err
	}
	// What has come is urgent, and what has gone is not, unless its place is wanted.
	adopted, refused, err = g.takeIn(v, links)
	if err != nil {
		return adopted, refused, err
	}
	freed, err := g.letGo(v, links)
	if err != nil || !freed || refused == nil {
		return adopted, refused, err
	}
	more, refused, err := g.takeIn(v, links)
	return append(adopted, more...), refused, err
}

// takeIn makes the policies judge what they miss, and attaches there.
func (g *gate) takeIn(v *view, links *linkTable) (adopted []Adopted, refused, err error) {
	for _, gen := range v.kept() {
		cannot, err := gen.enterMissing(links)
		refused = errors.Join(refused, errors.Join(cannot...))
		if err != nil {
			return nil, refused, err
		}
		lo, dns, err := gen.missingForDNS(links)
		if err == nil && dns {
			err = gen.enterForDNS(lo)
		}
		if err != nil {
			return nil, refused, err
		}
	}
	// Last of all: an attached dispatcher lets pass what no policy knows.
	off, err := g.detached(v, links)
	if err != nil || len(off) == 0 {
		return nil, refused, err
	}
	d, err := g.openDispatchers()
	if err != nil {
		return nil, refused, err
	}
	defer d.close()
	for _, i := range off {
		// A warning is about foreign filters; status shows the order.
		_, err := g.attachInterface(d, hookNamed(v.current.meta.Hook), v.current.meta.Place, i)
		switch {
		case err != nil && hasVanished(i.Index):
		case err != nil:
			refused = errors.Join(refused, err)
		default:
			adopted = append(adopted, Adopted{i.Name, !slices.ContainsFunc(v.kept(), func(gen *generation) bool { return gen.owner(i.Index) != nil })})
		}
	}
	return adopted, refused, nil
}

// letGo forgets the interfaces that are gone. It tells whether there were some.
func (g *gate) letGo(v *view, links *linkTable) (freed bool, err error) {
	gone := map[*generation][]owner{}
	for _, gen := range v.kept() {
		if of := gen.gone(links); len(of) > 0 {
			gone[gen] = of
		}
	}
	if len(gone) == 0 {
		return false, nil
	}
	s, err := g.openState()
	if err != nil {
		return false, err
	}
	defer s.close()
	waitForPrograms()
	for _, gen := range v.kept() { // oldest first, as counters are folded
		if len(gone[gen]) == 0 {
			continue
		}
		r, err := openRoster(gen)
		if err != nil {
			return false, err
		}
		err = r.letGo(gone[gen], s[sumsMap], v.kept())
		r.close()
		if err != nil {
			return false, err
		}
	}
	if hookNamed(v.current.meta.Hook) == HookClsact {
		return true, g.host.forgetQdiscs(slices.Concat(slices.Collect(maps.Values(gone))...))
	}
	return true, g.detachTCX(func(ifindex int) bool { return !links.index[ifindex] })
}

// enterMissing makes the generation judge the interfaces that it misses.
func (gen *generation) enterMissing(links *linkTable) (refused []error, err error) {
	missing, refused, err := gen.missing(links)
	if err != nil || len(missing) == 0 {
		return refused, err
	}
	r, err := openRoster(gen)
	if err != nil {
		return refused, err
	}
	defer r.close()
	for _, i := range missing {
		err := r.enter(i)
		if errors.Is(err, ErrInterface) {
			refused = append(refused, err)
			continue
		}
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

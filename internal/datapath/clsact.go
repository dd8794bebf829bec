package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/verdict"
)

// Before TCX, programs hang as cls_bpf filters in a clsact qdisc: sorted by
// priority, and within one priority the newest first. egate's have one
// priority for the first place and one for the last, and the next number for
// each further gate there as handle. Which filters are egate's is told by the
// id of the program, which is that of a pinned dispatcher.
const (
	priorityFirst = 1
	priorityLast  = 0xfff0
	maxHandles    = 1 << 10
)

var clsactParents = [2]uint32{verdict.Egress: netlink.HANDLE_MIN_EGRESS, verdict.Ingress: netlink.HANDLE_MIN_INGRESS}

// qdiscKey is the key of map `qdiscs`: a clsact qdisc that egate made, or was
// about to make when it was killed. The value is 1.
type qdiscKey struct {
	NetnsCookie uint64
	Ifindex     uint32
	Pad         uint32
}

func (h *host) qdiscs() (*ebpf.Map, error) {
	return h.sharedMap(qdiscsPin, &ebpf.MapSpec{
		Name: "egate_qdiscs", Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: 65536, Flags: unix.BPF_F_NO_PREALLOC,
	})
}

// attachClsact adds one filter, unless it is there.
func (g *gate) attachClsact(p *ebpf.Program, i guarded, dir verdict.Direction, place Place) (warning string, err error) {
	id, err := programID(p)
	if err != nil {
		return "", err
	}
	if err := g.host.needQdisc(i); err != nil {
		return "", err
	}
	filters, err := listFilters(i.Index, dir)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(filters, func(f netlink.Filter) bool { return programOf(f) == id }) {
		return "", nil
	}
	priority := priorityFor(filters, place)
	if place == PlaceFirst && priority != priorityFirst {
		warning = fmt.Sprintf("%s of %s: a foreign filter has priority %d and sees packets before egate; what it lets pass for good, egate never sees",
			dir, i.Name, priorityFirst)
	}
	attrs := netlink.FilterAttrs{
		LinkIndex: i.Index,
		Parent:    clsactParents[dir],
		Handle:    freeHandle(filters, priority),
		Priority:  priority,
		Protocol:  unix.ETH_P_ALL,
	}
	filter := &netlink.BpfFilter{FilterAttrs: attrs, Fd: p.FD(), Name: "egate_" + dir.String(), DirectAction: true}
	if err := netlink.FilterAdd(filter); err != nil {
		return "", fmt.Errorf("add filter: %w", err)
	}
	return warning, nil
}

// needQdisc makes the clsact qdisc of an interface if there is none. That it
// is egate's is noted before, for a writer killed in between.
func (h *host) needQdisc(i guarded) error {
	kind, err := ingressQdisc(i.Index)
	switch {
	case err != nil:
		return err
	case kind == "clsact":
		return nil
	case kind != "":
		return fmt.Errorf("the interface has a qdisc %q where clsact belongs; remove it with `tc qdisc del dev %s ingress`: %w", kind, i.Name, ErrInterface)
	}
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	owned, err := h.qdiscs()
	if err != nil {
		return err
	}
	defer owned.Close()
	key := qdiscKey{NetnsCookie: cookie, Ifindex: uint32(i.Index)}
	if err := owned.Put(&key, uint32(1)); err != nil {
		return fmt.Errorf("note clsact qdisc: %w", err)
	}
	if err := step("qdisc"); err != nil {
		return err
	}
	if err := netlink.QdiscAdd(newClsact(i.Index)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	return nil
}

func newClsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// ingressQdisc gives the kind of the qdisc at the place of clsact, "" if none.
func ingressQdisc(ifindex int) (string, error) {
	qdiscs, err := netlink.QdiscList(linkByIndex(ifindex))
	if err != nil {
		return "", fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			return q.Type(), nil
		}
	}
	return "", nil
}

// ingressQdiscs gives the kinds of the qdiscs at the place of clsact, by ifindex.
func ingressQdiscs() (map[int]string, error) {
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	kinds := map[int]string{}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			kinds[q.Attrs().LinkIndex] = q.Type()
		}
	}
	return kinds, nil
}

// linkByIndex is what package netlink wants to see of an interface.
func linkByIndex(ifindex int) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Index = ifindex
	return &netlink.Device{LinkAttrs: attrs}
}

// listFilters lists the filters of a direction in the order in which packets
// meet them. Where there is no clsact qdisc there are none.
func listFilters(ifindex int, dir verdict.Direction) ([]netlink.Filter, error) {
	kind, err := ingressQdisc(ifindex)
	if err != nil {
		return nil, err
	}
	return filtersUnder(kind, ifindex, dir)
}

// filtersUnder lists as listFilters does, where the kind of the qdisc at the
// place of clsact is known.
func filtersUnder(kind string, ifindex int, dir verdict.Direction) ([]netlink.Filter, error) {
	if kind != "clsact" && (kind != "ingress" || dir == verdict.Egress) {
		return nil, nil
	}
	filters, err := netlink.FilterList(linkByIndex(ifindex), clsactParents[dir])
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	slices.SortStableFunc(filters, func(a, b netlink.Filter) int {
		return int(a.Attrs().Priority) - int(b.Attrs().Priority)
	})
	return filters, nil
}

// programOf gives the id of a filter's program, 0 for filters without one.
func programOf(f netlink.Filter) ebpf.ProgramID {
	if b, ok := f.(*netlink.BpfFilter); ok {
		return ebpf.ProgramID(b.Id)
	}
	return 0
}

// priorityFor gives the first priority from the wanted end that holds nothing
// but cls_bpf filters for all protocols, which can stand beside egate's.
func priorityFor(filters []netlink.Filter, place Place) uint16 {
	priority, next := uint16(priorityFirst), 1
	if place == PlaceLast {
		priority, next = priorityLast, -1
	}
	for slices.ContainsFunc(filters, func(f netlink.Filter) bool {
		return f.Attrs().Priority == priority && (programOf(f) == 0 || f.Attrs().Protocol != unix.ETH_P_ALL)
	}) {
		priority = uint16(int(priority) + next)
	}
	return priority
}

// freeHandle gives the lowest handle that no filter of the priority has.
func freeHandle(filters []netlink.Filter, priority uint16) uint32 {
	for handle := uint32(1); handle < maxHandles; handle++ {
		if !slices.ContainsFunc(filters, func(f netlink.Filter) bool {
			return f.Attrs().Priority == priority && f.Attrs().Handle == handle
		}) {
			return handle
		}
	}
	return 0 // the kernel chooses
}

// detachClsact removes this gate's filters from unwanted interfaces of this
// network namespace, filters that a gate left whose pins are gone, and the
// qdiscs that egate made and nobody uses.
func (g *gate) detachClsact(unwanted func(ifindex int) bool) error {
	var ids [2]ebpf.ProgramID
	d, err := g.openDispatchers()
	if err == nil {
		ids, err = d.ids()
		d.close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // killed before they were pinned
		return err
	}
	links, err := listLinks()
	if err != nil {
		return err
	}
	present := map[int]bool{}
	orphans := orphans{}
	for _, l := range links {
		ifindex := l.Attrs().Index
		present[ifindex] = true
		for _, dir := range verdict.Directions {
			filters, err := listFilters(ifindex, dir)
			if err != nil {
				return err
			}
			for _, f := range filters {
				id := programOf(f)
				if id == 0 || !(id == ids[dir] && unwanted(ifindex)) && !(id != ids[dir] && orphans.has(id)) {
					continue
				}
				if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
					return fmt.Errorf("delete filter of %s of %s: %w", dir, l.Attrs().Name, err)
				}
			}
		}
	}
	return g.host.dropQdiscs(present)
}

// orphans finds dispatchers of gates whose pins are gone: the kernel has
// emptied their program array, so they let everything pass. It remembers by
// array, which must not be opened and closed twice in a row: the kernel
// (prog_array_map_clear) then keeps a reference for ever.
type orphans map[ebpf.MapID]bool

// has tells whether a program is one. Where the kernel does not let us look,
// it is none.
func (o orphans) has(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name != "egate_egress" && info.Name != "egate_ingress" {
		return false
	}
	maps, ok := info.MapIDs()
	if !ok || len(maps) != 1 {
		return false
	}
	is, known := o[maps[0]]
	if !known {
		is = isEmptyArray(maps[0])
		o[maps[0]] = is
	}
	return is
}

func isEmptyArray(id ebpf.MapID) bool {
	active, err := ebpf.NewMapFromID(id)
	if err != nil {
		return false
	}
	defer active.Close()
	if active.Type() != ebpf.ProgramArray {
		return false
	}
	in, err := slotOf(active, 0)
	return err == nil && in == 0
}

// dropQdiscs removes the clsact qdiscs of this network namespace that egate
// made and that have no filter any more.
func (h *host) dropQdiscs(present map[int]bool) error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	owned, err := h.qdiscs()
	if err != nil {
		return err
	}
	defer owned.Close()
	var key qdiscKey
	var one uint32
	var mine []qdiscKey
	entries := owned.Iterate()
	for entries.Next(&key, &one) {
		if key.NetnsCookie == cookie {
			mine = append(mine, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list clsact qdiscs of egate: %w", err)
	}
	for _, key := range mine {
		if present[int(key.Ifindex)] {
			empty, err := dropQdisc(int(key.Ifindex))
			if err != nil {
				return err
			}
			if !empty {
				continue
			}
		}
		if err := owned.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget clsact qdisc: %w", err)
		}
	}
	return nil
}

// forgetQdiscs forgets those of interfaces that are gone, and their qdiscs with
// them.
func (h *host) forgetQdiscs(gone []owner) error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	owned, err := h.qdiscs()
	if err != nil {
		return err
	}
	defer owned.Close()
	for _, o := range gone {
		key := qdiscKey{NetnsCookie: cookie, Ifindex: uint32(o.Index)}
		if err := owned.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget clsact qdisc: %w", err)
		}
	}
	return nil
}

// dropQdisc removes the clsact qdisc of an interface if it has no filters, and
// tells whether it is gone.
func dropQdisc(ifindex int) (bool, error) {
	for _, dir := range verdict.Directions {
		filters, err := listFilters(ifindex, dir)
		if err != nil || len(filters) > 0 {
			return false, err
		}
	}
	kind, err := ingressQdisc(ifindex)
	if err != nil || kind != "clsact" {
		return err == nil, err
	}
	if err := netlink.QdiscDel(newClsact(ifindex)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return false, fmt.Errorf("delete clsact qdisc: %w", err)
	}
	return true, nil
}

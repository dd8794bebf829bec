package datapath

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/verdict"
)

// dispatcherOwners tells which gate of this host a dispatcher belongs to.
func (h *host) dispatcherOwners() (map[ebpf.ProgramID]string, error) {
	names, err := h.gates()
	if err != nil {
		return nil, err
	}
	owners := map[ebpf.ProgramID]string{}
	for _, name := range names {
		d, err := h.gate(name).openDispatchers()
		if errors.Is(err, fs.ErrNotExist) {
			continue // being made, or taken away
		}
		if err != nil {
			return nil, err
		}
		ids, err := d.ids()
		d.close()
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			owners[id] = name
		}
	}
	return owners, nil
}

// hookPrograms lists all programs on one direction of an interface of this
// network namespace in the order in which packets meet them: TCX first, then
// the filters of clsact.
func hookPrograms(ifindex int, dir verdict.Direction, owners map[ebpf.ProgramID]string) ([]Program, error) {
	var all []Program
	tcx, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachTypes[dir]})
	switch {
	case err == nil:
		for _, p := range tcx.Programs {
			all = append(all, describeProgram(p.ID, HookTCX, owners))
		}
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported): // no TCX before Linux 6.6
	case errors.Is(err, unix.ENODEV):
		return nil, nil // gone meanwhile
	default:
		return nil, fmt.Errorf("list programs on %s of interface %d: %w", dir, ifindex, err)
	}
	filters, err := listFilters(ifindex, dir)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		p := Program{Name: f.Type(), Kind: HookClsact.String()}
		if id := programOf(f); id != 0 {
			p = describeProgram(id, HookClsact, owners)
			if b, ok := f.(*netlink.BpfFilter); ok && p.Name == "" {
				p.Name = b.Name
			}
		}
		p.Priority, p.Handle = f.Attrs().Priority, f.Attrs().Handle
		all = append(all, p)
	}
	return all, nil
}

// describeProgram asks the kernel for a program's name. It may be gone, or the
// kernel may not let us look; then the name is not known.
func describeProgram(id ebpf.ProgramID, hook Hook, owners map[ebpf.ProgramID]string) Program {
	out := Program{ID: uint32(id), Kind: hook.String(), Gate: owners[id]}
	if p, err := ebpf.NewProgramFromID(id); err == nil {
		if info, err := p.Info(); err == nil {
			out.Name = info.Name
		}
		p.Close()
	}
	out.Egate = out.Gate != "" || out.Name == "egate_egress" || out.Name == "egate_ingress"
	return out
}

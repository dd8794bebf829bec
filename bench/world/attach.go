package world

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AttachEgress attaches a TC program to the sender's interface until the world
// is closed: as a TCX link, before Linux 6.6 as a clsact filter. The caller
// may close the program.
func (w *World) AttachEgress(program *ebpf.Program) error {
	return w.attach(w.Sender, Link, program, ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS)
}

// tcActShot is the verdict that drops a packet.
const tcActShot = 2

// Sink makes the peer throw away all that arrives, as early as a TC program
// can: what is measured is the sender. To do so twice is to do so once.
func (w *World) Sink() error {
	if w.sink {
		return nil
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sink", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, tcActShot), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load sink: %w", err)
	}
	defer program.Close()
	err = w.attach(w.Peer, peerLink, program, ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS)
	w.sink = err == nil
	return err
}

func (w *World) attach(where *Namespace, name string, program *ebpf.Program, hook ebpf.AttachType, parent uint32) error {
	return where.Run(func() error {
		on, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		attached, err := link.AttachTCX(link.TCXOptions{Interface: on.Attrs().Index, Program: program, Attach: hook})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return attachFilter(on, program, parent)
		}
		if err != nil {
			return fmt.Errorf("attach to %s: %w", name, err)
		}
		w.KeepUntilClose(attached)
		return nil
	})
}

// attachFilter attaches as before Linux 6.6; the filter goes with its interface.
func attachFilter(on netlink.Link, program *ebpf.Program, parent uint32) error {
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: on.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscReplace(clsact); err != nil {
		return fmt.Errorf("add clsact to %s: %w", on.Attrs().Name, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: on.Attrs().Index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "bench", DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach to %s: %w", on.Attrs().Name, err)
	}
	return nil
}

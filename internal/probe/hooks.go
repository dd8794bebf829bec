package probe

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hookChecks is what was found of the two ways to attach.
type hookChecks struct{ tcx, clsact, any Check }

// tryHooks attaches a program that does nothing to lo of a new network
// namespace, which goes with its thread.
func tryHooks() hookChecks {
	h := hookChecks{
		tcx: Check{
			Name: "TCX", Since: "6.6", For: "attaching beside other programs in an order of one's own",
			Do: "egate uses clsact instead",
		},
		clsact: Check{
			Name: "clsact", Since: "4.5", For: "attaching where there is no TCX",
			Do: "load the modules sch_ingress and cls_bpf",
		},
		any: Check{
			Name: "a hook to attach to", Needed: true, For: "standing in the way of packets",
			Do: "use Linux 6.6 or newer, or load the modules sch_ingress and cls_bpf",
		},
	}
	var tcx, clsact error
	if err := inNewNetns(func() error { tcx, clsact = tryTCX(), tryClsact(); return nil }); err != nil {
		tcx, clsact = err, err
	}
	h.tcx, h.clsact = feature(h.tcx, tcx), feature(h.clsact, clsact)
	switch {
	case h.tcx.State == OK || h.clsact.State == OK:
		h.any.State, h.any.Do = OK, ""
	case h.tcx.State == Missing && h.clsact.State == Missing:
		h.any.State = Missing
	default:
		h.any.State, h.any.Detail, h.any.Do = Unknown, h.tcx.Detail, h.tcx.Do
	}
	if h.tcx.State != OK && h.clsact.State == OK {
		h.any.Detail = "clsact"
	} else if h.tcx.State == OK {
		h.any.Detail = "TCX"
	}
	return h
}

// inNewNetns runs f on a thread of its own in a network namespace of its own;
// both end with it.
func inNewNetns(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

const loopbackIndex = 1 // in every network namespace

func tryProgram() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "egate_probe",
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, -1), // TCX_NEXT and TC_ACT_UNSPEC: not my business
			asm.Return(),
		},
		License: "GPL",
	})
}

func tryTCX() error {
	prog, err := tryProgram()
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: loopbackIndex, Program: prog, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return err
	}
	return l.Close()
}

func tryClsact() error {
	prog, err := tryProgram()
	if err != nil {
		return err
	}
	defer prog.Close()
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: loopbackIndex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return absent(fmt.Errorf("add clsact qdisc: %w", err))
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: loopbackIndex, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "egate_probe", DirectAction: true,
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return absent(fmt.Errorf("add bpf filter: %w", err))
	}
	return nil
}

// absent marks the errors by which netlink says that a kind of qdisc or filter
// does not exist.
func absent(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", err, ebpf.ErrNotSupported)
	}
	return err
}

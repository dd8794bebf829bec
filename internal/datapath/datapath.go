// Package datapath is stage 4: tables to the kernel. It loads a policy aside,
// attaches the dispatchers, switches with one write, keeps what must outlive a
// policy, and takes everything back.
//
// # What is pinned where
//
//	BPFFS/egate/
//	  secret             u64 by which gates know each other's answers to rejected packets
//	  qdiscs             clsact qdiscs that egate made and therefore removes
//	  GATE/              one gate, mode 0700
//	    active           program array; slot 0 is the policy in force
//	    dispatch_egress  what is attached to interfaces, and tail-calls that slot
//	    dispatch_ingress
//	    links/           TCX links, IFINDEX-egress and IFINDEX-ingress
//	    state/           maps that outlive policies; NAME-new is one that is being replaced, or was
//	                     made for a policy that is not in force for good yet
//	    gen-N/           a policy: program, maps, meta; adopted: interfaces that came after it; guard
//	                     and pending while a confirmation is pending
//	    new-N/, old-N/   one that is being built, or taken away
//
// # Where the truth is
//
// In the kernel. Slot 0 of `active` says which generation is in force; names of
// pins only find it. So a writer that is killed at any point leaves a state
// that the next one can read: whatever the slot does not lead to is either not
// in force yet or not any more. The function that tidies up after a killed
// writer (settle) is the same that ends every successful apply, and that undoes
// every failed one.
package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ABIVersion is the layout of the maps that outlive a policy.
const ABIVersion = uint32(abiEgateLimitEGATE_LIMIT_ABI_VERSION)

// The errors that callers may test for. The text around them says what to do.
var (
	ErrGateName    = errors.New("invalid gate name")
	ErrNoGate      = errors.New("no such gate")
	ErrBusy        = errors.New("busy")
	ErrABI         = errors.New("state of another egate version")
	ErrNoInterface = errors.New("no such interface")
	ErrInterface   = errors.New("interface cannot be guarded")
	ErrNoServer    = errors.New("no DNS server")
	ErrNetns       = errors.New("wrong network namespace")
	ErrPending     = errors.New("confirmation pending")
	ErrNotPending  = errors.New("no confirmation pending")
	ErrPermission  = errors.New("permission denied")
	ErrUnsupported = errors.New("not supported")
	ErrDamaged     = errors.New("pinned state is damaged")
)

// Source tells which text a policy was compiled from.
type Source struct {
	Path   string
	SHA256 [32]byte
}

// Hook is the way into the kernel's traffic control.
type Hook int

const (
	HookAuto   Hook = iota // TCX where the kernel has it (Linux 6.6), else clsact
	HookTCX                // TCX links
	HookClsact             // filters of a clsact qdisc
)

func (h Hook) String() string {
	switch h {
	case HookAuto:
		return "auto"
	case HookTCX:
		return "tcx"
	case HookClsact:
		return "clsact"
	}
	return fmt.Sprintf("hook(%d)", int(h))
}

// Place is where a dispatcher goes among other people's programs on a hook.
// What is attached already stays where it is.
type Place int

const (
	PlaceFirst Place = iota // a program behind it sees only what egate lets through
	PlaceLast               // a program before it can let packets pass that egate never sees
)

// ApplyOptions says how a policy is put in force.
type ApplyOptions struct {
	Gate         string
	Source       Source
	Confirm      time.Duration // > 0: the kernel returns to the policy before unless Confirm follows within this time
	ReplaceState bool          // give up counters and connections of another egate version
	Hook         Hook
	Place        Place
	Stage        func(name string) // if set, called with what is done from now on, such as "loading"
}

// Applied tells what Apply did.
type Applied struct {
	Gate       string
	Generation uint32
	Interfaces []string  // names, sorted by ifindex
	Hook       string    // "tcx" or "clsact"
	Deadline   time.Time // of the confirmation; zero without one
	Warnings   []string
	Servers    []netip.Addr // whose answers open names, sorted; nil where names are not in use
}

// CheckGateName tells whether a gate can have this name: 1 to 32 letters,
// digits, '-' and '_', not beginning with '-'. A dot is not allowed because
// bpffs allows none. The error wraps ErrGateName.
func CheckGateName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("check gate name: it is empty: %w", ErrGateName)
	case len(name) > 32:
		return fmt.Errorf("check gate name %q: it has %d characters, at most 32 are allowed: %w", name, len(name), ErrGateName)
	case name[0] == '-':
		return fmt.Errorf("check gate name %q: it begins with '-': %w", name, ErrGateName)
	case name == secretPin || name == qdiscsPin:
		return fmt.Errorf("check gate name %q: egate uses this name itself: %w", name, ErrGateName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return fmt.Errorf("check gate name %q: %q is not a letter, digit, '-' or '_': %w", name, r, ErrGateName)
		}
	}
	return nil
}

// requirePrivilege refuses early what the kernel would refuse half way.
func requirePrivilege() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	has := func(c uint) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	if has(unix.CAP_NET_ADMIN) && (has(unix.CAP_SYS_ADMIN) || has(unix.CAP_BPF) && has(unix.CAP_PERFMON)) {
		return nil
	}
	return fmt.Errorf("needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: %w", ErrPermission)
}

// explain marks errors of missing privilege, so that callers need not know
// which call of the kernel's said so.
func explain(err error) error {
	if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && !errors.Is(err, ErrPermission) {
		return &permissionError{err}
	}
	return err
}

// permissionError is an error of missing privilege, with what would help.
type permissionError struct{ cause error }

func (e *permissionError) Error() string {
	return e.cause.Error() + ": needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
}

func (e *permissionError) Unwrap() []error { return []error{e.cause, ErrPermission} }

// step is called before each step of a change with the step's name. Tests set
// it to make steps fail and to stop between them.
var step = func(name string) error { return nil }

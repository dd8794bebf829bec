// Package probe stands beside stage 4: it finds out what this kernel offers and
// what this process may do, and backs `egate doctor`. It tries the real thing
// (a tiny program, a map, a hook in a network namespace of its own that is gone
// at once) and changes nothing. What it may not try it calls unknown.
package probe

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// State is what is known of a feature.
type State string

const (
	OK      State = "ok"
	Missing State = "missing"
	Unknown State = "unknown" // it could not be tried; the detail says why
)

// Check is one thing that egate uses, and whether it is there.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Needed bool   `json:"needed"` // egate does not work without it
	Detail string `json:"detail,omitempty"`
	For    string `json:"for"`             // what egate uses it for
	Since  string `json:"since,omitempty"` // the first Linux that has it
	Do     string `json:"do,omitempty"`    // what helps where it is not ok
}

// Report is all that was found.
type Report struct {
	Kernel string   `json:"kernel"` // release and machine
	Checks []Check  `json:"checks"`
	Notes  []string `json:"notes"` // ways around the gate that a policy cannot close
}

// MissingNeeds tells whether something is missing that egate cannot do without.
func (r *Report) MissingNeeds() bool {
	for _, c := range r.Checks {
		if c.Needed && c.State == Missing {
			return true
		}
	}
	return false
}

// oldest is the first kernel line that tests run on.
const oldestMajor, oldestMinor = 6, 1

// Run tries everything. It takes a fraction of a second.
func Run() (*Report, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel version: %w", err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	r := &Report{
		Kernel: release + " " + unix.ByteSliceToString(uts.Machine[:]),
		Notes:  notes,
	}
	hooks := tryHooks()
	r.Checks = []Check{
		kernelCheck(release),
		capabilities("/proc/self/status"),
		fileCheck("/sys/kernel/btf/vmlinux"),
		feature(Check{
			Name: "traffic control programs", Needed: true, Since: "4.1",
			For: "judging packets",
			Do:  "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT",
		}, features.HaveProgramType(ebpf.SchedCLS)),
		feature(Check{
			Name: "ring buffer", Needed: true, Since: "5.8",
			For: "events", Do: "use a newer kernel",
		}, features.HaveMapType(ebpf.RingBuf)),
		feature(Check{
			Name: "LRU hash", Needed: true, Since: "4.10",
			For: "knowing replies, fragments and names", Do: "use a newer kernel",
		}, features.HaveMapType(ebpf.LRUHash)),
		feature(Check{
			Name: "bpf_loop", Needed: true, Since: "5.17",
			For: "reading headers of any length, DNS answers and requests", Do: "use a newer kernel",
		}, features.HaveProgramHelper(ebpf.SchedCLS, asm.FnLoop)),
		feature(Check{
			Name: "coarse clock", Needed: true, Since: "5.11",
			For: "the age of connections", Do: "use a newer kernel",
		}, features.HaveProgramHelper(ebpf.SchedCLS, asm.FnKtimeGetCoarseNs)),
		hooks.tcx, hooks.clsact, hooks.any,
		bpffs("/proc/self/mounts"),
		jit("/proc/sys/net/core/bpf_jit_enable"),
	}
	return r, nil
}

// notes are the known ways past traffic control.
var notes = []string{
	"Packets sent through AF_XDP or with PACKET_QDISC_BYPASS do not pass traffic control. Both need CAP_NET_RAW: take it from whoever is to be held back.",
	"What is inside an encrypted tunnel is not seen on the interface that carries it. Guard the tunnel's own interface too, or allow only the tunnels that you mean.",
	"Whoever has CAP_NET_ADMIN or CAP_BPF can detach any gate.",
}

// feature turns the outcome of a try into a check.
func feature(c Check, err error) Check {
	switch {
	case err == nil:
		c.State, c.Do = OK, ""
	case errors.Is(err, ebpf.ErrNotSupported):
		c.State = Missing
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		c.State, c.Detail, c.Do = Unknown, "not tried, for want of privilege", "run doctor as root"
	default:
		c.State, c.Detail = Unknown, oneLine(err)
	}
	return c
}

func oneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func kernelCheck(release string) Check {
	c := Check{
		Name: "kernel", Needed: true, State: OK, Detail: release,
		Since: fmt.Sprintf("%d.%d", oldestMajor, oldestMinor), For: "egate as a whole; its tests run on this and newer",
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		c.State, c.Do = Unknown, "look at the single features"
		return c
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		// Distributions backport; the features themselves decide.
		c.State, c.Needed = Missing, false
		c.Do = "it may work if all below is ok, but nobody tests that"
	}
	return c
}

func fileCheck(path string) Check {
	c := Check{
		Name: "kernel type information (BTF)", Needed: false, Since: "5.2", State: OK,
		For: "typed maps and readable errors",
	}
	if _, err := os.Stat(path); err != nil {
		c.State, c.Detail, c.Do = Missing, path+" is not there", "use a kernel with CONFIG_DEBUG_INFO_BTF"
	}
	return c
}

// jit tells whether programs are compiled. The setting shows only in the
// initial network namespace.
func jit(path string) Check {
	c := Check{Name: "BPF JIT", Since: "3.0", State: OK, For: "speed: without it a packet costs several times as much"}
	text, err := os.ReadFile(path)
	value := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		c.State, c.Detail, c.Do = Unknown, path+" cannot be read here", "look in the host's own network namespace"
	case value == "0":
		c.State, c.Detail, c.Do = Missing, "switched off", "sysctl -w net.core.bpf_jit_enable=1"
	}
	return c
}

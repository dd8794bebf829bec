package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"egate/internal/testutil"
)

// machine is a mount namespace and a process namespace of its own, whose
// process 1 sees no bpffs, as on a machine where nobody has mounted one.
type machine struct {
	t    *testing.T
	pid1 int
}

func newMachine(t *testing.T, outside *testutil.Netns) machine {
	t.Helper()
	p := outside.Start("unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private", "--mount-proc",
		"sh", "-c", "while umount /sys/fs/bpf 2>/dev/null; do :; done; echo ready; exec sleep 1000")
	p.WaitFor("ready")
	children, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/task/" + strconv.Itoa(p.Pid()) + "/children")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatalf("find process 1 of the machine: %v", err)
	}
	return machine{t, pid}
}

// mounts are the bpffs that process 1 sees where egate looks for one; those of
// tests that run at the same time are elsewhere.
func (m machine) mounts() []string {
	m.t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(m.pid1) + "/mountinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " /sys/fs/bpf ") && strings.Contains(line, " - bpf ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// kernelObjects are the ids of programs, maps and links.
type kernelObjects struct {
	programs map[ebpf.ProgramID]bool
	maps     map[ebpf.MapID]bool
	links    map[link.ID]bool
}

// pinned collects what is pinned on the machine, and the maps that pinned
// programs use.
func (m machine) pinned() kernelObjects {
	m.t.Helper()
	all := kernelObjects{map[ebpf.ProgramID]bool{}, map[ebpf.MapID]bool{}, map[link.ID]bool{}}
	root := filepath.Join("/proc", strconv.Itoa(m.pid1), "root/sys/fs/bpf/egate")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			defer p.Close()
			info, err := p.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			all.programs[id] = true
			ids, _ := info.MapIDs()
			for _, id := range ids {
				all.maps[id] = true
			}
			return nil
		}
		if p, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			defer p.Close()
			info, err := p.Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			all.maps[id] = true
			return nil
		}
		p, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer p.Close()
		info, err := p.Info()
		if err != nil {
			return err
		}
		all.links[info.ID] = true
		return nil
	})
	if err != nil {
		m.t.Fatalf("list pins: %v", err)
	}
	// Looking at a program array that nobody holds any more can keep it for ever:
	// the kernel drops the reference that emptying it takes only once.
	for id := range all.maps {
		p, err := ebpf.NewMapFromID(id)
		if err != nil {
			m.t.Fatalf("open map %d: %v", id, err)
		}
		if p.Type() == ebpf.ProgramArray {
			delete(all.maps, id)
		}
		p.Close()
	}
	return all
}

// left counts those that still exist.
func (k kernelObjects) left() (programs, maps, links int) {
	for id := range k.programs {
		if p, err := ebpf.NewProgramFromID(id); !errors.Is(err, os.ErrNotExist) {
			p.Close()
			programs++
		}
	}
	for id := range k.maps {
		if m, err := ebpf.NewMapFromID(id); !errors.Is(err, os.ErrNotExist) {
			m.Close()
			maps++
		}
	}
	for id := range k.links {
		if l, err := link.NewFromID(id); !errors.Is(err, os.ErrNotExist) {
			l.Close()
			links++
		}
	}
	return programs, maps, links
}

// TestNetnsExec: under `ip netns exec` the command has a /sys of its own that
// goes with it. The policy must stay, and off must find it again.
func TestNetnsExec(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	m := newMachine(t, p.server.Netns)
	policy := (&egate{t: t}).file(policyFor("veth0", egress("allow", `name: no-ping, action: reject, to: {icmp: [echo-request]}`)))
	run := func(args ...string) string {
		t.Helper()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		command := []string{"--target", strconv.Itoa(m.pid1), "--mount", "--pid", "--",
			"ip", "netns", "exec", p.client.Netns.Name, "env", envMain + "=" + mainEgate, self}
		return p.server.Netns.Exec("nsenter", append(command, args...)...)
	}
	// What the hook's own tools show of the interface.
	state := func() string {
		return p.client.Netns.Exec("tc", "qdisc", "show", "dev", "veth0") +
			p.client.Netns.Exec("tc", "filter", "show", "dev", "veth0", "egress") +
			p.client.Netns.Exec("tc", "filter", "show", "dev", "veth0", "ingress") +
			p.client.Netns.Exec("ip", "-d", "link", "show", "dev", "veth0")
	}
	before := state()
	if found := m.mounts(); len(found) != 0 {
		t.Fatalf("a bpffs is mounted: %q", found)
	}

	run("apply", policy)
	for _, to := range p.serverAddr() {
		ping(1).check(t, p.client.Netns, to, refused)
	}
	if out := run("status"); !strings.Contains(out, "no-ping") {
		t.Errorf("status does not show the policy:\n%s", out)
	}
	objects := m.pinned()
	if len(objects.programs) == 0 || len(objects.maps) == 0 {
		t.Fatalf("found %d pinned programs, %d maps", len(objects.programs), len(objects.maps))
	}

	run("off")
	for _, to := range p.serverAddr() {
		ping(1).check(t, p.client.Netns, to, passes)
	}
	if found := m.mounts(); len(found) != 0 {
		t.Errorf("off left a mount: %q", found)
	}
	if after := state(); after != before {
		t.Errorf("off left the interface as\n%s\nit was\n%s", after, before)
	}
	// The kernel frees what nothing holds after a grace period.
	eventually(t, 10*time.Second, "every program, map and link is gone", func() bool {
		programs, maps, links := objects.left()
		return programs+maps+links == 0
	})
}

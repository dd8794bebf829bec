package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// TestGuest holds the guest against what other tests build on. Outside of a
// guest it has nothing to test.
func TestGuest(t *testing.T) {
	kernel, ok := testutil.InVM()
	if !ok {
		t.Skip("runs only in a guest of tests/vm")
	}

	t.Run("kernel line is the one asked for", func(t *testing.T) {
		var uts unix.Utsname
		if err := unix.Uname(&uts); err != nil {
			t.Fatal(err)
		}
		release := unix.ByteSliceToString(uts.Release[:])
		t.Logf("%s %s", release, unix.ByteSliceToString(uts.Version[:]))
		if !strings.HasPrefix(release, kernel+".") {
			t.Errorf("kernel is %s, want %s", release, kernel)
		}
	})

	t.Run("file systems", func(t *testing.T) {
		mounts, err := os.ReadFile("/proc/mounts")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"cgroup2 /sys/fs/cgroup cgroup2 ", " /sys/kernel/debug debugfs ",
			" /sys/kernel/tracing tracefs ", " /run tmpfs ", " /dev devtmpfs ",
		} {
			if !strings.Contains(string(mounts), want) {
				t.Errorf("not mounted: %q in\n%s", want, mounts)
			}
		}
		if strings.Contains(string(mounts), " bpf ") {
			t.Error("a bpffs is mounted; egate's tests need a machine without")
		}
		if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
			t.Errorf("kernel types: %v", err)
		}
		// The working folder with the module's files around it.
		if _, err := os.Stat("../../go.mod"); err != nil {
			t.Errorf("module: %v", err)
		}
	})

	t.Run("interfaces and queueing disciplines load their modules", func(t *testing.T) {
		n := testutil.NewNetns(t)
		for _, kind := range []string{"veth", "dummy", "ifb", "bridge", "wireguard", "vxlan id 1 dstport 4789"} {
			n.Exec("sh", "-c", "ip link add test0 type "+kind+" && ip link del test0")
		}
		n.Exec("ip", "tuntap", "add", "tun0", "mode", "tun")
		n.Exec("ip", "link", "add", "dummy0", "type", "dummy")
		n.Exec("ip", "link", "add", "link", "dummy0", "dummy0.7", "type", "vlan", "id", "7")
		n.Exec("ip", "tunnel", "add", "ipip1", "mode", "ipip", "remote", "127.0.0.2", "local", "127.0.0.1")
		for _, qdisc := range []string{"fq", "fq_codel", "htb", "tbf rate 1mbit burst 10k latency 1s", "netem delay 1ms"} {
			n.Exec("sh", "-c", "tc qdisc add dev lo root "+qdisc+" && tc qdisc del dev lo root")
		}
		n.Exec("tc", "qdisc", "add", "dev", "lo", "clsact")
		n.Exec("tc", "filter", "add", "dev", "lo", "egress", "matchall", "action", "pass")
	})

	t.Run("packet filters of others", func(t *testing.T) {
		n := testutil.NewNetns(t)
		n.Exec("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }")
		if _, err := exec.LookPath("iptables"); err != nil {
			t.Skip("needs iptables on the host that runs the guest")
		}
		n.Exec("iptables", "-A", "OUTPUT", "-p", "tcp", "-m", "tcp", "--dport", "9", "-j", "REJECT")
		n.Exec("ip6tables", "-A", "OUTPUT", "-p", "tcp", "-m", "tcp", "--dport", "9", "-j", "REJECT")
	})

	t.Run("tools talk", func(t *testing.T) {
		n := testutil.NewNetns(t)
		n.Exec("ping", "-c1", "-W9", "127.0.0.1")
		n.Exec("ping", "-6", "-c1", "-W9", "::1")
		n.Exec("curl", "--version")
		n.Exec("dig", "-v")
		server := n.Start("nc", "-v", "-l", "-n", "127.0.0.1", "4000")
		server.WaitFor("istening")
		n.Exec("nc", "-z", "127.0.0.1", "4000")
	})

	t.Run("TCX from 6.6 on", func(t *testing.T) {
		err := attachTCX(t)
		if testutil.KernelAtLeast(t, 6, 6) {
			if err != nil {
				t.Errorf("attach: %v", err)
			}
		} else if !errors.Is(err, ebpf.ErrNotSupported) {
			t.Errorf("attach: error %v, want ErrNotSupported", err)
		}
	})
}

// attachTCX attaches a program that lets all pass to lo of a new namespace.
func attachTCX(t *testing.T) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	defer program.Close()
	testutil.NewNetns(t).Run(func() {
		var lo netlink.Link
		if lo, err = netlink.LinkByName("lo"); err != nil {
			t.Fatal(err)
		}
		var l link.Link
		l, err = link.AttachTCX(link.TCXOptions{
			Interface: lo.Attrs().Index, Program: program, Attach: ebpf.AttachTCXEgress,
		})
		if err == nil {
			err = l.Close()
		}
	})
	return err
}

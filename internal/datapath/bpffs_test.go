package datapath

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"egate/internal/testutil"
)

// envRole makes the test binary play a part: "init" is process 1 of a little
// world of its own, the others are commands in it.
const envRole = "EGATE_TEST_ROLE"

// TestBPFFSIsMountedWhereItLasts plays on a machine where no bpffs is
// mounted: `egate apply` mounts it, also from inside `ip netns exec`, which
// has a /sys of its own; and the last `egate off` unmounts it.
func TestBPFFSIsMountedWhereItLasts(t *testing.T) {
	testutil.RequireRoot(t)
	out, err := runRole("init", syscall.CLONE_NEWPID|syscall.CLONE_NEWNS|syscall.CLONE_NEWNET)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runRole runs the test binary in a part, in new namespaces.
func runRole(role string, namespaces uintptr) (string, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"="+role, EnvBPFFS+"=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// playRole is what the parts do.
func playRole(role string) error {
	set := testSet(&childT{}, "interfaces: [lo]\negress: {default: allow}\n")
	switch role {
	case "init":
		return playInit()
	case "apply", "netns-apply":
		if role == "netns-apply" {
			if err := hideSys(); err != nil {
				return err
			}
		}
		_, err := Apply(set, ApplyOptions{Gate: "role"})
		return err
	case "netns-status":
		if err := hideSys(); err != nil {
			return err
		}
		_, err := ReadStatus("role")
		return err
	case "netns-off":
		if err := hideSys(); err != nil {
			return err
		}
		return Off("role")
	case "off":
		return Off("role")
	case "none":
		gates, err := Gates()
		if err == nil && len(gates) > 0 {
			err = fmt.Errorf("there are gates: %q", gates)
		}
		return err
	}
	return fmt.Errorf("no part %q", role)
}

// hideSys does what `ip netns exec` does.
func hideSys() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := unix.Mount("role", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if ok, err := isBPFFS(bpffsPath); ok || err != nil {
		return fmt.Errorf("a bpffs is still seen: %v, %w", ok, err)
	}
	return nil
}

func playInit() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for {
		ok, err := isBPFFS(bpffsPath)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := unix.Unmount(bpffsPath, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the machine's own bpffs: %w", err)
		}
	}
	for _, story := range []struct {
		role    string
		mounts  uintptr // namespaces of the command
		mounted bool    // afterwards
	}{
		{"none", 0, false}, // reading never mounts
		{"apply", 0, true},
		{"netns-status", syscall.CLONE_NEWNS, true},
		{"netns-off", syscall.CLONE_NEWNS, false},
		{"netns-apply", syscall.CLONE_NEWNS, true},
		{"apply", 0, true},
		{"off", 0, false},
		{"none", 0, false},
	} {
		out, err := runRole(story.role, story.mounts)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", story.role, err, out)
		}
		ok, err := isBPFFS(bpffsPath)
		if err != nil || ok != story.mounted {
			return fmt.Errorf("after %s a bpffs is mounted: %v, %v; want %v", story.role, ok, err, story.mounted)
		}
		if ok {
			info, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || !strings.Contains(string(info), " - bpf "+mountSource+" ") {
				return fmt.Errorf("after %s the mount is not egate's:\n%s %v", story.role, info, err)
			}
		}
	}
	return nil
}

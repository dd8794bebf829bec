package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// EnvBPFFS names a mounted bpffs to use instead of the host's.
const EnvBPFFS = "EGATE_BPFFS"

const (
	bpffsPath   = "/sys/fs/bpf"
	bpffsOfInit = "/proc/1/root/sys/fs/bpf"
	mountSource = "egate" // marks the bpffs that egate mounted and may unmount
)

// errNoBPFFS says that no bpffs is mounted, so nothing can be pinned.
var errNoBPFFS = errors.New("no bpffs is mounted")

// findBPFFS gives the path of the bpffs to use. `ip netns exec` hides the
// host's behind a /sys of its own, so that of process 1 is looked at too.
// Returns errNoBPFFS if there is none.
func findBPFFS() (string, error) {
	if path := os.Getenv(EnvBPFFS); path != "" {
		ok, err := isBPFFS(path)
		if err != nil {
			return "", fmt.Errorf("look at %s=%s: %w", EnvBPFFS, path, err)
		}
		if !ok {
			return "", fmt.Errorf("look at %s=%s: no bpffs is mounted there", EnvBPFFS, path)
		}
		return path, nil
	}
	for _, path := range []string{bpffsPath, bpffsOfInit} {
		ok, err := isBPFFS(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("look at %s: %w", path, err)
		}
		if ok {
			return path, nil
		}
	}
	return "", errNoBPFFS
}

// isBPFFS tells whether a bpffs is mounted at path.
func isBPFFS(path string) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, err
	}
	return uint32(s.Type) == unix.BPF_FS_MAGIC, nil
}

// mountBPFFS mounts a bpffs where it lasts: in the mount namespace of process
// 1, since that of an `ip netns exec` goes with its command, and every pin in
// it. Errors wrap ErrPermission where that namespace cannot be entered.
func mountBPFFS() error {
	mount := func() error {
		err := unix.Mount(mountSource, bpffsPath, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700")
		if err != nil {
			return explain(fmt.Errorf("mount bpffs at %s: %w", bpffsPath, err))
		}
		return nil
	}
	return inMountNamespaceOfInit(mount)
}

// unmountBPFFS takes the mount away again. Whoever holds its root open and
// waits for the lock finds afterwards that the path leads elsewhere.
func unmountBPFFS() error {
	return inMountNamespaceOfInit(func() error {
		if err := unix.Unmount(bpffsPath, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount bpffs at %s: %w", bpffsPath, err)
		}
		return nil
	})
}

// inMountNamespaceOfInit runs f where process 1 sees the file system.
func inMountNamespaceOfInit(f func() error) error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("find own mount namespace: %w", err)
	}
	of1, err := os.Readlink("/proc/1/ns/mnt")
	if err == nil && own == of1 {
		return f()
	}
	if err != nil {
		return fmt.Errorf("find the mount namespace of process 1, for pins in a bpffs of this one would vanish with it; mount one yourself (mount -t bpf bpf /sys/fs/bpf): %w: %w", err, ErrPermission)
	}
	// setns refuses a thread that shares its root with others, and a thread that
	// has moved must not run anything else: it is never unlocked, so it dies
	// with the goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open("/proc/1/ns/mnt")
			if err != nil {
				return fmt.Errorf("open the mount namespace of process 1: %w: %w", err, ErrPermission)
			}
			defer ns.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare file system attributes: %w", err)
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter the mount namespace of process 1, for pins in a bpffs of this one would vanish with it: %w: %w", err, ErrPermission)
			}
			return f()
		}()
	}()
	return <-done
}

// isOwnMount tells whether the file system at path is the one mountBPFFS
// made: its source is in mountinfo.
func isOwnMount(path string) (bool, error) {
	info := "/proc/self/mountinfo"
	if path == bpffsOfInit {
		info = "/proc/1/mountinfo"
	} else if path != bpffsPath {
		return false, nil
	}
	text, err := os.ReadFile(info)
	if err != nil {
		return false, fmt.Errorf("find who mounted %s: %w", path, err)
	}
	own := false
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 2 || fields[4] != bpffsPath {
			continue
		}
		own = tail[0] == "bpf" && tail[1] == mountSource // the last one is on top
	}
	return own, nil
}

// removePins removes a folder of pins that has no folders in it. What is gone
// already is no error.
func removePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, e := range entries {
		if err := removePin(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return removePin(dir)
}

// removePin removes one pin or empty folder, which may be gone already.
func removePin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

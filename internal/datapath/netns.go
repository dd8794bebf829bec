package datapath

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// netnsID tells network namespaces apart. The inode number is what people
// see; it is used again when a namespace is gone, the cookie never is.
type netnsID struct {
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie"`
}

// currentNetns is the namespace of the calling thread.
func currentNetns() (netnsID, error) {
	var s unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
		return netnsID{}, fmt.Errorf("find own network namespace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netnsID{}, fmt.Errorf("find own network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return netnsID{}, fmt.Errorf("read cookie of own network namespace: %w", err)
	}
	return netnsID{Inode: s.Ino, Cookie: cookie}, nil
}

// netnsCookie is the cookie alone.
func netnsCookie() (uint64, error) {
	id, err := currentNetns()
	return id.Cookie, err
}

// inNetns runs f in a network namespace if it can be found: the current one,
// one with a name, or that of a process. It tells whether f ran.
func inNetns(id netnsID, f func() error) (bool, error) {
	now, err := currentNetns()
	if err != nil {
		return false, err
	}
	if now == id {
		return true, f()
	}
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return false, fmt.Errorf("find network namespace: %w", err)
		}
		for _, path := range paths {
			var s unix.Stat_t
			if err := unix.Stat(path, &s); err != nil || s.Ino != id.Inode {
				continue // gone meanwhile, or another one
			}
			if ran, err := atNetns(path, id, f); ran {
				return true, err
			}
		}
	}
	return false, nil
}

// atNetns runs f in the namespace that path stands for, on a thread that dies
// afterwards. It tells whether f ran; it does not where path leads elsewhere.
func atNetns(path string, id netnsID, f func() error) (bool, error) {
	type result struct {
		ran bool
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() result {
			ns, err := os.Open(path)
			if err != nil {
				return result{false, nil}
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return result{false, nil}
			}
			if now, err := currentNetns(); err != nil || now != id {
				return result{false, nil}
			}
			return result{true, f()}
		}()
	}()
	r := <-done
	return r.ran, r.err
}

package datapath

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	rootPin   = "egate"
	secretPin = "secret"
	qdiscsPin = "qdiscs"

	lockPatience = 5 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// host is the place of all gates: the folder egate of a bpffs.
type host struct {
	mount string   // root of the bpffs
	root  string   // mount/egate
	lock  *os.File // the mount's root, locked; nil for readers
}

// openHost finds the bpffs for reading. It changes nothing and takes no lock.
// Returns errNoBPFFS.
func openHost() (*host, error) {
	mount, err := findBPFFS()
	if err != nil {
		return nil, err
	}
	return &host{mount: mount, root: filepath.Join(mount, rootPin)}, nil
}

// lockHost finds or mounts the bpffs and becomes the one writer. The caller
// closes. Errors wrap ErrBusy or ErrPermission.
func lockHost() (*host, error) {
	if err := requirePrivilege(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockPatience)
	for {
		h, err := openHost()
		if errors.Is(err, errNoBPFFS) {
			if err := mountBPFFS(); err != nil {
				return nil, err
			}
			h, err = openHost()
		}
		if err != nil {
			return nil, explain(err)
		}
		// The lock is on the root folder of the mount, so it needs no file that
		// would stay behind, and it is gone with its holder.
		h.lock, err = os.Open(h.mount)
		if err != nil {
			return nil, explain(fmt.Errorf("open bpffs: %w", err))
		}
		if err := lockFile(h.lock, deadline); err != nil {
			h.lock.Close()
			return nil, err
		}
		// While this one waited, the last gate may have gone and the mount with it.
		same, err := isSameFile(h.lock, h.mount)
		if err != nil {
			h.lock.Close()
			return nil, err
		}
		if same {
			return h, nil
		}
		h.lock.Close()
	}
}

func isSameFile(f *os.File, path string) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at bpffs: %w", err)
	}
	now, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("look at bpffs: %w", err)
	}
	return os.SameFile(open, now), nil
}

// lockFile waits for the lock until the deadline.
func lockFile(f *os.File, deadline time.Time) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock bpffs: %w", err)
		case time.Now().After(deadline):
			if pid := lockHolder(f); pid != 0 {
				return fmt.Errorf("another egate is writing (pid %d): %w", pid, ErrBusy)
			}
			return fmt.Errorf("another egate is writing: %w", ErrBusy)
		}
		time.Sleep(lockPoll)
	}
}

// lockHolder looks the lock's holder up in /proc/locks; 0 where it does not say.
func lockHolder(f *os.File) int {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return 0
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(s.Dev)), unix.Minor(uint64(s.Dev)), s.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 00:1f:1 0 EOF
		if w := strings.Fields(lines.Text()); len(w) >= 6 && w[1] == "FLOCK" && w[5] == want {
			if pid, err := strconv.Atoi(w[4]); err == nil && pid > 0 {
				return pid
			}
		}
	}
	return 0
}

// close ends the writing. If no gate is left it removes what gates share and a
// mount of egate's own.
func (h *host) close() error {
	defer h.lock.Close()
	gates, err := h.gates()
	if err != nil || len(gates) > 0 {
		return err
	}
	if err := removePins(h.root); err != nil {
		return err
	}
	own, err := isOwnMount(h.mount)
	if err != nil || !own {
		return err
	}
	left, err := os.ReadDir(h.mount)
	if err != nil {
		return fmt.Errorf("list bpffs: %w", err)
	}
	for _, e := range left {
		// A new bpffs has maps.debug and progs.debug; pins can have no dot.
		if !strings.Contains(e.Name(), ".") {
			return nil
		}
	}
	return unmountBPFFS()
}

// gates lists the gates by name.
func (h *host) gates() ([]string, error) {
	entries, err := os.ReadDir(h.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(fmt.Errorf("list gates: %w", err))
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Gates lists the gates of this host, sorted. Where nothing is pinned there
// are none, and no error. Errors wrap ErrPermission.
func Gates() ([]string, error) {
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	return h.gates()
}

// secret gives the number that marks answers to rejected packets, and makes it
// with the first gate.
func (h *host) secret() (uint64, error) {
	m, err := h.sharedMap(secretPin, &ebpf.MapSpec{Name: "egate_secret", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	var secret uint64
	if err := m.Lookup(uint32(0), &secret); err != nil {
		return 0, fmt.Errorf("read secret: %w", err)
	}
	for secret == 0 { // new, or its maker was killed
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("make secret: %w", err)
		}
		secret = binary.NativeEndian.Uint64(b[:])
		if err := m.Put(uint32(0), secret); err != nil {
			return 0, fmt.Errorf("write secret: %w", err)
		}
	}
	return secret, nil
}

// sharedMap opens a map that all gates share, or makes it.
func (h *host) sharedMap(name string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	path := filepath.Join(h.root, name)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		return m, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin %s: %w", name, err)
	}
	return m, nil
}

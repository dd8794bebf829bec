package demo

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"egate/internal/datapath"
)

// privateBPFFS makes a bpffs that no mount table lists: it hangs on a file
// descriptor and is gone with this process, however that ends. It becomes the
// one that package datapath pins in; close takes that back.
func privateBPFFS() (path string, close func() error, err error) {
	context, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", nil, fmt.Errorf("make bpffs: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return "", nil, fmt.Errorf("make bpffs: %w", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("make bpffs: %w", err)
	}
	path = fmt.Sprintf("/proc/self/fd/%d", mount)
	before, was := os.LookupEnv(datapath.EnvBPFFS)
	restore := func() error {
		if was {
			return os.Setenv(datapath.EnvBPFFS, before)
		}
		return os.Unsetenv(datapath.EnvBPFFS)
	}
	if err := os.Setenv(datapath.EnvBPFFS, path); err != nil {
		unix.Close(mount)
		return "", nil, fmt.Errorf("make bpffs: %w", err)
	}
	return path, func() error {
		err := restore()
		if closing := unix.Close(mount); err == nil {
			err = closing
		}
		return err
	}, nil
}

// leftovers lists what is in a bpffs beside the files that the kernel puts
// into every one.
func leftovers(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("list bpffs: %w", err)
	}
	var left []string
	for _, e := range entries {
		if e.Name() != "maps.debug" && e.Name() != "progs.debug" {
			left = append(left, e.Name())
		}
	}
	return left, nil
}

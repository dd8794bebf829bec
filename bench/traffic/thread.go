package traffic

import (
	"fmt"

	"golang.org/x/sys/unix"

	"egate/bench/world"
)

// processors are those that this process may use, read before any of its
// threads is pinned.
var processors, errProcessors = readProcessors()

func readProcessors() (set unix.CPUSet, err error) {
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return set, fmt.Errorf("read affinity: %w", err)
	}
	return set, nil
}

// lastProcessor is where all that is measured runs.
func lastProcessor() int {
	last := 0
	for cpu := range len(processors) * 64 {
		if processors.IsSet(cpu) {
			last = cpu
		}
	}
	return last
}

// pinned calls f on a thread of its own that stays on one processor, the last
// that this process may use.
func pinned(f func() error) error {
	return world.OnOwnThread(func() error {
		if err := pin(); err != nil {
			return err
		}
		return f()
	})
}

// pin has the calling thread stay where pinned threads are.
func pin() error { return pinProcess(0) }

// pinProcess has the first thread of a process stay there; 0 is the calling
// thread.
func pinProcess(pid int) error {
	if errProcessors != nil {
		return errProcessors
	}
	var only unix.CPUSet
	only.Set(lastProcessor())
	if err := unix.SchedSetaffinity(pid, &only); err != nil {
		return fmt.Errorf("pin thread: %w", err)
	}
	return nil
}

// keepApart makes the calling thread, and the processes that it starts, leave
// the processor of pinned threads alone; with one processor only it does
// nothing.
func keepApart() error {
	if errProcessors != nil {
		return errProcessors
	}
	others := processors
	others.Clear(lastProcessor())
	if others.Count() == 0 {
		return nil
	}
	if err := unix.SchedSetaffinity(0, &others); err != nil {
		return fmt.Errorf("move thread: %w", err)
	}
	return nil
}

package traffic

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// After each burst of packets the sender pauses, and the pause is no gap: it
// leaves the kernel's own threads on its processor the time that they need.
// Without it the scheduler would take that time, 50 ms at once.
const (
	burstTime = 2 * time.Millisecond
	pauseTime = 200 * time.Microsecond
)

// LongestGap sends one small packet after the other on one processor while f
// runs on others, and returns the longest time between two packets that got
// sent, in milliseconds.
//
// Where f has other processors, the sending thread goes before all that is not
// of the kernel or of a real-time class: what it waits for is the kernel, not
// its turn.
func (s *Sender) LongestGap(ctx context.Context, f func() error) (ms float64, err error) {
	var stop atomic.Bool
	ended := make(chan error)
	ready := make(chan struct{})
	go func() {
		var longest time.Duration
		err := pinned(func() error {
			if processors.Count() > 1 {
				first := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
				if err := unix.SchedSetAttr(0, first, 0); err != nil {
					return fmt.Errorf("go before other threads: %w", err)
				}
			}
			if err := s.Send(chunk); err != nil {
				return err
			}
			close(ready)
			for !stop.Load() && ctx.Err() == nil {
				gap, err := s.burst()
				if err != nil {
					return err
				}
				longest = max(longest, gap)
				pause := unix.NsecToTimespec(pauseTime.Nanoseconds())
				// Cut short by a signal it is a shorter pause.
				_ = unix.Nanosleep(&pause, nil)
			}
			return nil
		})
		ms = float64(longest) / float64(time.Millisecond)
		ended <- err
	}()
	select {
	case <-ready:
	case err := <-ended:
		return 0, fmt.Errorf("send: %w", err)
	}
	err = f()
	stop.Store(true)
	if sending := <-ended; sending != nil {
		return 0, fmt.Errorf("send: %w", sending)
	}
	return ms, err
}

// burst sends for a moment and returns the longest time between two packets.
func (s *Sender) burst() (longest time.Duration, err error) {
	begin := time.Now()
	for last := begin; last.Sub(begin) < burstTime; {
		if err := s.Send(1); err != nil {
			return 0, err
		}
		now := time.Now()
		longest = max(longest, now.Sub(last))
		last = now
	}
	return longest, nil
}

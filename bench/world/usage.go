package world

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process that has ended took.
type Usage struct {
	Elapsed time.Duration // from its start to its end
	PeakMB  float64       // largest resident set, as seen until a millisecond before the end
}

// Measure runs a command like Command does and says what it took. What prepare
// changes of the thread that starts the command, the command inherits.
func (n *Namespace) Measure(cmd *exec.Cmd, prepare ...func() error) (Usage, error) {
	var stderr Tail
	cmd.Stderr = &stderr
	var begin time.Time
	err := n.Run(func() error {
		for _, f := range prepare {
			if err := f(); err != nil {
				return err
			}
		}
		begin = time.Now()
		return cmd.Start()
	})
	if err != nil {
		return Usage{}, fmt.Errorf("start %s: %w", cmd, err)
	}
	// wait4 would give the larger one of the command's resident set and of
	// this process's at the moment of the fork.
	stop, peak := make(chan struct{}), make(chan float64)
	go func() { peak <- watchPeak(cmd.Process.Pid, stop) }()
	err = cmd.Wait()
	u := Usage{Elapsed: time.Since(begin)}
	close(stop)
	u.PeakMB = <-peak
	if err != nil {
		return u, fmt.Errorf("run %s: %w: %s", cmd, err, stderr.String())
	}
	return u, nil
}

// watchPeak reads the high-water mark of a process's resident set until it is
// told to stop or the process has none any more.
func watchPeak(pid int, stop <-chan struct{}) (mb float64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil {
			mb = max(mb, highWaterMB(string(text)))
		}
		select {
		case <-stop:
			return mb
		case <-tick.C:
		}
	}
}

// highWaterMB reads VmHWM out of /proc/PID/status, 0 if it is not there.
func highWaterMB(status string) float64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if fields := strings.Fields(value); len(fields) == 2 {
				kb, _ := strconv.ParseFloat(fields[0], 64) // 0 for what is no number
				return kb * 1024 / 1e6
			}
		}
	}
	return 0
}

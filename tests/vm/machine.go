package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bootLimit is the time from qemu's start to the guest's first process; 3 s
// are usual, a busy host takes longer.
const bootLimit = 90 * time.Second

// machineTools are what running needs, with the packages that have them.
var machineTools = map[string]string{
	"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "ldd": "libc-bin",
}

// machine is how to boot.
type machine struct {
	image     image
	memoryMiB int
	console   string        // file that gets the guest's console, "" for none
	limit     time.Duration // of the binary, without the boot
	stdout    io.Writer     // gets standard output and error of the binary
	stderr    io.Writer     // gets the runner's own messages
}

// errNotReady: the guest never reached its first process.
var errNotReady = fmt.Errorf("%w before it ran the test", errVM)

// runJob boots, runs the job and returns its exit code. A boot that does not
// come to the guest's first process is tried once more: emulators have races
// there, and the test has not begun.
func (m machine) runJob(ctx context.Context, j job) (int, error) {
	if err := requireTools(machineTools); err != nil {
		return 0, err
	}
	work, err := os.MkdirTemp("", "egate-vm-")
	if err != nil {
		return 0, fmt.Errorf("make work folder: %w", err)
	}
	defer os.RemoveAll(work)
	// The kernel takes several archives in a row as one. The job is the last,
	// because its end marks that all has been unpacked.
	root := filepath.Join(work, "root.cpio")
	if err := copyFile(root, m.image.modules()); err != nil {
		return 0, err
	}
	if err := j.write(root); err != nil {
		return 0, err
	}
	code, err := m.boot(ctx, work, root)
	if errors.Is(err, errNotReady) && ctx.Err() == nil {
		fmt.Fprintf(m.stderr, "vm: %v\nvm: trying once more\n", err)
		code, err = m.boot(ctx, work, root)
	}
	return code, err
}

// boot runs the machine once.
func (m machine) boot(ctx context.Context, work, root string) (int, error) {
	console := m.console
	if console == "" {
		console = filepath.Join(work, "console")
	}
	status := filepath.Join(work, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return 0, fmt.Errorf("start machine: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// A killed runner must not leave a machine behind. The signal comes when
	// the thread that started it ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", m.qemuArgs(root, console, status)...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var messages strings.Builder
	qemu.Stdout, qemu.Stderr = m.stdout, &messages
	// qemu closes the output's port when its standard input ends; then the
	// guest's writes would block for ever. So this end stays open.
	if _, err := qemu.StdinPipe(); err != nil {
		return 0, fmt.Errorf("start machine: %w", err)
	}
	if err := qemu.Start(); err != nil {
		return 0, fmt.Errorf("%w: start qemu: %v", errUnavailable, err)
	}
	go m.watch(ctx, cancel, status)
	ended := qemu.Wait()

	ready, code, exited := readStatus(status)
	if exited {
		return code, nil
	}
	why := "the machine ended by itself"
	if cause := context.Cause(ctx); cause != nil {
		why = cause.Error()
	} else if ended != nil {
		why = fmt.Sprintf("qemu: %v", ended)
	}
	text, err := os.ReadFile(console)
	if err != nil {
		text = []byte(err.Error())
	}
	detail := fmt.Sprintf("%s\n%send of its console:\n%s", why, messages.String(), lastLines(string(text), 40))
	if !ready {
		return 0, fmt.Errorf("%w: %s", errNotReady, detail)
	}
	return 0, fmt.Errorf("%w while it ran the test: %s", errVM, detail)
}

// watch ends the machine when it does not boot in time, or runs too long.
func (m machine) watch(ctx context.Context, cancel context.CancelCauseFunc, status string) {
	begin := time.Now()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		ready, _, _ := readStatus(status)
		switch passed := time.Since(begin); {
		case !ready && passed > bootLimit:
			cancel(fmt.Errorf("no first process after %v", bootLimit))
		case passed > m.limit+bootLimit:
			cancel(fmt.Errorf("still running after %v", passed.Round(time.Second)))
		}
	}
}

// qemuArgs is the machine: two virtual processors in one emulator thread
// (several have a race in qemu 7.2 that kills a boot in 300), no devices but
// two serial ports (console, status) and a virtio port (output).
func (m machine) qemuArgs(root, console, status string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(m.memoryMiB),
		"-kernel", m.image.vmlinux(), "-initrd", root,
		"-append", "console=ttyS0 panic=-1 rdinit=/init cryptomgr.notests tsc=reliable no_timer_check",
		"-chardev", "file,id=console,path=" + escapeComma(console), "-serial", "chardev:console",
		"-chardev", "file,id=status,path=" + escapeComma(status), "-serial", "chardev:status",
		"-device", "virtio-serial-pci",
		"-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name=output",
	}
}

// escapeComma writes a file's name as a value of a qemu option.
func escapeComma(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// readStatus reads what the guest's first process reports on its status port:
// whether it runs, and the exit code once there is one.
func readStatus(path string) (ready bool, code int, exited bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, 0, false
	}
	return parseStatus(string(text))
}

func parseStatus(text string) (ready bool, code int, exited bool) {
	for line := range strings.Lines(text) {
		// A line without its end may have digits missing.
		line, whole := strings.CutSuffix(line, "\n")
		line = strings.TrimSuffix(line, "\r")
		if !whole {
			continue
		}
		if line == "ready" {
			ready = true
		}
		if number, ok := strings.CutPrefix(line, "exit "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				code, exited = n, true
			}
		}
	}
	return ready, code, exited
}

// copyFile copies the file from to the file to.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy archive: %w", err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("copy archive: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy archive: %w", err)
	}
	return nil
}

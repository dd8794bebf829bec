package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/tables"
)

// terminal is a pseudo terminal, and all that was written to it.
type terminal struct {
	t      *testing.T
	slave  *os.File
	master *os.File
	ended  chan struct{}

	mu      sync.Mutex
	written []byte
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this host gives out no pseudo terminals: %v", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock the terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("ask for the terminal's number: %v", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatalf("set the terminal's size: %v", err)
	}
	v := &terminal{t: t, slave: slave, master: master, ended: make(chan struct{})}
	go v.collect()
	t.Cleanup(func() { master.Close() })
	return v
}

// collect reads until the other side is closed, which is EIO here.
func (v *terminal) collect() {
	defer close(v.ended)
	buffer := make([]byte, 4096)
	for {
		n, err := v.master.Read(buffer)
		v.mu.Lock()
		v.written = append(v.written, buffer[:n]...)
		v.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (v *terminal) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return string(v.written)
}

// await waits until a text was written.
func (v *terminal) await(text string) {
	v.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(v.text(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			written := v.text()
			v.t.Fatalf("no %q on the terminal, only %d bytes that end with %q", text, len(written), written[max(0, len(written)-200):])
		}
	}
}

// end closes the terminal and gives all that was written to it.
func (v *terminal) end() string {
	v.t.Helper()
	if err := v.slave.Close(); err != nil {
		v.t.Fatal(err)
	}
	<-v.ended
	return v.text()
}

// screen is what a person sees in the end, as far as egate's own sequences go.
func screen(t *testing.T, written string) string {
	t.Helper()
	var lines []string
	line, column := []rune{}, 0
	for rest := written; rest != ""; {
		if after, ok := strings.CutPrefix(rest, "\x1b[K"); ok {
			line, rest = line[:column], after
			continue
		}
		c := []rune(rest)[0]
		rest = rest[len(string(c)):]
		switch c {
		case '\x1b':
			t.Fatalf("unknown sequence in %q", written)
		case '\r':
			column = 0
		case '\n':
			lines, line, column = append(lines, string(line)), line[:0], 0
		default:
			line = append(line[:column], append([]rune{c}, line[min(column+1, len(line)):]...)...)
			column++
		}
	}
	return strings.Join(append(lines, string(line)), "\n")
}

func TestProgressOfASlowApply(t *testing.T) {
	v := newTerminal(t, 80)
	file := policyFile(t, warnedPolicy)
	var stdout bytes.Buffer
	a := fakeApp("", &stdout, &bytes.Buffer{})
	a.stderr, a.patience = v.slave, time.Nanosecond
	a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
		for _, name := range []string{"loading", "switching"} {
			o.Stage(name)
			v.await("\regate: " + name + "\x1b[K")
		}
		return &datapath.Applied{Gate: o.Gate, Warnings: []string{"no interface matches"}}, nil
	}
	if code := a.run(context.Background(), []string{"apply", file}); code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	written := v.end()
	lines := strings.Split(screen(t, written), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], file+":8:7: warning: ") ||
		lines[1] != "egate: warning: no interface matches" || lines[2] != "" {
		t.Errorf("the screen shows %q in the end, after %q", lines, written)
	}
}

func TestProgressOfARefusedApply(t *testing.T) {
	v := newTerminal(t, 80)
	a := fakeApp("", &bytes.Buffer{}, &bytes.Buffer{})
	a.stderr, a.patience = v.slave, time.Nanosecond
	a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
		o.Stage("loading")
		v.await("egate: loading")
		return nil, fmt.Errorf("the kernel says no")
	}
	a.run(context.Background(), []string{"apply", policyFile(t, goodPolicy)})
	if got, want := screen(t, v.end()), "egate: the kernel says no\n"; got != want {
		t.Errorf("the screen shows %q in the end, want %q", got, want)
	}
}

// TestNoProgress: nothing is written where nobody waits, or nobody looks.
func TestNoProgress(t *testing.T) {
	file := policyFile(t, goodPolicy)
	for _, c := range []struct {
		name     string
		terminal bool
		term     string
		patience time.Duration
		slow     time.Duration
	}{
		{name: "a fast command", terminal: true, patience: progressPatience},
		{name: "a dumb terminal", terminal: true, term: "dumb", patience: time.Nanosecond, slow: 300 * time.Millisecond},
		{name: "no terminal", patience: time.Nanosecond, slow: 300 * time.Millisecond},
	} {
		for _, command := range [][]string{{"apply", file}, {"check", file}, {"check", "-o", "json", file}} {
			if command[0] == "check" && c.slow > 0 && c.terminal {
				continue // may show one where it is slow
			}
			t.Run(c.name+", "+strings.Join(command[:len(command)-1], " "), func(t *testing.T) {
				var stderr bytes.Buffer
				a := fakeApp("", &bytes.Buffer{}, &stderr)
				a.patience = c.patience
				a.env = func(key string) string { return map[string]string{"TERM": c.term}[key] }
				a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
					o.Stage("loading")
					time.Sleep(c.slow)
					return &datapath.Applied{Gate: o.Gate}, nil
				}
				written := func() string { return stderr.String() }
				if c.terminal {
					v := newTerminal(t, 80)
					a.stderr, written = v.slave, v.end
				}
				if code := a.run(context.Background(), command); code != ExitOK {
					t.Errorf("exit code %d", code)
				}
				if got := written(); got != "" {
					t.Errorf("standard error got %q", got)
				}
			})
		}
	}
}

func TestProgressTellsHowMuchIsRead(t *testing.T) {
	v := newTerminal(t, 80)
	path := filepath.Join(t.TempDir(), "threats.txt")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	a := fakeApp("", &bytes.Buffer{}, &bytes.Buffer{})
	a.stderr, a.patience = v.slave, time.Nanosecond
	p := a.startProgress()
	f, err := p.open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0 %", "62 %", "100 %"} {
		v.await("\regate: reading threats.txt, " + want + "\x1b[K")
		if _, err := io.ReadFull(f, make([]byte, map[string]int{"0 %": 620, "62 %": 380}[want])); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	v.await("\regate: checking the policy\x1b[K")
	p.stop()
	if got := screen(t, v.end()); got != "" {
		t.Errorf("the screen shows %q in the end", got)
	}
}

func TestProgressFitsTheTerminal(t *testing.T) {
	v := newTerminal(t, 20)
	a := fakeApp("", &bytes.Buffer{}, &bytes.Buffer{})
	a.stderr, a.patience = v.slave, time.Nanosecond
	p := a.startProgress()
	p.stage("reading a\x1b[2Jfile of a long name")
	v.await("\regate: reading a·[2\x1b[K") // 19 characters
	p.stop()
	if got := screen(t, v.end()); got != "" {
		t.Errorf("the screen shows %q in the end", got)
	}
}

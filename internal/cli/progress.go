package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"egate/internal/cli/table"
	"egate/internal/policy"
)

// progressPatience is how long a command may take before it says what it is
// at, and progressInterval how often it says so then.
const (
	progressPatience = time.Second
	progressInterval = 100 * time.Millisecond
)

// progress is one line on a terminal that tells the stage a long command is
// at. A command that is done in time never shows it. The line must be hidden
// before anything else is printed. A nil progress does nothing.
type progress struct {
	w     io.Writer
	width func() int // 0 for no limit

	mu    sync.Mutex
	text  string        // of the stage, "" while hidden
	read  *atomic.Int64 // of size bytes; nil for a stage that can't be measured
	size  int64
	shown bool

	end  chan struct{} // closed by stop
	done chan struct{} // closed when nothing more is drawn
}

// startProgress gives a progress on standard error, nil where that is no
// terminal on which a line can be rewritten. The caller stops it.
func (a *app) startProgress() *progress {
	file, ok := a.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || a.env("TERM") == "dumb" {
		return nil
	}
	p := &progress{w: file, width: func() int { return terminalWidth(file, a.env) }, end: make(chan struct{}), done: make(chan struct{})}
	go p.run(a.patience)
	return p
}

// run draws the line until stop.
func (p *progress) run(patience time.Duration) {
	defer close(p.done)
	wait := time.NewTimer(patience)
	defer wait.Stop()
	for {
		select {
		case <-p.end:
			return
		case <-wait.C:
		}
		p.draw()
		wait.Reset(progressInterval)
	}
}

// stage names what is done from now on, such as "compiling".
func (p *progress) stage(text string) {
	if p != nil {
		p.begin(text, nil, 0)
	}
}

func (p *progress) begin(text string, read *atomic.Int64, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.read, p.size = text, read, size
}

// hide removes the line until the next stage.
func (p *progress) hide() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = ""
	if p.shown {
		p.write("\r\x1b[K")
		p.shown = false
	}
}

// stop removes the line for good. It may be called once.
func (p *progress) stop() {
	if p == nil {
		return
	}
	close(p.end)
	<-p.done
	p.hide()
}

func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text == "" {
		return
	}
	line := "egate: " + p.text
	if p.read != nil && p.size > 0 {
		line += fmt.Sprintf(", %d %%", min(100*p.read.Load()/p.size, 100))
	}
	line = table.Clean(line)
	// A line that wraps could not be taken back.
	if runes, width := []rune(line), p.width(); width > 0 && len(runes) >= width {
		line = string(runes[:width-1])
	}
	p.write("\r" + line + "\x1b[K")
	p.shown = true
}

// write ignores errors: a terminal that is gone must not stop an apply.
func (p *progress) write(text string) { _, _ = io.WriteString(p.w, text) }

// open is a policy.Opener that tells how far the file is read.
func (p *progress) open(path string) (io.ReadCloser, error) {
	opened, err := policy.OpenFile(path)
	if p == nil || err != nil {
		return opened, err
	}
	file, ok := opened.(*os.File)
	if !ok {
		return opened, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	counted := &countedFile{File: file, line: p}
	p.begin(reading(path), &counted.read, info.Size())
	return counted, nil
}

// reading is the stage of reading a file.
func reading(path string) string {
	if path == "-" {
		return "reading standard input"
	}
	return "reading " + filepath.Base(path)
}

// countedFile counts what is read from it, and tells when that is done.
type countedFile struct {
	*os.File
	line *progress
	read atomic.Int64
}

func (f *countedFile) Close() error {
	f.line.stage("checking the policy")
	return f.File.Close()
}

func (f *countedFile) Read(buffer []byte) (int, error) {
	n, err := f.File.Read(buffer)
	f.read.Add(int64(n))
	return n, err
}

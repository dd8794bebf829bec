package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// archive writes a cpio file in the "newc" form, which is what the kernel
// unpacks into its first root (Documentation/driver-api/early-userspace/
// buffer-format.rst). Several of them in a row are one root. The first error
// is kept and returned by close; after it nothing more is written.
type archive struct {
	file  *os.File
	out   *bufio.Writer
	inode uint32
	names map[string]bool
	err   error
}

const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
)

// appendArchive begins an archive at the end of a file, which it makes if there
// is none.
func appendArchive(path string) (*archive, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("begin archive: %w", err)
	}
	return &archive{file: f, out: bufio.NewWriterSize(f, 1<<20), names: map[string]bool{}}, nil
}

// close ends the archive and returns the first error of all.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, nil)
	return errors.Join(a.err, a.out.Flush(), a.file.Close())
}

// dir adds a folder and those above it. Adding a name twice is no error: the
// first one stays.
func (a *archive) dir(path string) {
	path = filepath.Clean(path)
	if path == "/" || path == "." || a.names[path] {
		return
	}
	a.dir(filepath.Dir(path))
	a.names[path] = true
	mode := uint32(0o755)
	if path == "/tmp" {
		mode = 0o1777
	}
	a.entry(path, modeDir|mode, 0, nil)
}

// symlink adds a symbolic link.
func (a *archive) symlink(path, target string) {
	if a.claim(path) {
		a.entry(path, modeSymlink|0o777, uint32(len(target)), strings.NewReader(target))
	}
}

// text adds a file from memory.
func (a *archive) text(path string, mode uint32, content string) {
	if a.claim(path) {
		a.entry(path, modeRegular|mode, uint32(len(content)), strings.NewReader(content))
	}
}

// copy adds a file of the host, following links, under a name of the guest.
func (a *archive) copy(hostPath, path string) {
	if a.names[path] {
		return
	}
	info, err := os.Stat(hostPath)
	if err != nil {
		a.fail(err)
		return
	}
	// Read at once, so that a file that is just being written has one length.
	content, err := os.ReadFile(hostPath)
	if err != nil {
		a.fail(err)
		return
	}
	a.claim(path)
	a.entry(path, modeRegular|uint32(info.Mode().Perm()), uint32(len(content)), bytes.NewReader(content))
}

// tree adds all files, folders and links below a folder of the host. skip, if
// not nil, says which ones to leave out, by their paths relative to it.
func (a *archive) tree(hostDir, dir string, skip func(relative string, entry os.DirEntry) bool) {
	err := filepath.WalkDir(hostDir, func(path string, entry os.DirEntry, err error) error {
		// In a tree that others work in, a file may go while it is walked.
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(hostDir, path)
		if err != nil {
			return err
		}
		if skip != nil && skip(relative, entry) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		target := filepath.Join(dir, relative)
		switch entry.Type() {
		case os.ModeDir:
			a.dir(target)
		case os.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			a.symlink(target, link)
		case 0:
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				a.copy(path, target)
			}
		}
		return nil
	})
	if err != nil {
		a.fail(err)
	}
}

// claim makes the folders above a name and reports whether it is still free.
func (a *archive) claim(path string) bool {
	if a.names[path] {
		return false
	}
	a.dir(filepath.Dir(path))
	a.names[path] = true
	return true
}

// entry writes one header with name and content, each padded to four bytes.
func (a *archive) entry(path string, mode, size uint32, content io.Reader) {
	if a.err != nil {
		return
	}
	name := strings.TrimPrefix(path, "/")
	a.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.write(header + name + "\x00" + padding(len(header)+len(name)+1))
	if content == nil {
		return
	}
	written, err := io.Copy(a.out, io.LimitReader(content, int64(size)))
	if err == nil && written != int64(size) {
		err = fmt.Errorf("%s changed while it was read", path)
	}
	if err != nil {
		a.fail(err)
	}
	a.write(padding(int(size)))
}

func (a *archive) write(s string) {
	if _, err := a.out.WriteString(s); err != nil {
		a.fail(err)
	}
}

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = fmt.Errorf("write archive: %w", err)
	}
}

func padding(length int) string { return "\x00\x00\x00"[:(4-length%4)%4] }

package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// session is a connection over which somebody works on this host.
type session struct {
	client, server netip.AddrPort
}

func (s session) String() string {
	return fmt.Sprintf("%v -> %v", s.client, s.server)
}

// sessionFinder tells whether a process was started over SSH, and over which
// connections.
type sessionFinder struct {
	proc string // where procfs is mounted
	env  func(string) string
	pid  int
}

const maxAncestors = 256 // a bound for a /proc that changes while it is read

// find gives the SSH connections that the process hangs on: that of its own
// environment, and those of its ancestors, because sudo drops SSH_CONNECTION
// but the shell above it still has it. Where no environment tells, an sshd
// among the ancestors does. What cannot be read of an ancestor (it has ended,
// it is another user's) is passed over.
func (f sessionFinder) find() ([]session, error) {
	var found []session
	add := func(s session) {
		for _, known := range found {
			if known == s {
				return
			}
		}
		found = append(found, s)
	}
	if s, ok := parseConnection(f.env("SSH_CONNECTION")); ok {
		add(s)
	}
	pid := f.pid
	for range maxAncestors {
		parent, name, err := f.parent(pid)
		if err != nil {
			if len(found) > 0 || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return found, nil
			}
			return nil, fmt.Errorf("look for an SSH session: %w", err)
		}
		if pid != f.pid {
			if s, ok := f.environment(pid); ok {
				add(s)
			}
			if isDaemon(name) {
				for _, s := range f.connections(pid) {
					add(s)
				}
			}
		}
		if parent <= 1 {
			return found, nil
		}
		pid = parent
	}
	return found, nil
}

// isDaemon knows the names of processes that hold an SSH connection.
func isDaemon(name string) bool {
	return name == "sshd" || strings.HasPrefix(name, "sshd-") || name == "dropbear"
}

// parent reads a process's parent and name from its stat file. The name
// stands in parentheses and may hold anything, parentheses too.
func (f sessionFinder) parent(pid int) (parent int, name string, err error) {
	text, err := os.ReadFile(f.path(pid, "stat"))
	if err != nil {
		return 0, "", err
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return 0, "", fmt.Errorf("parse %s: no name", f.path(pid, "stat"))
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 2 {
		return 0, "", fmt.Errorf("parse %s: no parent", f.path(pid, "stat"))
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, "", fmt.Errorf("parse %s: parent: %w", f.path(pid, "stat"), err)
	}
	return parent, string(text[open+1 : end]), nil
}

func (f sessionFinder) path(pid int, rest string) string {
	return filepath.Join(f.proc, strconv.Itoa(pid), rest)
}

func (f sessionFinder) environment(pid int) (session, bool) {
	text, err := os.ReadFile(f.path(pid, "environ"))
	if err != nil {
		return session{}, false
	}
	for entry := range strings.SplitSeq(string(text), "\x00") {
		if value, ok := strings.CutPrefix(entry, "SSH_CONNECTION="); ok {
			return parseConnection(value)
		}
	}
	return session{}, false
}

// parseConnection reads sshd's "CLIENT PORT SERVER PORT".
func parseConnection(value string) (session, bool) {
	fields := strings.Fields(value)
	if len(fields) != 4 {
		return session{}, false
	}
	client, ok1 := parseEndpoint(fields[0], fields[1])
	server, ok2 := parseEndpoint(fields[2], fields[3])
	return session{client, server}, ok1 && ok2
}

func parseEndpoint(address, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// connections gives the established TCP connections that a process holds.
func (f sessionFinder) connections(pid int) []session {
	inodes := f.sockets(pid)
	var found []session
	for k := range f.tcp(pid) {
		if k.state == established && inodes[k.inode] {
			found = append(found, session{client: k.remote, server: k.local})
		}
	}
	return found
}

// isIncoming tells whether this host's sockets show that the client opened the
// session: it is established, and something listens at the server's port. This
// is how datapath.Apply tells the connections that exist already apart.
func (f sessionFinder) isIncoming(s session) bool {
	exists, listens := false, false
	for k := range f.tcp(f.pid) {
		switch {
		case k.state == listening && k.local.Port() == s.server.Port():
			a := k.local.Addr()
			listens = listens || a.IsUnspecified() || a == s.server.Addr().WithZone("")
		case k.state == established:
			exists = exists || k.local == withoutZone(s.server) && k.remote == withoutZone(s.client)
		}
	}
	return exists && listens
}

// withoutZone is an address as socket tables have it.
func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// socket is a line of a socket table.
type socket struct {
	local, remote netip.AddrPort
	state, inode  string
}

// States in socket tables, from include/net/tcp_states.h.
const (
	established = "01"
	listening   = "0A"
)

// tcp lists the TCP sockets of a process's network namespace. A table that
// cannot be read is empty: the kernel may have no IPv6.
func (f sessionFinder) tcp(pid int) iter.Seq[socket] {
	return func(yield func(socket) bool) {
		for _, table := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(f.path(pid, filepath.Join("net", table)))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				if k, ok := parseSocketLine(line); ok && !yield(k) {
					return
				}
			}
		}
	}
}

// sockets is the inodes of the sockets that a process has open.
func (f sessionFinder) sockets(pid int) map[string]bool {
	entries, err := os.ReadDir(f.path(pid, "fd"))
	if err != nil {
		return nil
	}
	inodes := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(f.path(pid, filepath.Join("fd", e.Name())))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}

// parseSocketLine reads a line of /proc/net/tcp or tcp6; the heading is none.
func parseSocketLine(line string) (k socket, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return socket{}, false
	}
	local, ok1 := parseSocketAddress(fields[1])
	remote, ok2 := parseSocketAddress(fields[2])
	return socket{local: local, remote: remote, state: fields[3], inode: fields[9]}, ok1 && ok2
}

// parseSocketAddress reads HEX:PORT, where the address is 32-bit words in the
// byte order of the machine.
func parseSocketAddress(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

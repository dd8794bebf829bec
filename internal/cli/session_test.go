package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// fakeProc writes a procfs of processes: pid -> what its files hold.
type fakeProcess struct {
	parent  int
	name    string
	environ string
	sockets map[string]string // fd -> link
	tcp     string
	tcp6    string
}

func fakeProc(t *testing.T, processes map[int]fakeProcess) string {
	t.Helper()
	root := t.TempDir()
	for pid, p := range processes {
		dir := filepath.Join(root, strconv.Itoa(pid))
		write := func(name, text string) {
			t.Helper()
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("stat", strconv.Itoa(pid)+" ("+p.name+") S "+strconv.Itoa(p.parent)+" 1 1 0 -1")
		write("environ", p.environ)
		write("net/tcp", p.tcp)
		write("net/tcp6", p.tcp6)
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		for fd, link := range p.sockets {
			if err := os.Symlink(link, filepath.Join(dir, "fd", fd)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

const tcpHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestFindSession(t *testing.T) {
	const connection = "203.0.113.9 51234 10.0.0.5 22"
	for _, c := range []struct {
		name      string
		env       string
		processes map[int]fakeProcess
		want      []string
	}{
		{
			name:      "none",
			processes: map[int]fakeProcess{100: {parent: 50, name: "egate"}, 50: {parent: 1, name: "bash", environ: "HOME=/root\x00"}},
		},
		{
			name:      "own environment",
			env:       connection,
			processes: map[int]fakeProcess{100: {parent: 1, name: "egate"}},
			want:      []string{"203.0.113.9:51234 -> 10.0.0.5:22"},
		},
		{
			name: "dropped by sudo, still in the shell's",
			processes: map[int]fakeProcess{
				100: {parent: 90, name: "egate"},
				90:  {parent: 80, name: "sudo", environ: "SUDO_USER=op\x00"},
				80:  {parent: 1, name: "bash", environ: "A=b\x00SSH_CONNECTION=" + connection + "\x00C=d"},
			},
			want: []string{"203.0.113.9:51234 -> 10.0.0.5:22"},
		},
		{
			name: "a name with parentheses and blanks",
			processes: map[int]fakeProcess{
				100: {parent: 90, name: "egate"},
				90:  {parent: 80, name: "x) S 1 (y"},
				80:  {parent: 1, name: "bash", environ: "SSH_CONNECTION=2001:db8::9 51234 2001:db8::5 22\x00"},
			},
			want: []string{"[2001:db8::9]:51234 -> [2001:db8::5]:22"},
		},
		{
			name: "an sshd with an established socket, v4 and v4-mapped",
			processes: map[int]fakeProcess{
				100: {parent: 80, name: "egate"},
				80: {
					parent: 1, name: "sshd-session",
					sockets: map[string]string{"3": "socket:[777]", "4": "socket:[778]", "5": "pipe:[9]"},
					tcp: tcpHead +
						"   0: 0500000A:0016 097100CB:C822 01 00000000:00000000 00:00000000 00000000     0        0 777 1\n" +
						"   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 778 1\n" +
						"   2: 0500000A:0016 017100CB:C823 01 00000000:00000000 00:00000000 00000000     0        0 999 1\n",
					tcp6: tcpHead +
						"   0: 0000000000000000FFFF00000500000A:0016 0000000000000000FFFF00000A7100CB:C824 01 00000000:00000000 00:00000000 00000000     0        0 778 1\n",
				},
			},
			want: []string{"203.0.113.9:51234 -> 10.0.0.5:22", "203.0.113.10:51236 -> 10.0.0.5:22"},
		},
		{
			name:      "an environment that makes no sense",
			env:       "over there 99999 10.0.0.5 22",
			processes: map[int]fakeProcess{100: {parent: 1, name: "egate"}},
		},
		{
			name:      "ancestors that run in a circle",
			processes: map[int]fakeProcess{100: {parent: 90, name: "a"}, 90: {parent: 100, name: "b"}},
		},
		{
			name:      "an ancestor that has ended",
			processes: map[int]fakeProcess{100: {parent: 90, name: "a"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sessionFinder{
				proc: fakeProc(t, c.processes),
				env:  func(key string) string { return map[string]string{"SSH_CONNECTION": c.env}[key] },
				pid:  100,
			}
			found, err := f.find()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range found {
				got = append(got, s.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("find = %q, want %q", got, c.want)
			}
		})
	}
}

func TestFindSessionReadsTheRealProc(t *testing.T) {
	f := sessionFinder{proc: "/proc", env: func(string) string { return "" }, pid: os.Getpid()}
	if _, err := f.find(); err != nil {
		t.Error(err)
	}
}

// sshSockets is a table with a listening sshd and the session of the tests.
const sshSockets = tcpHead +
	"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n" +
	"   1: 0500000A:0016 097100CB:C822 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n"

func TestIsIncoming(t *testing.T) {
	const listens = "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1 1\n"
	const here = "   1: 0000000000000000FFFF00000500000A:0016 0000000000000000FFFF0000097100CB:C822 01 0:0 0:0 0 0 0 2 1\n"
	const elsewhere = "   0: 0600000A:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n"
	for _, c := range []struct {
		name, tcp, tcp6 string
		want            bool
	}{
		{"no sockets", "", "", false},
		{"IPv4 sockets", sshSockets, "", true},
		{"IPv4 on an IPv6 socket", "", tcpHead + listens + here, true},
		{"nothing listens", "", tcpHead + here, false},
		{"something listens at another address", tcpHead + elsewhere, tcpHead + here, false},
		{"it listens, but the session is not there", "", tcpHead + listens, false},
	} {
		f := sessionFinder{proc: fakeProc(t, map[int]fakeProcess{7: {tcp: c.tcp, tcp6: c.tcp6}}), pid: 7}
		s, ok := parseConnection("203.0.113.9 51234 10.0.0.5 22")
		if !ok {
			t.Fatal("parseConnection")
		}
		if got := f.isIncoming(s); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

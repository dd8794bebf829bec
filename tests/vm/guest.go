package main

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// envVM names the kernel line to the binary in the guest.
const envVM = "EGATE_VM"

//go:embed init.sh
var initScript string

// guestTools are the host's programs that tests call; those that the host
// lacks are missing in the guest too. busybox stands behind them in PATH for
// all that is not listed.
var guestTools = []string{
	"sh", "bash", "cat", "env", "ls", "mount", "umount", "sleep", "timeout", "unshare", "nsenter", "setpriv",
	"ip", "tc", "ss", "bridge", "ethtool", "sysctl", "bpftool", "modprobe",
	"nft", "iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-legacy", "ip6tables-legacy", "ipset",
	"ping", "nc", "ncat", "socat", "curl", "dig", "iperf3", "tcpdump", "tracepath", "arping",
	"getent", "dnsmasq", "unbound", "openssl", "gnutls-cli",
}

// resolvedInModule is where .ci/run unpacks systemd-resolved, which is not
// installed since its package makes itself the machine's resolver.
const resolvedInModule = ".cache/systemd-resolved/lib/systemd/systemd-resolved"

// guestFiles are files and folders of the host that these programs read.
var guestFiles = []string{
	"/etc/protocols", "/etc/services", "/etc/iproute2", "/usr/share/iproute2", "/usr/lib/tc",
	"/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf",
}

// job is what to run in the guest.
type job struct {
	kernel string
	binary string
	args   []string
	dir    string   // working folder, the same path on both sides
	files  []string // further files of the host to bring along
	env    []string // NAME=value
}

// guestEnv chooses from the host's environment what the binary sees.
func guestEnv(host []string, kernel string) []string {
	env := []string{"HOME=/root", "USER=root", "LC_ALL=C.UTF-8"}
	for _, v := range host {
		name, _, _ := strings.Cut(v, "=")
		if name == envVM {
			continue
		}
		if strings.HasPrefix(name, "EGATE_") || slices.Contains([]string{"CI", "GODEBUG", "GOTRACEBACK", "GOMAXPROCS"}, name) {
			env = append(env, v)
		}
	}
	return append(env, envVM+"="+kernel)
}

// timeLimit is how long the binary may take: a minute more than its own
// -test.timeout, so that its own report comes first, or an hour without one.
func timeLimit(args []string) time.Duration {
	for _, arg := range args {
		value, ok := strings.CutPrefix(arg, "-test.timeout=")
		if d, err := time.ParseDuration(value); ok && err == nil && d > 0 {
			return d + time.Minute
		}
	}
	return time.Hour
}

// write appends the archive that holds the job and all it needs besides the
// kernel's modules to a file.
func (j job) write(path string) error {
	a, err := appendArchive(path)
	if err != nil {
		return err
	}
	if err := j.fill(a); err != nil {
		// Closed for its file only; the first error says why.
		_ = a.close()
		return err
	}
	return a.close()
}

func (j job) fill(a *archive) error {
	// Folders that are links on the host, /bin for example, are links here.
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if target, err := os.Readlink(dir); err == nil {
			a.symlink(dir, target)
		}
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/etc", "/etc/systemd"} {
		a.dir(dir)
	}
	a.text("/init", 0o755, initScript)
	a.text("/egate/run", 0o755, j.script())
	a.text("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
	a.text("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
	a.text("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n")
	a.text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n")
	a.text("/etc/resolv.conf", 0o644, "")

	if err := addBusybox(a); err != nil {
		return err
	}
	programs := []string{j.binary}
	a.copy(j.binary, j.guestBinary())
	for _, tool := range guestTools {
		if path, err := lookTool(tool); err == nil {
			programs = append(programs, path)
			a.copy(path, realDir(path))
		}
	}
	for _, path := range guestFiles {
		if _, err := os.Stat(path); err == nil {
			a.tree(path, realDir(path), nil)
		}
	}
	for _, path := range j.files {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("add %s: %w", path, err)
		}
		programs = append(programs, absolute)
		a.copy(absolute, realDir(absolute))
	}
	if path := filepath.Join(moduleRoot(j.dir), resolvedInModule); isFile(path) {
		programs = append(programs, path)
		a.copy(path, path)
	}
	libraries, err := sharedLibraries(programs)
	if err != nil {
		return err
	}
	for _, path := range libraries {
		a.copy(path, realDir(path))
	}
	root := moduleRoot(j.dir)
	a.tree(root, root, skipInModule)
	a.dir(j.dir)
	a.text("/egate/complete", 0o644, "")
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// guestBinary is away from /tmp, where `go test` builds it.
func (j job) guestBinary() string { return "/egate/" + filepath.Base(j.binary) }

// script is the shell text that runs the binary as the job says.
func (j job) script() string {
	var s strings.Builder
	fmt.Fprintf(&s, "cd %s || exit %d\n", quote(j.dir), exitVMBroke)
	for _, v := range j.env {
		fmt.Fprintf(&s, "export %s\n", quote(v))
	}
	s.WriteString("exec " + quote(j.guestBinary()))
	for _, arg := range j.args {
		s.WriteString(" " + quote(arg))
	}
	s.WriteString("\n")
	return s.String()
}

// quote makes one word of the shell of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// moduleRoot is the folder with go.mod at or above dir, or dir itself.
func moduleRoot(dir string) string {
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	return dir
}

// skipInModule leaves out what no test reads: history, caches, binaries.
func skipInModule(relative string, entry os.DirEntry) bool {
	if entry.IsDir() {
		return slices.Contains([]string{".git", ".cache", "dist"}, relative)
	}
	info, err := entry.Info()
	return err != nil || info.Size() > 16<<20 || strings.HasSuffix(relative, ".test")
}

// addBusybox adds busybox, and a link to it for each of its programs.
func addBusybox(a *archive) error {
	path, err := lookTool("busybox")
	if err != nil {
		return err
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return fmt.Errorf("list the programs of busybox: %w", err)
	}
	a.copy(path, "/bbin/busybox")
	for name := range strings.FieldsSeq(string(out)) {
		a.symlink("/bbin/"+name, "busybox")
	}
	// The kernel loads modules by this path. Where the host has kmod, its
	// modprobe takes the place.
	if _, err := lookTool("modprobe"); err != nil {
		a.symlink("/usr/sbin/modprobe", "/bbin/busybox")
	}
	return nil
}

// sharedLibraries lists the libraries and loaders of all the programs, by ldd.
func sharedLibraries(programs []string) ([]string, error) {
	ldd, err := lookTool("ldd")
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	// One call for all; it exits with 1 if one of them is static.
	out, err := exec.Command(ldd, programs...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("list shared libraries: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if path, ok := libraryPath(line); ok {
			found[path] = true
		}
	}
	var libraries []string
	for path := range found {
		libraries = append(libraries, path)
	}
	slices.Sort(libraries)
	return libraries, nil
}

// libraryPath takes the file from a line of ldd: "NAME => PATH (ADDRESS)", or
// "PATH (ADDRESS)" for the loader.
func libraryPath(line string) (string, bool) {
	line = strings.TrimSpace(line)
	if _, after, ok := strings.Cut(line, " => "); ok {
		line = after
	}
	path, _, ok := strings.Cut(line, " (0x")
	return path, ok && strings.HasPrefix(path, "/")
}

// lookTool finds a program like a shell does, also in the folders that only
// root has in PATH.
func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: missing %s", errUnavailable, name)
}

// realDir is a path with the links of its folder, not of its last part,
// followed: libraries and programs are found by the names they are known by.
func realDir(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// lastLines is the end of a text, for a message.
func lastLines(text string, count int) string {
	var lines []string
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		lines = append(lines, strings.TrimRight(scanner.Text(), "\r"))
	}
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

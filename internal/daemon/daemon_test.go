package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/testutil"
)

// veths is a policy for eth0 and all veths.
const veths = "interfaces: [eth0, \"veth*\"]\negress: {default: drop}\n"

func TestGuardsInterfacesThatCome(t *testing.T) {
	w := newWorld(t)
	w.apply("g", veths)
	c := w.start("all")
	c.logs("gate g: served from now on")
	var worst time.Duration
	for i := range 5 {
		name := fmt.Sprintf("veth%d", i)
		w.inside.Exec("ip", "link", "add", name, "type", "veth", "peer", "name", "p-"+name)
		began := time.Now()
		c.logs("guards " + name + " from now on")
		worst = max(worst, time.Since(began))
	}
	t.Logf("the last of 5 was guarded %v after ip had ended", worst)
	w.enforces("g", 6)
	w.inside.Exec("ip", "link", "del", "veth3")
	w.enforces("g", 5)
	if text := c.text(); strings.Count(text, "guards veth1") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

func TestFollowsDefaultRoutes(t *testing.T) {
	w := newWorld(t)
	w.inside.Exec("ip", "route", "add", "default", "dev", "eth0")
	w.apply("g", "interfaces: [default]\negress: {default: drop}\n")
	c := w.start("all")
	c.logs("served")
	w.inside.Exec("ip", "link", "add", "wan1", "type", "veth", "peer", "name", "far1")
	w.inside.Exec("ip", "link", "set", "wan1", "up")
	w.inside.Exec("ip", "-6", "route", "add", "default", "dev", "wan1", "metric", "7")
	c.logs("guards wan1")
	w.enforces("g", 2)
}

// storm makes and removes veths: in the end there are count, and count/2 were
// there for a moment.
func (w *world) storm(from, count int) {
	w.t.Helper()
	var batch strings.Builder
	for i := range count {
		fmt.Fprintf(&batch, "link add veth%d type veth peer name p%d\n", from+i, from+i)
		if i%2 == 1 {
			fmt.Fprintf(&batch, "link add vethx%d type veth peer name px%d\nlink set vethx%d up\nlink del vethx%d\n", from+i, from+i, from+i, from+i)
		}
	}
	file := filepath.Join(w.t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.inside.Exec("ip", "-batch", file)
}

func TestStormOfInterfaces(t *testing.T) {
	count := 200
	if _, vm := testutil.InVM(); vm {
		count = 50
	}
	w := newWorld(t)
	w.apply("g", veths)
	c := w.start("all")
	c.logs("served")
	began := time.Now()
	w.storm(0, count)
	made := time.Since(began)
	w.enforces("g", 1+count)
	t.Logf("%d veths, and half as many that did not stay: made in %v, all guarded %v later", count, made, time.Since(began)-made)
	// Those that are gone gave their places to others.
	w.inside.Exec("sh", "-c", fmt.Sprintf("for i in $(seq 0 %d); do ip link del veth$i; done", count-1))
	w.enforces("g", 1)
	w.storm(count, count)
	w.enforces("g", 1+count)
	if s := w.status("g"); len(s.Problems) > 0 {
		t.Errorf("problems: %q", s.Problems)
	}
	if strings.Contains(c.text(), "room for") {
		t.Errorf("log:\n%s", c.text())
	}
}

// TestKilledAtAnyTime kills daemons in the middle of storms. Nothing changes in
// what is in force, and the next one goes on.
func TestKilledAtAnyTime(t *testing.T) {
	w := newWorld(t)
	w.apply("g", veths)
	generation := w.status("g").Generation
	for round := range 6 {
		c := w.start("all")
		c.logs("served")
		go func() {
			time.Sleep(time.Duration(10+37*round) * time.Millisecond)
			c.killed()
		}()
		w.storm(1000*round, 20)
		<-c.done
		s := w.status("g")
		for _, i := range s.Interfaces {
			if i.NamedAt == "eth0" && !(i.Hooks[0].Attached && i.Hooks[1].Attached) {
				t.Errorf("round %d: eth0 is not guarded: %q", round, s.Problems)
			}
		}
		if s.Generation != generation {
			t.Errorf("round %d: generation %d, was %d", round, s.Generation, generation)
		}
	}
	w.start("all")
	w.enforces("g", 121)
	// A writer finds nothing in its way.
	w.apply("g", veths)
	w.enforces("g", 121)
	w.off("g")
	if gates, err := datapath.Gates(); err != nil || len(gates) > 0 {
		t.Errorf("gates after off: %q, %v", gates, err)
	}
}

func TestGatesComeAndGo(t *testing.T) {
	w := newWorld(t)
	c := w.start("all")
	w.apply("one", veths)
	c.logs("gate one: served from now on")
	w.apply("two", strings.ReplaceAll(veths, "veth*", "tap*"))
	c.logs("gate two: served from now on")
	w.inside.Exec("ip", "link", "add", "veth1", "type", "veth", "peer", "name", "p1")
	w.inside.Exec("ip", "link", "add", "tap1", "type", "veth", "peer", "name", "p2")
	c.logs("gate one: guards veth1")
	c.logs("gate two: guards tap1")
	w.off("one")
	c.logs("gate one: is off")
	w.enforces("two", 2)
	w.apply("one", veths)
	w.inside.Exec("ip", "link", "add", "veth2", "type", "veth", "peer", "name", "p3")
	w.enforces("one", 3)

	// Another namespace's gate is another daemon's.
	other := testutil.NewNetns(t)
	other.Exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "p0")
	inside := w.inside
	w.inside = other
	w.apply("three", veths)
	d := w.start("all")
	d.logs("gate three: served")
	w.inside = inside
	c.signal(syscall.SIGTERM)
	if code := c.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range []string{"three", "panic", "error"} {
		if strings.Contains(c.text(), line) {
			t.Errorf("log has %q:\n%s", line, c.text())
		}
	}
	if strings.Contains(d.text(), "one") || strings.Contains(d.text(), "two") {
		t.Errorf("log of the other:\n%s", d.text())
	}
	w.inside = other
	w.off("three")
}

func TestOneDaemonForEachGate(t *testing.T) {
	w := newWorld(t)
	w.apply("one", veths)
	w.apply("two", veths)
	first := w.start("one")
	first.logs("gate one: served")
	for _, gate := range []string{"one", "all"} {
		second := w.start(gate)
		if code := second.ends(); code != 1 || !strings.Contains(second.text(), fmt.Sprintf("another daemon serves it (pid %d)", first.cmd.Process.Pid)) {
			t.Errorf("daemon for %s: code %d, log\n%s", gate, code, second.text())
		}
	}
	second := w.start("two")
	second.logs("gate two: served")
	if strings.Contains(second.text(), "gate one") {
		t.Errorf("daemon for two:\n%s", second.text())
	}
	first.killed()
	w.start("one").logs("gate one: served")

	other := testutil.NewNetns(t)
	inside := w.inside
	w.inside = other
	c := w.start("one")
	if code := c.ends(); code != 1 || !strings.Contains(c.text(), "network namespace") {
		t.Errorf("daemon for the gate of another namespace: code %d, log\n%s", code, c.text())
	}
	w.inside = inside
}

// manager is what a service manager hears.
func manager(t *testing.T, name string) (*net.UnixConn, func() string) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	buf := make([]byte, 4096)
	return c, func() string {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(testutil.Patience(20 * time.Second))); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("the daemon tells nothing: %v", err)
		}
		return string(buf[:n])
	}
}

func TestTellsTheServiceManager(t *testing.T) {
	w := newWorld(t)
	w.apply("g", veths)
	socket := filepath.Join(t.TempDir(), "notify")
	_, next := manager(t, socket)
	c := w.start("all", "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=300000", "JOURNAL_STREAM=1:2")
	heard := map[string]bool{}
	await := func(prefix string) {
		t.Helper()
		for !heard[prefix] {
			text := next()
			for _, p := range []string{"STATUS=serves g", "READY=1", "WATCHDOG=1", "STOPPING=1"} {
				heard[p] = heard[p] || strings.HasPrefix(text, p)
			}
		}
	}
	await("READY=1")
	if !heard["STATUS=serves g"] {
		t.Error("ready without a status")
	}
	await("WATCHDOG=1")
	c.signal(syscall.SIGTERM)
	await("STOPPING=1")
	if code := c.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.HasPrefix(c.text(), "gate g: served") {
		t.Errorf("log of a service, which the journal gives its time:\n%s", c.text())
	}
}

// capabilities is all that the unit gives the daemon.
const capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON"

// TestCapabilities does with these what the daemon does.
func TestCapabilities(t *testing.T) {
	w := newWorld(t)
	w.serveDNS()
	w.apply("g", strings.Replace(names, "[eth0]", `[eth0, "veth*"]`, 1))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	set := "-all"
	for name := range strings.FieldsSeq(capabilities) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	c := w.startCommand("all", exec.Command("setpriv", "--bounding-set="+set, "--no-new-privs", self))
	c.logs("served")
	w.inside.Exec("ip", "link", "add", "veth1", "type", "veth", "peer", "name", "p1")
	c.logs("guards veth1")
	w.inside.Exec("ip", "link", "del", "veth1")
	w.enforces("g", 1)
	if n, err := w.lookUp("tcp4", "n1250.example.", 5*time.Second); err != nil || n != 1250 {
		t.Errorf("an answer that can't be read: %d addresses, %v\n%s", n, err, c.text())
	}
	c.signal(syscall.SIGTERM)
	if code := c.ends(); code != 0 || strings.Contains(c.text(), "permitted") {
		t.Errorf("code %d, log:\n%s", code, c.text())
	}
}

func TestUnitGivesTheCapabilities(t *testing.T) {
	if _, vm := testutil.InVM(); vm {
		return // the tree is not there
	}
	unit, err := os.ReadFile("../../systemd/egate-daemon.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapabilityBoundingSet=" + capabilities, "Type=notify", "Restart=always"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("the unit has no line %q", line)
		}
	}
}

func TestNotifier(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(key string) string {
			if i := slices.Index(pairs, key); i >= 0 && i%2 == 0 {
				return pairs[i+1]
			}
			return ""
		}
	}
	for _, c := range []struct {
		env  []string
		want time.Duration
	}{
		{nil, 0},
		{[]string{"WATCHDOG_USEC", "3000000"}, 3 * time.Second},
		{[]string{"WATCHDOG_USEC", "3000000", "WATCHDOG_PID", fmt.Sprint(os.Getpid())}, 3 * time.Second},
		{[]string{"WATCHDOG_USEC", "3000000", "WATCHDOG_PID", "1"}, 0},
		{[]string{"WATCHDOG_USEC", "0"}, 0},
		{[]string{"WATCHDOG_USEC", "-1"}, 0},
		{[]string{"WATCHDOG_USEC", "99999999999999999999"}, 0},
	} {
		n := newNotifier(env(c.env...))
		if n.interval != c.want {
			t.Errorf("%q: interval %v, want %v", c.env, n.interval, c.want)
		}
		if err := n.send("READY=1"); err != nil {
			t.Errorf("without a socket: %v", err)
		}
		n.watchdog().Stop()
	}
	abstract := fmt.Sprintf("@egate-test-%d", os.Getpid())
	_, next := manager(t, abstract)
	if err := newNotifier(env("NOTIFY_SOCKET", abstract)).ready(); err != nil {
		t.Fatal(err)
	}
	if got, want := next(), fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid()); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if err := newNotifier(env("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))).send("x"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("to a socket that is not there: %v", err)
	}
}

func TestFileMarks(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	m := fileMarks{}
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"the first look", func() {}, true},
		{"no files", func() {}, false},
		{"a new file", func() { write(a, "1") }, true},
		{"the same", func() {}, false},
		{"another size", func() { write(a, "12") }, true},
		{"another time", func() {
			if err := os.Chtimes(a, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"replaced", func() {
			write(b, "34")
			if err := errors.Join(os.Chtimes(b, time.Time{}, time.Unix(1, 0)), os.Rename(b, a)); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"removed", func() {
			if err := os.Remove(a); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"still removed", func() {}, false},
	} {
		step.do()
		if got := m.changed([]string{a, b}); got != step.want {
			t.Errorf("%s: changed %v, want %v", step.what, got, step.want)
		}
	}
}

package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"egate/internal/datapath"
	"egate/internal/tables"
)

func TestApply(t *testing.T) {
	file := policyFile(t, goodPolicy)
	var got datapath.ApplyOptions
	deadline := time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
	setup := func(a *app) {
		a.kernel.Apply = func(set *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
			got = o
			got.Stage = nil // no terminal, and not to be compared
			if set.Name != "web-server" {
				t.Errorf("applied %q", set.Name)
			}
			return &datapath.Applied{Gate: o.Gate, Interfaces: []string{"eth0", "wg0"}, Hook: "tcx", Deadline: deadline,
				Warnings: []string{`no interface matches "wg9" at present`}}, nil
		}
	}
	r := run(t, setup, "apply", file)
	r.expect(t, ExitOK, "host: policy web-server (4 egress rules and 0 ingress rules) is in force on eth0, wg0 (tcx), after ",
		`See what it does with "egate status", undo it with "egate off".`)
	if want := "egate: warning: no interface matches \"wg9\" at present\n"; r.stderr != want {
		t.Errorf("stderr %q, want %q", r.stderr, want)
	}
	want := datapath.ApplyOptions{Gate: "host", Source: datapath.Source{Path: file, SHA256: sha256.Sum256([]byte(goodPolicy))}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("options %+v, want %+v", got, want)
	}

	run(t, setup, "apply", file, "--gate", "lab", "--confirm", "60s", "--hook", "clsact", "--place", "last", "--replace-state").
		expect(t, ExitOK, `Keep it with "egate confirm --gate lab" by 12:00:00 (1 min), or what was before comes back.`)
	want.Gate, want.Confirm, want.Hook, want.Place, want.ReplaceState = "lab", time.Minute, datapath.HookClsact, datapath.PlaceLast, true
	if !reflect.DeepEqual(got, want) {
		t.Errorf("options %+v, want %+v", got, want)
	}

	run(t, func(a *app) {
		a.kernel.Apply = func(*tables.Set, datapath.ApplyOptions) (*datapath.Applied, error) {
			return nil, fmt.Errorf("needs root: %w", datapath.ErrPermission)
		}
	}, "apply", file).expect(t, ExitRefused, "egate: needs root")
}

// Where the policy leaves it to the host whose answers open names, apply says who
// that is.
func TestApplyTellsWhoseAnswersOpenNames(t *testing.T) {
	const head = "version: 1\ninterfaces: [eth0]\n"
	const rules = "egress:\n  default: drop\n  rules:\n    - {name: a, action: allow, to: {domains: [a.example.com], ports: [tcp/443]}}\n"
	server := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	for _, c := range []struct {
		name    string
		policy  string
		servers []netip.Addr
		want    string // a line of standard output
		warning string
	}{
		{"the host's", head + rules, server("10.0.0.53", "127.0.0.53"), "names: learned from the answers of 10.0.0.53, 127.0.0.53 (the host's DNS servers)", ""},
		{"many", head + rules, server("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"), "names: learned from the answers of 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 1 more (the host's DNS servers)", ""},
		{"the policy's", head + rules + "dns: {servers: [10.0.0.53]}\n", server("10.0.0.53"), "", ""},
		{"no names", head + "egress: {default: drop}\n", nil, "", ""},
		{"Docker's", head + rules, server("127.0.0.11"), "names: learned from the answers of 127.0.0.11 (the host's DNS servers)", "egate: warning: DNS server 127.0.0.11 is Docker's own"},
		{"Docker's in the policy", head + rules + "dns: {servers: [127.0.0.11]}\n", server("127.0.0.11"), "", "egate: warning: DNS server 127.0.0.11 is Docker's own"},
	} {
		r := run(t, func(a *app) {
			a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
				return &datapath.Applied{Gate: o.Gate, Interfaces: []string{"eth0"}, Hook: "tcx", Servers: c.servers}, nil
			}
			a.kernel.Served = func(string) (bool, error) { return true, nil }
		}, "apply", policyFile(t, c.policy))
		r.expect(t, ExitOK)
		if strings.Contains(r.stdout, "egate daemon") {
			t.Errorf("%s: a hint at the daemon although it runs:\n%s", c.name, r.stdout)
		}
		if c.want == "" && strings.Contains(r.stdout, "names:") || !strings.Contains(r.stdout, c.want) {
			t.Errorf("%s: no line %q in\n%s", c.name, c.want, r.stdout)
		}
		if c.warning == "" && r.stderr != "" || !strings.Contains(r.stderr, c.warning) {
			t.Errorf("%s: standard error %q, want %q", c.name, r.stderr, c.warning)
		}
	}
	noDaemon := func(err error) func(*app) {
		return func(a *app) {
			a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
				return &datapath.Applied{Gate: o.Gate, Servers: server("10.0.0.53")}, nil
			}
			a.kernel.Served = func(string) (bool, error) { return false, err }
		}
	}
	run(t, noDaemon(nil), "apply", policyFile(t, head+rules)).expect(t, ExitOK, `10.0.0.53 (the host's DNS servers); "egate daemon" follows when they change`)
	r := run(t, noDaemon(errors.New("look for a daemon: broken")), "apply", policyFile(t, head+rules))
	r.expect(t, ExitOK)
	if r.stderr != "egate: warning: look for a daemon: broken\n" || strings.Contains(r.stdout, "egate daemon") {
		t.Errorf("standard error %q, output %s", r.stderr, r.stdout)
	}
	const none = "find DNS servers: the policy uses names, and neither it nor /etc/resolv.conf says whose answers count"
	run(t, func(a *app) {
		a.kernel.Apply = func(*tables.Set, datapath.ApplyOptions) (*datapath.Applied, error) {
			return nil, fmt.Errorf("apply: "+none+": %w", datapath.ErrNoServer)
		}
	}, "apply", policyFile(t, head+rules)).expect(t, ExitRefused, "egate: apply: "+none)
}

func TestApplyPrintsWarningsOfTheCompiler(t *testing.T) {
	setup := func(a *app) {
		a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
			return &datapath.Applied{Gate: o.Gate}, nil
		}
	}
	r := run(t, setup, "apply", policyFile(t, warnedPolicy))
	r.expect(t, ExitOK)
	if !strings.Contains(r.stderr, ":8:7: warning: ") {
		t.Errorf("stderr: %s", r.stderr)
	}
}

// fakeRoutes sends every client through the same interfaces.
type fakeRoutes struct {
	names, defaultNames []string
	unknown             bool
}

func (f fakeRoutes) interfaces(netip.Addr) ([]string, bool) { return f.names, !f.unknown }
func (f fakeRoutes) way(to netip.Addr) string {
	switch {
	case len(f.names) == 0:
		return ""
	case to.IsLoopback():
		return "lo"
	}
	return f.names[0]
}
func (f fakeRoutes) defaults() ([]string, bool) { return f.defaultNames, !f.unknown }

func TestGuardSSH(t *testing.T) {
	const head = "version: 1\n"
	const dropOut = head + "interfaces: [eth0]\negress: {default: drop}\n"
	const allowSSHOut = head + "interfaces: [eth0]\negress:\n  default: drop\n  rules:\n" +
		"    - {name: ssh, action: allow, from: {ports: [tcp/22]}}\n"
	v4, v6 := "203.0.113.9 51234 10.0.0.5 22", "2001:db8::9 51234 2001:db8::5 22"
	onEth0 := fakeRoutes{names: []string{"eth0"}, defaultNames: []string{"eth0"}}
	for _, c := range []struct {
		name       string
		policy     string
		connection string
		routes     fakeRoutes
		incoming   bool // the socket tables show that the client opened it
		flags      []string
		refusal    string // "" if it is applied
	}{
		{name: "no session", policy: dropOut, routes: onEth0},
		{
			name: "the default drops what the server sends", policy: dropOut, connection: v4, routes: onEth0,
			refusal: "the egress default would drop the server's packets (tcp 10.0.0.5:22 -> 203.0.113.9:51234 flags=A)",
		},
		{
			name: "IPv6", policy: dropOut, connection: v6, routes: onEth0,
			refusal: "the egress default would drop the server's packets (tcp [2001:db8::5]:22 -> [2001:db8::9]:51234 flags=A)",
		},
		{name: "the risk is taken", policy: dropOut, connection: v4, routes: onEth0, flags: []string{"--accept-risk=lose-ssh"}},
		{name: "the connection is known, so replies pass", policy: dropOut, connection: v4, routes: onEth0, incoming: true},
		{
			name:       "the connection is known, but replies do not pass",
			policy:     head + "interfaces: [eth0]\negress: {default: reject, replies: false}\n",
			connection: v4, routes: onEth0, incoming: true,
			refusal: "the egress default would reject the server's packets",
		},
		{name: "a rule allows what the server sends", policy: allowSSHOut, connection: v4, routes: onEth0},
		{
			name:       "a rule drops what the client sends",
			policy:     head + "interfaces: [eth0]\ningress:\n  default: allow\n  rules:\n    - {name: no-ssh, action: drop, to: {ports: [tcp/22]}}\n",
			connection: v4, routes: onEth0,
			refusal: "ingress rule no-ssh (line 6) would drop the client's packets (tcp 203.0.113.9:51234 -> 10.0.0.5:22 flags=A in)",
		},
		{
			name:       "a rule that would open a connection from here is no reply",
			policy:     head + "interfaces: [eth0]\negress: {default: allow}\ningress: {default: drop}\n",
			connection: v4, routes: onEth0, incoming: true,
			refusal: "the ingress default would drop the client's packets",
		},
		{name: "audit mode cuts nothing", policy: "mode: audit\n" + dropOut, connection: v4, routes: onEth0},
		{name: "the session is on another interface", policy: dropOut, connection: v4, routes: fakeRoutes{names: []string{"eth1"}}},
		{
			name: "a pattern covers it", policy: strings.ReplaceAll(dropOut, "[eth0]", `["et*"]`), connection: v4,
			routes: fakeRoutes{names: []string{"eth1"}}, refusal: "would cut",
		},
		{
			name: "the port of a bridge", policy: dropOut, connection: v4,
			routes: fakeRoutes{names: []string{"br0", "eth0"}}, refusal: "would cut",
		},
		{
			name: "default covers it", policy: strings.ReplaceAll(dropOut, "[eth0]", "[default]"), connection: v4,
			routes: fakeRoutes{names: []string{"eth7"}, defaultNames: []string{"eth7"}}, refusal: "would cut",
		},
		{
			name: "default does not cover it", policy: strings.ReplaceAll(dropOut, "[eth0]", "[default]"), connection: v4,
			routes: fakeRoutes{names: []string{"eth1"}, defaultNames: []string{"eth7"}},
		},
		{
			name: "the route is not known", policy: dropOut, connection: v4,
			routes: fakeRoutes{unknown: true}, refusal: "would cut",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			applied := false
			setup := func(a *app) {
				a.sessions.env = func(string) string { return c.connection }
				if c.incoming {
					a.sessions.proc = fakeProc(t, map[int]fakeProcess{a.sessions.pid: {name: "egate", tcp: sshSockets}})
				}
				a.routes = c.routes
				a.kernel.Apply = func(_ *tables.Set, o datapath.ApplyOptions) (*datapath.Applied, error) {
					applied = true
					return &datapath.Applied{Gate: o.Gate}, nil
				}
			}
			r := run(t, setup, append([]string{"apply", policyFile(t, c.policy)}, c.flags...)...)
			if c.refusal == "" {
				r.expect(t, ExitOK)
			} else {
				r.expect(t, ExitRefused, c.refusal, "--accept-risk=lose-ssh", "--confirm")
			}
			if applied != (c.refusal == "") {
				t.Errorf("applied: %v", applied)
			}
		})
	}
}

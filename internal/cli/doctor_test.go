package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"egate/internal/datapath"
	"egate/internal/probe"
)

func probed() *probe.Report {
	return &probe.Report{
		Kernel: "6.1.0-32-cloud-amd64 x86_64",
		Checks: []probe.Check{
			{Name: "ring buffer", State: probe.OK, Needed: true, For: "events", Since: "5.8"},
			{Name: "TCX", State: probe.Missing, For: "attaching beside other programs", Since: "6.6", Do: "egate uses clsact instead"},
			{Name: "clsact", State: probe.Unknown, Detail: "not tried, for want of privilege", For: "attaching where there is no TCX", Since: "4.5", Do: "run doctor as root"},
		},
		Notes: []string{"Packets sent through AF_XDP do not pass traffic control. This takes CAP_NET_RAW."},
	}
}

func TestDoctor(t *testing.T) {
	setup := func(needed bool, width int) func(*app) {
		return func(a *app) {
			a.width = func() int { return width }
			a.probe = func() (*probe.Report, error) {
				r := probed()
				r.Checks[1].Needed = needed
				return r, nil
			}
			a.kernel.Gates = func() ([]string, error) { return []string{"host"}, nil }
			a.kernel.ReadStatus = func(string) (*datapath.Status, error) { return fabricated(), nil }
			a.routes = fakeRoutes{names: []string{"eth0"}}
			a.hostServers = func() ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.53")}, nil
			}
		}
	}
	for _, width := range []int{60, 80, 120} {
		r := run(t, setup(false, width), "doctor")
		r.expect(t, ExitOK)
		golden(t, fmt.Sprintf("doctor.%d.golden", width), r.stdout)
	}
	for _, needed := range []bool{false, true} {
		r := run(t, setup(needed, 0), "doctor", "-o", "json")
		var report DoctorReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatal(err)
		}
		if report.OK == needed || (r.code == ExitOK) == needed || len(report.Checks) != 3 {
			t.Errorf("needed %v: exit code %d, %s", needed, r.code, r.stdout)
		}
		// Only egress has somebody else's program in front; what is gone has no hooks.
		if len(report.Hooks) != 2 || report.Hooks[0].Note == "" || report.Hooks[1].Note != "" {
			t.Errorf("hooks %+v", report.Hooks)
		}
	}
	if r := run(t, setup(true, 0), "doctor"); r.code != ExitRefused {
		t.Errorf("exit code %d although something is missing", r.code)
	}
	r := run(t, func(a *app) {
		setup(false, 0)(a)
		a.kernel.Gates = func() ([]string, error) { return nil, datapath.ErrPermission }
	}, "doctor")
	r.expect(t, ExitOK, "Nothing is missing")
	if r.stderr != "egate: warning: programs beside the gates are not listed: permission denied\n" {
		t.Errorf("stderr %q", r.stderr)
	}
}

func TestAdviceNamesACauseOnce(t *testing.T) {
	got := advice([]probe.Check{
		{Name: "a", State: probe.OK},
		{Name: "b", State: probe.Unknown, Detail: "not tried", Do: "run doctor as root"},
		{Name: "c", State: probe.Missing, Do: "use d"},
		{Name: "e", State: probe.Unknown, Detail: "not tried", Do: "run doctor as root"},
	})
	want := []string{"unknown: b, e (not tried); run doctor as root", "missing: c; use d"}
	if !slices.Equal(got, want) {
		t.Errorf("advice = %q, want %q", got, want)
	}
}

func TestServerReports(t *testing.T) {
	for _, c := range []struct {
		name      string
		server    string
		routes    fakeRoutes
		local     bool
		by        string
		noteBegin string
	}{
		{"on the network", "10.0.0.53", fakeRoutes{names: []string{"eth0"}}, false, "eth0", ""},
		{"a stub on loopback", "127.0.0.53", fakeRoutes{names: []string{"eth0"}}, true, "lo", "DNS server 127.0.0.53 is on this host"},
		{"IPv6 loopback", "::1", fakeRoutes{names: []string{"eth0"}}, true, "lo", "DNS server ::1 is on this host"},
		{"an address of the host's own", "10.0.0.5", fakeRoutes{names: []string{"lo"}}, true, "lo", "DNS server 10.0.0.5 is on this host"},
		{"no way", "192.0.2.1", fakeRoutes{}, false, "", ""},
		{"Docker's", "127.0.0.11", fakeRoutes{names: []string{"eth0"}}, true, "lo", "DNS server 127.0.0.11 is Docker's own"},
	} {
		a := &app{routes: c.routes, hostServers: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr(c.server)}, nil }}
		got, err := a.serverReports()
		if err != nil {
			t.Fatal(err)
		}
		r := got[0]
		if r.Address.String() != c.server || r.Local != c.local || r.Interface != c.by || !strings.HasPrefix(r.Note, c.noteBegin) || (r.Note == "") != (c.noteBegin == "") {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestDoctorWithoutServers(t *testing.T) {
	setup := func(servers []netip.Addr, err error) func(*app) {
		return func(a *app) {
			a.probe = func() (*probe.Report, error) { return probed(), nil }
			a.kernel.Gates = func() ([]string, error) { return nil, nil }
			a.hostServers = func() ([]netip.Addr, error) { return servers, err }
		}
	}
	run(t, setup(nil, nil), "doctor").expect(t, ExitOK, "This host uses no DNS server: a policy with domain names has to give some")
	if r := run(t, setup(nil, nil), "doctor", "-o", "json"); !strings.Contains(r.stdout, `"dns_servers": []`) {
		t.Errorf("no servers as JSON: %s", r.stdout)
	}
	r := run(t, setup(nil, errors.New("read servers: broken")), "doctor")
	r.expect(t, ExitOK, "Nothing is missing")
	if r.stderr != "egate: warning: DNS servers are not listed: read servers: broken\n" || strings.Contains(r.stdout, "DNS server") {
		t.Errorf("stderr %q, stdout %s", r.stderr, r.stdout)
	}
}

func TestHookNote(t *testing.T) {
	own, other := datapath.Program{ID: 1, Egate: true, Gate: "host"}, datapath.Program{ID: 2, Name: "x"}
	lab := datapath.Program{ID: 3, Egate: true, Gate: "lab"}
	for _, c := range []struct {
		name     string
		position int
		programs []datapath.Program
		want     string
	}{
		{"alone", 1, []datapath.Program{own}, ""},
		{"in front", 1, []datapath.Program{own, other}, ""},
		{"behind another gate", 2, []datapath.Program{lab, own}, ""},
		{"behind another program", 2, []datapath.Program{other, own}, "x#2 before egate/host: "},
		{"detached", 0, []datapath.Program{other}, "gate host is not attached here any more"},
	} {
		got := hookNote("host", &datapath.HookStatus{Attached: c.position > 0, Position: c.position, Programs: c.programs})
		if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

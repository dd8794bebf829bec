package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/cli"
	"egate/internal/datapath"
)

// learned reads `egate status --names -o json`.
func (e *egate) learned() map[string]datapath.NameStatus {
	e.t.Helper()
	var report cli.StatusReport
	if err := json.Unmarshal([]byte(e.run("status", "--names", "-o", "json")), &report); err != nil {
		e.t.Fatalf("parse egate status --names: %v", err)
	}
	all := map[string]datapath.NameStatus{}
	for _, n := range report.Gates[0].Learned {
		all[n.Name] = n
	}
	return all
}

// TestStatusOfNames: what was learned, for how long, for whom, and who uses it.
func TestStatusOfNames(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveLines(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("reject", listedRule, `name: exact, action: allow, to: {domains: [a1.n.test], ports: [tcp/443]}`)))
	asked := time.Now()
	addrs := map[string][]netip.Addr{}
	for _, name := range []string{"a1.n.test", "a2.ttl1.n.test", "a3.ttl900000.n.test", "a4.ttl0.N.Test", "a5.u.test"} {
		addrs[strings.ToLower(name)] = w.look(name)
	}
	answered := time.Now()
	for _, to := range addrs["a1.n.test"] {
		w.converse(to, servicePort).say(t, "hello")
	}
	got := w.learned()
	for _, c := range []struct {
		name        string
		life        time.Duration
		rules       []string
		connections int
	}{
		{"a1.n.test", 300 * time.Second, []string{"listed", "exact"}, 2},
		// A minute is the least: a name is looked up some time before it is used.
		{"a2.ttl1.n.test", time.Minute, []string{"listed"}, 0},
		{"a4.ttl0.n.test", time.Minute, []string{"listed"}, 0},
		{"a3.ttl900000.n.test", 24 * time.Hour, []string{"listed"}, 0},
	} {
		n, ok := got[c.name]
		if !ok {
			t.Errorf("status --names does not list %s", c.name)
			continue
		}
		if !slices.Equal(n.Rules, c.rules) || n.Connections != c.connections {
			t.Errorf("%s: rules %q, %d connections; want %q, %d", c.name, n.Rules, n.Connections, c.rules, c.connections)
		}
		var found []netip.Addr
		for _, a := range n.Addresses {
			found = append(found, a.Address)
			// The kernel reads a coarse clock; wall time and its own are compared by egate.
			const exact = 100 * time.Millisecond
			if a.Expires.Before(asked.Add(c.life-exact)) || a.Expires.After(answered.Add(c.life+exact)) {
				t.Errorf("%s: %v is open until %v, %v after it was asked for; want %v", c.name, a.Address, a.Expires, a.Expires.Sub(asked), c.life)
			}
		}
		if want := addrs[c.name]; !slices.Equal(found, want) {
			t.Errorf("%s: addresses %v, want %v", c.name, found, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("status --names lists %d names, want 4: %v", len(got), got)
	}
	for _, args := range [][]string{{"status"}, {"status", "--names"}} {
		if text := w.run(args...); !strings.Contains(text, "a1.n.test") {
			t.Errorf("egate %q does not show a1.n.test:\n%s", args, text)
		}
	}
	w.run("off")
}

// TestEventsOfNames: an event tells the name that it is about.
func TestEventsOfNames(t *testing.T) {
	t.Parallel()
	w, _ := newWebWorld(t)
	w.apply(policyFor("veth0", egress("reject\nevents: all", readyRule, webRule+", events: all")) + dnsSection("names: listed"))
	p := w.netns.Start("env", w.command("events", "-o", "json")...)
	type named struct{ Name, Reason, Action, Rule string }
	read := func() (all []named) {
		for line := range strings.Lines(p.Output()) {
			var ev named
			if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &ev) != nil {
				break
			}
			if ev.Rule != "ready" {
				all = append(all, ev)
			}
		}
		return all
	}
	eventually(t, 10*time.Second, "a first event", func() bool {
		burst(t, w.netns, netip.AddrPortFrom(w.serverAddr()[0], 9), 1)
		return p.Output() != ""
	})
	to := w.look("a1.n.test")[0]
	if _, _, err := w.ask(query{name: "Secret.u.test"}); err != nil {
		t.Fatal(err)
	}
	if got := w.talk(to, 80, "GET / HTTP/1.1\r\nHost: a1.n.test\r\n\r\n"); got != passes {
		t.Fatalf("a request with the right name %s", got)
	}
	if got := w.talk(to, 80, "GET / HTTP/1.1\r\nHost: a1.u.test\r\n\r\n"); got != reset {
		t.Fatalf("a request with a wrong name %s", got)
	}
	for _, want := range []named{
		{"a1.n.test", "rule", "allow", "web"},
		{"secret.u.test", "dns-unlisted", "reject", ""},
		{"a1.u.test", "name-mismatch", "reject", ""},
	} {
		eventually(t, 5*time.Second, fmt.Sprintf("an event %+v", want), func() bool {
			return slices.ContainsFunc(read(), func(ev named) bool {
				return ev.Name == want.Name && ev.Reason == want.Reason && ev.Action == want.Action && (want.Rule == "" || ev.Rule == want.Rule)
			})
		})
	}
	w.run("off")
}

// TestExplainNames: explain says of a packet with a name what the gate does.
func TestExplainNames(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	policy := policyFor("veth0", egress("reject", listedRule)) + dnsSection()
	w.apply(policy)
	file := w.file(policy)
	for _, c := range []struct {
		name   string
		asked  bool
		action string
		want   outcome
	}{
		{"a1.n.test", true, "allow", passes},
		{"a2.u.test", true, "reject", refused},
		{"", false, "reject", refused},
	} {
		n := 9
		if c.asked {
			w.look(c.name)
			n = int(c.name[1] - '0')
		}
		v4, v6 := numbered(n)
		for i, to := range []netip.Addr{v4, v6} {
			w.reach(to, c.want)
			packet := fmt.Sprintf("tcp %v -> %v", netip.AddrPortFrom(w.clientAddr()[i], 40000), netip.AddrPortFrom(to, servicePort))
			if c.name != "" {
				packet += " name=" + c.name
			}
			text := w.run("explain", file, packet)
			if !strings.Contains("\n"+text, "\n"+c.action+" ") {
				t.Errorf("explain %s: want %s\n%s", packet, c.action, text)
			}
		}
	}
	w.run("off")
}

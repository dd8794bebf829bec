package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/internal/testutil"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// webRule is the rule of most tests of requests.
const webRule = `name: web, action: allow, to: {domains: ["*.n.test"], ports: [tcp/443, tcp/80]}`

// newWebWorld has servers of HTTP and HTTPS behind every name.
func newWebWorld(t *testing.T) (*nameWorld, *authority) {
	t.Helper()
	w, ca := newNameWorld(t), newAuthority(t)
	serveHTTP(t, w.server.Netns, 80)
	serveHTTPS(t, w.server.Netns, 443, ca.certificate(t, "*.n.test", "*.m.test", "*.u.test"))
	return w, ca
}

// look asks for both addresses of a name.
func (w *nameWorld) look(name string) []netip.Addr {
	w.t.Helper()
	return append(w.mustAsk(query{name: name}), w.mustAsk(query{name: name, qtype: dns.TypeAAAA})...)
}

// reset is what a client sees whose connection is refused after it was made.
const reset outcome = "is reset"

// tlsClient does a handshake with an address under a name; an empty name sends
// none. Pieces are the bytes of a segment, 0 for as many as there are.
func (w *nameWorld) tlsClient(to netip.Addr, name string, pieces int, config *tls.Config) (outcome, time.Duration) {
	w.t.Helper()
	limit := testutil.Patience(longWait)
	raw, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(to, 443), limit)
	if err != nil {
		return outcomeOf(err), 0
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(limit))
	config.ServerName = name
	if name == "" {
		config.InsecureSkipVerify = true
	}
	c := raw
	if pieces > 0 {
		c = inPieces{raw, pieces}
	}
	begin := time.Now()
	err = tls.Client(c, config).Handshake()
	took := time.Since(begin)
	var rejected *tls.ECHRejectionError
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reset, took
	case errors.As(err, &rejected):
		return passes, took // the server has no key: it has spoken
	}
	return outcomeOf(err), took
}

// TestServerNames: a connection to an address that a name has opened is one to
// that name, or it is reset.
func TestServerNames(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	w.apply(policyFor("veth0", egress("reject", webRule)))
	addrs := w.look("a1.n.test")
	w.look("a1.u.test") // the same addresses, of a name that is not listed
	_, vm := testutil.InVM()
	for i, c := range []struct {
		about  string
		name   string
		pieces int
		config *tls.Config
		want   outcome
		reason string
	}{
		{"its name", "a1.n.test", 0, &tls.Config{}, passes, ""},
		{"its name in capitals", "A1.N.TEST", 0, &tls.Config{}, passes, ""},
		{"another name of the rule", "a2.n.test", 0, &tls.Config{}, passes, ""},
		{"TLS 1.2", "a1.n.test", 0, &tls.Config{MaxVersion: tls.VersionTLS12}, passes, ""},
		{"a small ClientHello", "a1.n.test", 0, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, passes, ""},
		{"in segments of 1 byte", "a1.n.test", 1, &tls.Config{}, passes, ""},
		{"in segments of 100 bytes", "a1.n.test", 100, &tls.Config{}, passes, ""},
		{"a name that is not listed", "a1.u.test", 0, &tls.Config{}, reset, "name-mismatch"},
		{"that over TLS 1.2", "a1.u.test", 0, &tls.Config{MaxVersion: tls.VersionTLS12}, reset, "name-mismatch"},
		{"that in segments of 1 byte", "a1.u.test", 1, &tls.Config{}, reset, "name-mismatch"},
		{"that in segments of 100 bytes", "a1.u.test", 100, &tls.Config{}, reset, "name-mismatch"},
		{"the name above a wildcard", "n.test", 0, &tls.Config{}, reset, "name-mismatch"},
		{"no name", "", 0, &tls.Config{}, reset, "name-mismatch"},
	} {
		addrs := addrs
		if vm { // where each look at the counters takes its time
			addrs = addrs[i%2 : i%2+1]
		}
		for _, to := range addrs {
			t.Run(fmt.Sprintf("%s, %v", c.about, to), func(t *testing.T) {
				w := w.in(t)
				best, limit := time.Hour, testutil.Patience(atOnce)
				if c.want == passes {
					limit = time.Hour
				}
				for tries := 0; tries == 0 || tries < 10 && best > limit; tries++ {
					config := c.config.Clone()
					config.RootCAs = ca.pool
					before := countersOf(w.status("host"))
					got, took := w.tlsClient(to, c.name, c.pieces, config)
					best = min(best, took)
					if got != c.want {
						t.Fatalf("%v under %q %s after %v, want that it %s", to, c.name, got, took, c.want)
					}
					after := countersOf(w.status("host"))
					for _, reason := range []string{"name-mismatch", "name-unreadable"} {
						n := after["egress: "+reason] - before["egress: "+reason]
						switch {
						case reason != c.reason && n != 0:
							t.Errorf("%d packets are stopped for %s, want none", n, reason)
						// A ClientHello with a key that is safe against quantum computers is two
						// segments; what comes in pieces goes on until the reset is there.
						case reason == c.reason && (n < 1 || n > 2 && c.pieces == 0):
							t.Errorf("%d packets are stopped for %s, want 1 or 2", n, reason)
						}
					}
				}
				if best > limit {
					t.Errorf("reset after %v at best, want %v", best, limit)
				}
			})
		}
	}
	t.Run("not TLS", func(t *testing.T) {
		w := w.in(t)
		for _, first := range []string{"SSH-2.0-OpenSSH_9.2\r\n", "CONNECT a1.n.test:443 HTTP/1.1\r\n\r\n", "\x00"} {
			before := countersOf(w.status("host"))
			if got := w.talk(addrs[0], 443, first); got != reset {
				t.Errorf("%q %s, want that it %s", first, got, reset)
			}
			if n := countersOf(w.status("host"))["egress: name-unreadable"] - before["egress: name-unreadable"]; n != 1 {
				t.Errorf("%q: %d packets are stopped for name-unreadable, want 1", first, n)
			}
		}
	})
	w.run("off")
}

// talk connects, says something and waits for an answer.
func (w *nameWorld) talk(to netip.Addr, port uint16, text string) outcome {
	w.t.Helper()
	limit := testutil.Patience(longWait)
	c, err := dial(w.client.Netns, "tcp", netip.AddrPortFrom(to, port), limit)
	if err != nil {
		return outcomeOf(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if _, err = io.WriteString(c, text); err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return reset
	}
	return outcomeOf(err)
}

// TestServerNamesOfTools: what TestServerNames shows of one client holds for the
// programs that people use.
func TestServerNamesOfTools(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	w.apply(policyFor("veth0", egress("reject", webRule)))
	addrs := w.look("a1.n.test")
	if _, vm := testutil.InVM(); vm {
		addrs = addrs[1:]
	}
	seconds := fmt.Sprint(int(testutil.Patience(longWait).Seconds()))
	judge := func(r testutil.Result, words ...string) outcome {
		switch {
		case r.Code == 0:
			return passes
		case hasAny(r.Stdout+r.Stderr, words...):
			return reset
		}
		return outcome(fmt.Sprintf("exits with %d: %s%s", r.Code, r.Stdout, r.Stderr))
	}
	for _, c := range []struct {
		tool string
		args []string
		try  func(w *nameWorld, args []string, to netip.Addr, name string) outcome
	}{
		{"curl", []string{"--tlsv1.3"}, nil}, {"curl", []string{"--tls-max", "1.2"}, nil},
		{"openssl", []string{"-tls1_3"}, nil}, {"openssl", []string{"-tls1_2"}, nil},
		{"gnutls-cli", []string{"--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3"}, nil}, {"gnutls-cli", []string{"--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2"}, nil},
	} {
		t.Run(c.tool+" "+strings.Join(c.args, " "), func(t *testing.T) {
			w := w.in(t)
			program := need(t, c.tool)
			for _, to := range addrs {
				for name, want := range map[string]outcome{"a1.n.test": passes, "a1.u.test": reset} {
					before := countersOf(w.status("host"))
					var got outcome
					switch c.tool {
					case "curl":
						bracketed := to.String()
						if to.Is6() {
							bracketed = "[" + bracketed + "]"
						}
						args := append(c.args, "--silent", "--show-error", "--noproxy", "*", "--max-time", seconds, "--cacert", ca.file,
							"--resolve", name+":443:"+bracketed, "https://"+name+"/")
						got = judge(w.client.Netns.Try(program, args...), "reset by peer", "SSL_ERROR_SYSCALL")
					case "openssl":
						args := append([]string{"s_client"}, c.args...)
						args = append(args, "-connect", netip.AddrPortFrom(to, 443).String(), "-servername", name, "-CAfile", ca.file, "-verify_return_error", "-ign_eof")
						// It ends when the server does, after its answer.
						script := `printf 'GET / HTTP/1.0\r\n\r\n' | timeout ` + seconds + ` "$0" "$@"`
						got = judge(w.client.Netns.Try("sh", append([]string{"-c", script, program}, args...)...), "errno=104", "errno = 104", "reset by peer")
					case "gnutls-cli":
						args := append(c.args, "--x509cafile="+ca.file, "--port=443", "--sni-hostname="+name, "--verify-hostname="+name, to.String())
						script := `printf 'GET / HTTP/1.0\r\n\r\n' | timeout ` + seconds + ` "$0" "$@"`
						got = judge(w.client.Netns.Try("sh", append([]string{"-c", script, program}, args...)...), "Error in the push function", "Error in the pull function", "reset by peer")
					}
					if got != want {
						t.Errorf("%s %v to %v under %s %s, want that it %s", c.tool, c.args, to, name, got, want)
					}
					mismatches := countersOf(w.status("host"))["egress: name-mismatch"] - before["egress: name-mismatch"]
					if (want == reset) != (mismatches == 1) || mismatches > 1 {
						t.Errorf("%d packets to %v under %s are stopped for name-mismatch", mismatches, to, name)
					}
				}
			}
		})
	}
	w.run("off")
}

// TestHosts: plain HTTP is held to its Host as TLS to its server name.
func TestHosts(t *testing.T) {
	t.Parallel()
	w, _ := newWebWorld(t)
	w.apply(policyFor("veth0", egress("reject", webRule)))
	for _, to := range w.look("a1.n.test") {
		before, want := countersOf(w.status("host")), map[string]uint64{}
		for _, c := range []struct {
			request string
			want    outcome
			reason  string
		}{
			{"GET / HTTP/1.1\r\nHost: a1.n.test\r\n\r\n", passes, ""},
			{"POST /x HTTP/1.1\r\nAccept: */*\r\nhOST:A1.n.test:80\r\nContent-Length: 0\r\n\r\n", passes, ""},
			{"GET / HTTP/1.0\nHost: a2.n.test\n\n", passes, ""},
			{"GET / HTTP/1.1\r\nHost: a1.u.test\r\n\r\n", reset, "name-mismatch"},
			{"GET / HTTP/1.1\r\nHost: " + to.String() + "\r\n\r\n", reset, "name-mismatch"},
			{"GET / HTTP/1.0\r\n\r\n", reset, "name-mismatch"},
			{"GET / HTTP/1.1\r\nHost: a1.n.test\r\nHost: a1.u.test\r\n\r\n", reset, "name-unreadable"},
			{"GET http://a1.u.test/ HTTP/1.1\r\nHost: a1.n.test\r\n\r\n", reset, "name-unreadable"},
			{"CONNECT a1.u.test:443 HTTP/1.1\r\nHost: a1.n.test\r\n\r\n", reset, "name-unreadable"},
			{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", reset, "name-unreadable"},
		} {
			if got := w.talk(to, 80, c.request); got != c.want {
				t.Errorf("%q to %v %s, want that it %s", c.request, to, got, c.want)
			}
			if c.reason != "" {
				want[c.reason]++
			}
		}
		after := countersOf(w.status("host"))
		for reason, n := range want {
			if got := after["egress: "+reason] - before["egress: "+reason]; got != n {
				t.Errorf("%v: %d packets are stopped for %s, want %d", to, got, reason, n)
			}
		}
	}
	w.run("off")
}

// TestNamesThatShareAnAddress: each name of an address has its rule.
func TestNamesThatShareAnAddress(t *testing.T) {
	t.Parallel()
	w, ca := newWebWorld(t)
	w.apply(policyFor("veth0", egress("reject",
		`name: first, action: allow, to: {domains: [a5.n.test], ports: [tcp/443, tcp/8080]}`,
		`name: second, action: allow, to: {domains: ["*.m.test"], ports: [tcp/443]}`)))
	addrs := w.look("a5.n.test")
	w.look("a5.m.test")
	if len(addrs) != 2 {
		t.Fatalf("%d addresses, want 2", len(addrs))
	}
	for _, to := range addrs {
		before := countersOf(w.status("host"))
		for _, name := range []string{"a5.m.test", "a5.n.test"} {
			if got, _ := w.tlsClient(to, name, 0, &tls.Config{RootCAs: ca.pool}); got != passes {
				t.Errorf("%v under %s %s, want that it %s", to, name, got, passes)
			}
			after := countersOf(w.status("host"))
			// The first packets of every connection are the first rule's, those from the
			// request on are of the rule that lists its name.
			rule, other := "first", "second"
			if name == "a5.m.test" {
				rule, other = "second", "first"
			}
			key := func(rule string) string { return "egress " + rule + " allowed" }
			if n := after[key(rule)] - before[key(rule)]; n < 3 {
				t.Errorf("%s has let %d packets pass to %v under %s, want the connection", rule, n, to, name)
			}
			if n := after[key(other)] - before[key(other)]; n > 2 {
				t.Errorf("%s has let %d packets pass to %v under %s, want a SYN and an ACK at the most", other, n, to, name)
			}
			before = after
		}
		if got, _ := w.tlsClient(to, "a5.u.test", 0, &tls.Config{RootCAs: ca.pool}); got != reset {
			t.Errorf("%v under a5.u.test %s, want that it %s", to, got, reset)
		}
	}
	w.run("off")
}

// TestNamesThatAreDropped: rules that drop can name names as well, under a
// default that lets all else pass.
func TestNamesThatAreDropped(t *testing.T) {
	t.Parallel()
	w := newNameWorld(t)
	serveSink(t, w.server.Netns, servicePort)
	w.apply(policyFor("veth0", egress("allow",
		`name: good, action: allow, to: {domains: [a3.n.test], ports: [tcp/8080]}`,
		`name: ads, action: drop, to: {domains: ["*.n.test"]}`)))
	for name, want := range map[string]outcome{"a1.n.test": silent, "a2.u.test": passes, "a3.n.test": passes} {
		for _, to := range w.look(name) {
			w.reach(to, want)
		}
	}
	v4, _ := numbered(4)
	w.reach(v4, passes) // nobody has asked for its name
	w.run("off")
}

// TestEncryptedClientHello: the outer name is held to the rule; with ech: drop
// there must not be an inner one.
func TestEncryptedClientHello(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ech   string
		outer string
		want  outcome
		why   string
	}{
		{"allow", "a1.n.test", passes, ""},
		{"allow", "a1.u.test", reset, "name-mismatch"},
		{"drop", "a1.n.test", reset, "ech"},
	} {
		t.Run(c.ech+" "+c.outer, func(t *testing.T) {
			t.Parallel()
			w, ca := newWebWorld(t)
			w.apply(policyFor("veth0", egress("reject", webRule+", ech: "+c.ech)))
			for _, to := range w.look("a1.n.test") {
				before := countersOf(w.status("host"))
				got, _ := w.tlsClient(to, "a2.u.test", 0, &tls.Config{RootCAs: ca.pool, EncryptedClientHelloConfigList: echConfigs(t, c.outer)})
				if got != c.want {
					t.Errorf("%v %s, want that it %s", to, got, c.want)
				}
				if c.why != "" && countersOf(w.status("host"))["egress: "+c.why] == before["egress: "+c.why] {
					t.Errorf("not counted for %s; all counters:\n  %s", c.why, countersOf(w.status("host")))
				}
				if got, _ := w.tlsClient(to, "a1.n.test", 0, &tls.Config{RootCAs: ca.pool}); got != passes {
					t.Errorf("%v without an encrypted ClientHello %s, want that it %s", to, got, passes)
				}
			}
			w.run("off")
		})
	}
}

// TestQUIC: with quic: drop a client learns at once that it has to use TCP.
func TestQUIC(t *testing.T) {
	t.Parallel()
	for quic, want := range map[string]outcome{"allow": passes, "drop": refused} {
		t.Run(quic, func(t *testing.T) {
			t.Parallel()
			w, ca := newWebWorld(t)
			v4, v6 := numbered(1)
			setUp(t, w.server.Netns, "lo", netip.PrefixFrom(v6, 128))
			for _, a := range []netip.Addr{v4, v6} {
				serveEchoAt(t, w.server.Netns, netip.AddrPortFrom(a, 443))
			}
			w.applyWarned(policyFor("veth0", egress("reject", `name: web, action: allow, to: {domains: ["*.n.test"], ports: [443]}, quic: `+quic)))
			for _, to := range w.look("a1.n.test") {
				echo(443, 1200).check(t, w.client.Netns, to, want)
				if got, _ := w.tlsClient(to, "a1.n.test", 0, &tls.Config{RootCAs: ca.pool}); got != passes {
					t.Errorf("TLS over TCP to %v %s, want that it %s", to, got, passes)
				}
			}
			if n := countersOf(w.status("host"))["egress: quic"]; (n == 2) != (want == refused) {
				t.Errorf("%d packets are stopped for quic", n)
			}
			w.run("off")
		})
	}
}

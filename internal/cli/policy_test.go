package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"egate/internal/tables"
)

const goodPolicy = `version: 1
name: web-server
interfaces: [eth0]
sets:
  office: {addresses: [10.0.0.0/8, 2001:db8::/32]}
egress:
  default: drop
  rules:
    - name: no-ping
      action: reject
      to: {icmp: [echo-request]}
    - name: count-dns
      action: continue
      to: {ports: [udp/53]}
    - name: office
      action: allow
      to: {sets: [office]}
    - name: web
      action: allow
      to: {ports: [tcp/80, tcp/443]}
ingress:
  default: allow
`

const badPolicy = `version: 1
egress:
  default: drop
  rules:
    - name: web
      acton: allow
    - name: far
      action: allow
      to: {ports: [70000]}
`

const warnedPolicy = `version: 1
egress:
  default: allow
  rules:
    - name: all-tcp
      action: drop
      to: {protocols: [tcp]}
    - name: never
      action: allow
      to: {ports: [tcp/443]}
`

func TestCheck(t *testing.T) {
	for _, width := range []int{60, 80, 120} {
		r := runWith(t, goodPolicy, func(a *app) { a.width = func() int { return width } }, "check", "-v", "-")
		r.expect(t, ExitOK)
		golden(t, fmt.Sprintf("check.%d.golden", width), r.stdout)
	}
}

func TestCheckReadsStandardInput(t *testing.T) {
	runWith(t, goodPolicy, nil, "check", "-").expect(t, ExitOK, "stdin: policy web-server is good")
	runWith(t, badPolicy, nil, "check", "-").expect(t, ExitRefused, "stdin:6:7: error: ")
}

func TestCheckPrintsAllErrorsAndTheirCount(t *testing.T) {
	file := policyFile(t, badPolicy)
	r := run(t, nil, "check", file)
	r.expect(t, ExitRefused, file+":6:7: error: ", file+":9:20: error: ", "egate: 3 errors in "+file)
	if r.stdout != "" {
		t.Errorf("standard output: %s", r.stdout)
	}
	for _, command := range []string{"apply", "explain"} {
		args := []string{command, file, "arp"}
		if command == "apply" {
			args = args[:2]
		}
		run(t, nil, args...).expect(t, ExitRefused, file+":6:7: error: ", "egate: 3 errors in "+file)
	}
}

func TestCheckWarns(t *testing.T) {
	file := policyFile(t, warnedPolicy)
	r := run(t, nil, "check", file)
	r.expect(t, ExitOK, "is good")
	if !strings.Contains(r.stderr, file+":8:7: warning: ") {
		t.Errorf("no warning of the rule that never matches: %s", r.stderr)
	}
}

func TestCheckJSON(t *testing.T) {
	var report CheckReport
	r := run(t, nil, "check", "-o", "json", policyFile(t, badPolicy))
	if r.code != ExitRefused {
		t.Errorf("exit code %d for a bad policy", r.code)
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.OK || len(report.Problems) != 3 || report.Problems[1].Line != 6 || report.Problems[0].Severity != "error" {
		t.Errorf("report of a bad policy: %+v", report)
	}
	report = CheckReport{}
	r = run(t, nil, "check", "-v", "-o", "json", policyFile(t, goodPolicy))
	r.expect(t, ExitOK)
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || report.Policy != "web-server" || report.Sizes == nil || len(report.Problems) != 0 ||
		len(report.Chains) != 2 || report.Chains[0].Rules != 4 || len(report.Chains[0].PassesAnyway) == 0 || report.Chains[1].PassesAnyway != nil {
		t.Errorf("report of a good policy: %s", r.stdout)
	}
	if !strings.Contains(r.stdout, `"problems": []`) {
		t.Errorf("problems is not a list where there are none: %s", r.stdout)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, args := range [][]string{{"check", missing}, {"apply", missing}, {"explain", missing, "arp"}} {
		run(t, nil, args...).expect(t, ExitRefused, "egate: read "+missing+": no such file or directory")
	}
	run(t, nil, "check", t.TempDir()).expect(t, ExitRefused, "is a directory")
	run(t, nil, "explain", policyFile(t, goodPolicy), "--pcap", missing).expect(t, ExitRefused, missing)
	noCapture := policyFile(t, goodPolicy)
	run(t, nil, "explain", noCapture, "--pcap", noCapture).expect(t, ExitRefused, "read capture")
}

func TestExplain(t *testing.T) {
	file := policyFile(t, goodPolicy)
	for _, width := range []int{60, 80, 120} {
		r := run(t, func(a *app) { a.width = func() int { return width } }, "explain", file, "udp 10.0.0.5:40000 -> 10.0.0.9:53")
		r.expect(t, ExitOK, "allow         rule office (line 15)", "continue      rule count-dns")
		golden(t, fmt.Sprintf("explain.%d.golden", width), r.stdout)
	}
	for _, c := range []struct {
		packet string
		flags  []string
		want   string
	}{
		{"icmp 10.0.0.5 -> 192.0.2.1 echo-request", nil, "reject        rule no-ping (line 9)"},
		{"icmpv6 2001:db8::5 -> 2001:db9::1 echo-request", nil, "reject        rule no-ping (line 9)"},
		{"tcp 10.0.0.5:22 -> 192.0.2.1:40000 flags=A", nil, "drop          default"},
		{"tcp 10.0.0.5:22 -> 192.0.2.1:40000 flags=A", []string{"--reply"}, "allow         reply"},
		{"tcp 10.0.0.5:22 -> 192.0.2.1:40000 flags=A reply", nil, "allow         reply"},
		{"tcp 192.0.2.1:40000 -> 10.0.0.5:22 in", nil, "allow         default"},
		{"arp", nil, "allow         control-frame"},
	} {
		args := append([]string{"explain", file, c.packet}, c.flags...)
		run(t, nil, args...).expect(t, ExitOK, c.want)
	}
}

func TestExplainJSON(t *testing.T) {
	r := run(t, nil, "explain", "-o", "json", policyFile(t, goodPolicy), "tcp 10.0.0.5:40000 -> 192.0.2.1:443")
	r.expect(t, ExitOK)
	var e Explanation
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
		t.Fatal(err)
	}
	if e.Verdict != "allow" || e.Trace.Rule == nil || e.Trace.Rule.Label != "web" || e.Packet != "tcp 10.0.0.5:40000 -> 192.0.2.1:443" {
		t.Errorf("explanation: %s", r.stdout)
	}
}

const mergedPolicy = `version: 1
egress:
  default: allow
  rules:
    - {name: office, action: allow, to: {addresses: [10.0.0.0/8]}}
    - {action: drop, to: {addresses: [203.0.113.0/24]}}
    - {action: drop, to: {addresses: [198.51.100.7]}}
    - {action: drop, to: {addresses: ["2001:db8::/32"]}}
`

// Merged rules are told as one, with the rule of the file that a packet meets.
func TestMergedRules(t *testing.T) {
	file := policyFile(t, mergedPolicy)
	const packet = "udp 10.0.0.5:40000 -> 198.51.100.7:53"
	run(t, nil, "check", file).expect(t, ExitOK, "4 egress rules and 0 ingress rules", "egress: 4 rules, merged to 2, default allow")
	run(t, nil, "explain", file, packet).expect(t, ExitOK,
		"egress        4 rules merged to 2, default allow", "1 rule left: #2-4", "drop          rule #2-4 (lines 6-8): it is rule #3 (line 7)")
	run(t, nil, "explain", file, "udp 192.0.2.1:1 -> 10.0.0.5:53").expect(t, ExitOK, "allow         rule office (line 5)\n")

	var checked CheckReport
	if err := json.Unmarshal([]byte(run(t, nil, "check", "-o", "json", file).stdout), &checked); err != nil {
		t.Fatal(err)
	}
	if c := checked.Chains; c[0].Rules != 4 || c[0].MergedTo != 2 || c[1].MergedTo != 0 {
		t.Errorf("chains %+v", c)
	}
	var e Explanation
	if err := json.Unmarshal([]byte(run(t, nil, "explain", "-o", "json", file, packet).stdout), &e); err != nil {
		t.Fatal(err)
	}
	want := tables.RuleRef{Index: 1, Label: "#2-4", Action: "drop", Line: 6, Merged: 3, LastLine: 8, Matched: &tables.MemberRef{Index: 2, Line: 7}}
	if e.Rules != 4 || e.MergedTo != 2 || !reflect.DeepEqual(e.Trace.Rule, &want) {
		t.Errorf("explanation %+v of rule %+v, want %+v", e, e.Trace.Rule, want)
	}
}

// Too many rules are an error with a place, as others are.
func TestTooManyRules(t *testing.T) {
	text := "version: 1\negress:\n  default: drop\n  rules:\n"
	for i := range 4098 {
		text += fmt.Sprintf("  - {name: n%d, action: allow, to: {ports: [53]}}\n", i)
	}
	file := policyFile(t, text)
	const want = ":4101:6: error: egress: 4098 rules, at most 4096; put the addresses of rules that are treated alike into a set, or drop names that need no counter of their own"
	run(t, nil, "check", file).expect(t, ExitRefused, file+want, "egate: 1 error in "+file)
	r := run(t, nil, "check", "-o", "json", file)
	if r.code != ExitRefused || !strings.Contains(r.stdout, `"ok": false`) || !strings.Contains(r.stdout, `"line": 4101`) {
		t.Errorf("exit code %d, %s", r.code, r.stdout)
	}
}

func TestExplainCapture(t *testing.T) {
	file := policyFile(t, goodPolicy)
	capture := writeCapture(t)
	r := run(t, nil, "explain", file, "--pcap", capture)
	r.expect(t, ExitOK, "3 packets: 1 allowed, 1 dropped, 1 rejected")
	golden(t, "explain-capture.golden", r.stdout)
	run(t, nil, "explain", file, "--pcap", capture, "--packet", "2").expect(t, ExitOK, "reject        rule no-ping")
	run(t, nil, "explain", file, "--pcap", capture, "--packet", "4").expect(t, ExitRefused, "it has 3 packets, none with number 4")
	lines := strings.Split(strings.TrimSpace(run(t, nil, "explain", file, "--pcap", capture, "-o", "json").stdout), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines of JSON, want 3", len(lines))
	}
	for i, line := range lines {
		var e Explanation
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Number != i+1 {
			t.Errorf("line %d: %v: %s", i+1, err, line)
		}
	}
	run(t, nil, "explain", file, "--pcap", capture, "--direction", "ingress").expect(t, ExitOK, "3 packets: 3 allowed")
	text, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	stdin := func(a *app) { a.stdin = bytes.NewReader(text) }
	if piped := run(t, stdin, "explain", file, "--pcap", "-"); piped.stdout != r.stdout {
		t.Errorf("from standard input it prints\n%s", piped.stdout)
	}
}

// writeCapture writes a pcap file of raw IPv4 packets: an HTTPS request, a ping
// and a DNS question, which the good policy allows, rejects and drops.
func writeCapture(t *testing.T) string {
	t.Helper()
	packets := [][]byte{
		ipv4(6, []byte{0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}),
		ipv4(1, []byte{8, 0, 0, 0, 0, 1, 0, 1}),
		ipv4(17, []byte{0x9c, 0x40, 0x00, 0x35, 0, 8, 0, 0}),
	}
	out := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0}
	for _, p := range packets {
		n := byte(len(p))
		out = append(out, 0, 0, 0, 0, 0, 0, 0, 0, n, 0, 0, 0, n, 0, 0, 0)
		out = append(out, p...)
	}
	file := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func ipv4(proto byte, payload []byte) []byte {
	header := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0x40, 0, 64, proto, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7}
	return append(header, payload...)
}

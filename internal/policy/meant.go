package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What people write who come from other tools, and what this language calls it.
var (
	actionsElsewhere = map[string]string{
		"accept": "allow", "pass": "allow", "permit": "allow", "return": "allow",
		"deny": "drop", "block": "drop", "discard": "drop", "refuse": "reject",
		"log": "continue", "count": "continue",
	}
	protocolsElsewhere = map[string]string{"ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "ipencap": "ipip", "ipsec": "esp"}
	icmpElsewhere      = map[string]string{"ping": "echo-request", "ping6": "echo-request", "echo": "echo-request", "pong": "echo-reply"}

	servicePorts = map[string]int{
		"dns": 53, "domain": 53, "ftp": 21, "http": 80, "https": 443, "imap": 143, "imaps": 993, "ldap": 389, "ldaps": 636,
		"mysql": 3306, "ntp": 123, "postgresql": 5432, "rdp": 3389, "redis": 6379, "smtp": 25, "smtps": 465, "snmp": 161,
		"ssh": 22, "submission": 587, "syslog": 514, "telnet": 23,
	}

	everything  = []string{"*", "all", "any"}
	portFirst   = regexp.MustCompile(`^(\d+(?:-\d+)?)[/:](tcp|udp|sctp)$`)
	portColon   = regexp.MustCompile(`^(tcp|udp|sctp):(\d+(?:-\d+)?)$`)
	rangeColon  = regexp.MustCompile(`^((?:(?:tcp|udp|sctp)/)?\d+):(\d+)$`)
	hostName    = regexp.MustCompile(`^[A-Za-z0-9_*-]+(\.[A-Za-z0-9_-]+)*\.[A-Za-z][A-Za-z-]*\.?$`)
	dottedMask  = regexp.MustCompile(`^[0-9.]+/(\d+)\.(\d+)\.(\d+)\.(\d+)$`)
	strayAnchor = regexp.MustCompile(`unknown anchor '([^']*)' referenced`)
)

// meantWord is a clause with the word of this language for one of another's,
// or "".
func meantWord(text string, words map[string]string, ours []string) string {
	lower := strings.ToLower(text)
	if slices.Contains(ours, lower) {
		return fmt.Sprintf("; did you mean %q?", lower)
	}
	if word := words[lower]; slices.Contains(ours, word) {
		return fmt.Sprintf("; did you mean %q?", word)
	}
	return ""
}

// meantPorts says how a port or range is written here, or "".
func meantPorts(text string) string {
	if slices.Contains(everything, text) {
		return "; every port is 0-65535"
	}
	if m := portFirst.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("; write %s/%s", m[2], m[1])
	}
	if m := portColon.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("; write %s/%s", m[1], m[2])
	}
	if m := rangeColon.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("; write %s-%s", m[1], m[2])
	}
	name := text[strings.IndexByte(text, '/')+1:]
	if port, ok := servicePorts[strings.ToLower(name)]; ok {
		return fmt.Sprintf("; %s is %s%d", shorten(text), strings.TrimSuffix(text, name), port)
	}
	if strings.ContainsAny(text, ", ") {
		return "; each port is an element of its own"
	}
	return ""
}

// meantAddress says how an address or prefix is written here, or "".
func meantAddress(text string) string {
	if slices.Contains(everything, text) {
		return "; every address is 0.0.0.0/0 and ::/0"
	}
	if m := dottedMask.FindStringSubmatch(text); m != nil {
		if bits, ok := maskBits(m[1:]); ok {
			return fmt.Sprintf("; write /%d", bits)
		}
		return ""
	}
	if len(text) <= 253 && hostName.MatchString(text) {
		return "; names belong in domains, of to or of a set"
	}
	return ""
}

// maskBits counts the leading ones of a netmask's four parts.
func maskBits(parts []string) (bits int, ok bool) {
	mask := uint32(0)
	for _, p := range parts {
		part, ok := decimal(p, 255)
		if !ok {
			return 0, false
		}
		mask = mask<<8 | uint32(part)
	}
	for mask&(1<<31) != 0 {
		bits, mask = bits+1, mask<<1
	}
	return bits, mask == 0
}

// meantProtocol is as meantWord, for `protocols`.
func meantProtocol(text string) string {
	if text == "ip" || slices.Contains(everything, text) {
		return "; leave protocols out to mean every protocol"
	}
	return meantWord(text, protocolsElsewhere, protocolNames())
}

// meantICMP is as meantWord, for `icmp`.
func meantICMP(text string) string {
	if slices.Contains(everything, text) {
		return "; write protocols: [icmp, icmpv6] to mean every message"
	}
	return meantWord(text, icmpElsewhere, icmpNames())
}

// meantBoolean is for the words that older versions of YAML took.
func meantBoolean(text string) string {
	switch strings.ToLower(text) {
	case "no", "off", "n", "false":
		return "; write false"
	case "yes", "on", "y", "true":
		return "; write true"
	}
	return ""
}

package datapath

import (
	"strings"
	"testing"
)

func TestTextOfWire(t *testing.T) {
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 3) + "\x3d" + strings.Repeat("b", 61) + "\x00"
	for _, c := range []struct {
		name, wire, want string
		bad              bool
	}{
		{"plain", "\x01a\x07example\x00", "a.example", false},
		{"root", "\x00", ".", false},
		{"longest", long, strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61), false},
		{"odd bytes", "\x06a.\\ \x00\xff\x00", `a\.\\\032\000\255`, false},
		{"empty", "", "", true},
		{"no root", "\x01a", "", true},
		{"label beyond the end", "\x05a\x00", "", true},
		{"behind the root", "\x00\x00", "", true},
		{"pointer", "\xc0\x0c", "", true},
	} {
		got, ok := textOfWire([]byte(c.wire), uint8(len(c.wire)))
		if got != c.want || ok == c.bad {
			t.Errorf("%s: %q, %v; want %q", c.name, got, ok, c.want)
		}
	}
}

// TestOutcomesAgree holds the names of DNS outcomes to the C enum.
func TestOutcomesAgree(t *testing.T) {
	values := cEnum(t, "egate_dns_outcome")
	if int(values["EGATE_DNS_OUTCOMES"]) != len(outcomes) || len(values)-1 != len(outcomes) {
		t.Errorf("%d outcomes in C, %d in Go", values["EGATE_DNS_OUTCOMES"], len(outcomes))
	}
	delete(values, "EGATE_DNS_OUTCOMES")
	for name, number := range values {
		want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "EGATE_DNS_")), "_", "-")
		if int(number) < len(outcomes) && outcomes[number].name != want {
			t.Errorf("%s = %d is %q in Go, want %q", name, number, outcomes[number].name, want)
		}
	}
	for _, o := range Outcomes() {
		if o.Outcome == "" || o.Text == "" {
			t.Errorf("outcome %q has text %q", o.Outcome, o.Text)
		}
	}
}

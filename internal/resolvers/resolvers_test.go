package resolvers

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHostServers(t *testing.T) {
	const upstream = "nameserver 10.0.0.53\nnameserver fe80::53%eth0\n"
	tests := []struct {
		name     string
		host     string // "-": there is no such file
		upstream string
		want     string
	}{
		{"plain", "search example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0\n", upstream, "192.0.2.53 2001:db8::53"},
		{"stub of systemd-resolved", "nameserver 127.0.0.53\noptions edns0 trust-ad\n", upstream, "10.0.0.53 127.0.0.53 fe80::53"},
		{"other stub", "nameserver ::1\n", "-", "::1"},
		{"stub beside a server", "nameserver 192.0.2.53\nnameserver 127.0.0.1\n", upstream, "10.0.0.53 127.0.0.1 192.0.2.53 fe80::53"},
		{"zone", "nameserver fe80::1%wlan0\n", upstream, "fe80::1"},
		{"unspecified is loopback", "nameserver 0.0.0.0\nnameserver ::\n", "-", "127.0.0.1 ::1"},
		{"mapped", "nameserver ::ffff:192.0.2.1\n", "-", "192.0.2.1"},
		{"twice", "nameserver 192.0.2.53\nnameserver 192.0.2.53\n", "-", "192.0.2.53"},
		{"passed over", "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nnameserver\nnameserver example.com\nnameservers 192.0.2.3\nnameserver 192.0.2.4 # x", "-", "192.0.2.4"},
		{"tabs and CRLF", "\tnameserver\t192.0.2.53\r\n", "-", "192.0.2.53"},
		{"empty", "", upstream, ""},
		{"no file", "-", upstream, ""},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			dir := t.TempDir()
			host, upstream := filepath.Join(dir, "host"), filepath.Join(dir, "upstream")
			write(t, host, tt.host)
			write(t, upstream, tt.upstream)
			servers, err := hostServers(host, upstream)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range servers {
				got = append(got, s.String())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if text == "-" {
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHostServersErrors(t *testing.T) {
	dir := t.TempDir()
	large, loopback := filepath.Join(dir, "large"), filepath.Join(dir, "loopback")
	write(t, large, strings.Repeat("# a comment\n", maxFileBytes/10))
	write(t, loopback, "nameserver 127.0.0.53\n")
	tests := []struct{ host, upstream, want string }{
		{dir, "", "read servers of DIR: read DIR: is a directory"},
		{large, "", "read servers of DIR/large: the file is larger than 1048576 bytes"},
		{loopback, dir, "read servers of DIR: read DIR: is a directory"},
	}
	for _, tt := range tests {
		servers, err := hostServers(tt.host, tt.upstream)
		if err == nil || servers != nil {
			t.Errorf("%s: got %v, want an error", tt.host, servers)
		} else if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// Known lists public unicast addresses, each once, of both families.
func TestKnown(t *testing.T) {
	known := Known()
	if !slices.IsSortedFunc(known, netip.Addr.Compare) {
		t.Error("not sorted")
	}
	if len(slices.Compact(slices.Clone(known))) != len(known) {
		t.Error("an address is listed twice")
	}
	for _, a := range known {
		if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is4In6() {
			t.Errorf("%v is no public address", a)
		}
	}
	for _, text := range []string{"8.8.8.8", "2606:4700:4700::1111", "9.9.9.9"} {
		if !slices.Contains(known, netip.MustParseAddr(text)) {
			t.Errorf("%s is missing", text)
		}
	}
	if !slices.IsSortedFunc(Services(), func(a, b Service) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) }) {
		t.Error("services are not sorted by name")
	}
}

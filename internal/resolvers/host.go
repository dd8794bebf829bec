// Package resolvers knows who answers DNS: the servers that this host uses, and
// public services that answer DNS over HTTPS. It stands beside stage 4, which
// fills the kernel's table of resolvers with them; it needs no privilege.
package resolvers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Where the C library and systemd-resolved keep the addresses of servers.
const (
	hostFile     = "/etc/resolv.conf"
	upstreamFile = "/run/systemd/resolve/resolv.conf"
	maxFileBytes = 1 << 20
)

// HostServers gives the servers that the host's programs ask: those of
// /etc/resolv.conf, sorted, without zones. Where one of them is a stub on
// loopback, it also gives those of /run/systemd/resolve/resolv.conf, which
// systemd-resolved asks in its turn; whom another stub asks (dnsmasq, unbound) it
// cannot tell. A host without these files has no servers, which is no error. What
// the C library would pass over in them, such as a line without an address, is
// passed over.
func HostServers() ([]netip.Addr, error) {
	return hostServers(hostFile, upstreamFile)
}

func hostServers(host, upstream string) ([]netip.Addr, error) {
	servers, err := readServers(host)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(servers, netip.Addr.IsLoopback) {
		more, err := readServers(upstream)
		if err != nil {
			return nil, err
		}
		servers = append(servers, more...)
	}
	slices.SortFunc(servers, netip.Addr.Compare)
	return slices.Compact(servers), nil
}

// readServers reads a file of the form of resolv.conf(5); none if it does not
// exist.
func readServers(path string) ([]netip.Addr, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read servers: %w", err)
	}
	defer f.Close()
	servers, err := parseServers(f)
	if err != nil {
		return nil, fmt.Errorf("read servers of %s: %w", path, err)
	}
	return servers, nil
}

func parseServers(r io.Reader) (servers []netip.Addr, err error) {
	limited := &io.LimitedReader{R: r, N: maxFileBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxFileBytes+1)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, reached(a))
		}
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("the file is larger than %d bytes", maxFileBytes)
	}
	return servers, lines.Err()
}

// reached is the address that packets to a server bear: a zone is not part of
// it, and who sends to the unspecified address reaches loopback.
func reached(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	switch {
	case !a.IsUnspecified():
		return a
	case a.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

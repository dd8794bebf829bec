package cli

import (
	"fmt"
	"io"
	"net/netip"

	"egate/internal/cli/table"
)

// ServerReport is one DNS server that the host uses: its answers open names
// where a policy does not give servers of its own.
type ServerReport struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface,omitempty"` // by which it is reached; "" where no route leads there
	Local     bool       `json:"local"`               // it is on this host: its answers come over lo
	Note      string     `json:"note,omitempty"`
}

// dockerServer is the DNS server that Docker puts into the containers of its
// user-defined networks. Rules of netfilter lead port 53 of it elsewhere, before
// a packet reaches traffic control.
var dockerServer = netip.AddrFrom4([4]byte{127, 0, 0, 11})

const dockerNote = "DNS server 127.0.0.11 is Docker's own: packets to it are redirected to another port of lo, where no gate can tell them for DNS, so its answers open no names; " +
	"it asks its servers from this network namespace, and these can be read: start the container with --dns ADDRESS, and list that in the policy as dns: {servers: [ADDRESS]}"

// serverReports looks at the servers that the host uses.
func (a *app) serverReports() ([]ServerReport, error) {
	servers, err := a.hostServers()
	if err != nil {
		return nil, err
	}
	reports := make([]ServerReport, len(servers))
	for i, s := range servers {
		r := ServerReport{Address: s, Interface: a.routes.way(s)}
		r.Local = s.IsLoopback() || r.Interface == loopback // by lo to an address of the host's own, too
		r.Note = serverNote(&r)
		reports[i] = r
	}
	return reports, nil
}

// loopback is the interface on which packets between addresses of one network
// namespace run. The kernel makes it under this name.
const loopback = "lo"

func serverNote(r *ServerReport) string {
	switch {
	case r.Address == dockerServer:
		return dockerNote
	case r.Local:
		return fmt.Sprintf("DNS server %v is on this host: a gate that uses names attaches to lo too, reads DNS there, and judges nothing", r.Address)
	}
	return ""
}

// writeServers prints the host's DNS servers.
func writeServers(w io.Writer, servers []ServerReport, width int) error {
	fmt.Fprintln(w)
	if len(servers) == 0 {
		_, err := fmt.Fprintln(w, table.Wrap("", "This host uses no DNS server: a policy with domain names has to give some, as dns: {servers: [...]}.", width))
		return err
	}
	t := table.New(table.Column{Head: "DNS SERVER"}, table.Column{Head: "REACHED BY", Min: 10})
	for _, r := range servers {
		way := r.Interface
		if way == "" {
			way = "(not known)"
		}
		t.Add(r.Address.String(), way)
	}
	if err := t.Write(w, width); err != nil {
		return err
	}
	for _, r := range servers {
		if r.Note != "" {
			fmt.Fprintln(w, table.Wrap("- ", r.Note, width))
		}
	}
	return nil
}

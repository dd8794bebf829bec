package cli

import (
	"fmt"
	"slices"

	"egate/internal/datapath"
	"egate/internal/tables"
)

// learnedFrom says whose answers open names where the policy leaves that to the
// host, "" otherwise; and what to know of servers whoever chose them.
func (a *app) learnedFrom(set *tables.Set, applied *datapath.Applied) (text string, warnings []string) {
	if slices.Contains(applied.Servers, dockerServer) {
		warnings = append(warnings, dockerNote)
	}
	if !set.DNS.InUse || set.DNS.Servers != nil {
		return "", warnings
	}
	text = fmt.Sprintf("names: learned from the answers of %s (the host's DNS servers)", serverList(applied.Servers))
	// Without a daemon these servers count until the next apply.
	switch served, err := a.kernel.Served(applied.Gate); {
	case err != nil:
		warnings = append(warnings, err.Error())
	case !served:
		text += `; "egate daemon" follows when they change`
	}
	return text, warnings
}

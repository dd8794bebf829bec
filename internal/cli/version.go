package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"egate/internal/datapath"
)

// VersionReport is `version -o json`.
type VersionReport struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Go        string `json:"go"`
	Platform  string `json:"platform"`
	KernelABI uint32 `json:"kernel_abi"` // layout of pinned state
}

func (a *app) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		GroupID: groupOther,
		Long: `version prints the version of this binary, the Go release it was built with, and the
version of the kernel ABI: the layout of the state that egate keeps in the kernel. A
binary with another ABI version refuses that state; see "egate apply --replace-state".`,
		Example: "  egate version",
		Args:    arguments(0, 0, ""),
	}
	format := addOutput(c)
	c.RunE = func(*cobra.Command, []string) error {
		r := versionReport(a.version)
		if format.value == "json" {
			return a.printJSON(r)
		}
		fmt.Fprintf(a.stdout, "egate %s", r.Version)
		if r.Commit != "" {
			fmt.Fprintf(a.stdout, " (%s)", r.Commit)
		}
		fmt.Fprintf(a.stdout, "\n%s %s, kernel ABI %d\n", r.Go, r.Platform, r.KernelABI)
		return nil
	}
	return c
}

// versionReport prefers the version given at link time to what the Go tool
// recorded.
func versionReport(linked string) VersionReport {
	r := VersionReport{
		Version:   linked,
		Go:        runtime.Version(),
		Platform:  runtime.GOOS + "/" + runtime.GOARCH,
		KernelABI: datapath.ABIVersion,
	}
	info, ok := debug.ReadBuildInfo()
	if ok && r.Version == "" {
		r.Version = info.Main.Version
	}
	if r.Version == "" || r.Version == "(devel)" {
		r.Version = "devel"
	}
	if !ok {
		return r
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			r.Commit = s.Value[:min(12, len(s.Value))] + r.Commit
		case s.Key == "vcs.modified" && s.Value == "true":
			r.Commit += ", modified"
		}
	}
	return r
}

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Served tells whether a process serves a gate, as far as can be seen from here:
// those of other PID namespaces can't. It takes no lock, so that it never stands
// in a daemon's way.
//
// Errors wrap ErrGateName, ErrNoGate or ErrPermission.
func Served(name string) (bool, error) {
	g, err := findGate(name)
	if err != nil {
		return false, fmt.Errorf("look for a daemon: %w", explain(err))
	}
	f, err := os.Open(g.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for a daemon: %w", g.errNone())
	}
	if err != nil {
		return false, fmt.Errorf("look for a daemon: open gate %s: %w", name, explain(err))
	}
	defer f.Close()
	return lockHolder(f) != 0, nil
}

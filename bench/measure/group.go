package measure

import (
	"context"

	"egate/bench/result"
)

// Group is sheets that are measured on one set-up.
type Group struct {
	IDs []string // of its sheets, as -only names them
	// Measure makes the sheets that are wanted, in the order of IDs. What it
	// has set up is gone when it returns.
	Measure func(ctx context.Context, wanted func(id string) bool) ([]result.Sheet, error)
}

package datapath

import (
	"errors"
	"slices"
	"testing"
)

func TestApplyNamesItsStages(t *testing.T) {
	withHooks(t, func(t *testing.T, hook Hook) {
		w := newWorld(t, hook)
		var stages []string
		o := w.options()
		o.Stage = func(name string) { stages = append(stages, name) }
		if _, err := w.tryApply(testSet(t, onlyPorts(1000)), o); err != nil {
			t.Fatal(err)
		}
		want := []string{"loading", "attaching", "switching", "taking the old policy away"}
		if !slices.Equal(stages, want) {
			t.Errorf("stages %q, want %q", stages, want)
		}
		stages = nil
		o.Gate = "-"
		if _, err := w.tryApply(testSet(t, onlyPorts(1000)), o); !errors.Is(err, ErrGateName) || stages != nil {
			t.Errorf("an apply that is refused at once names the stages %q, error %v", stages, err)
		}
	})
}

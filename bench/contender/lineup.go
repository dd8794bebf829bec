package contender

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"egate/bench/world"
)

// ErrMissing says that a command which a contender takes is not installed.
var ErrMissing = errors.New("not installed")

// Lineup is the contenders of a run.
type Lineup struct {
	Contenders []Contender
	// Strict makes a missing command an error (ErrMissing). Otherwise its
	// contender is left out, and a note says so.
	Strict bool
	// Progress is told what is being done.
	Progress func(format string, args ...any)
}

// Stand is one contender set up for one task, in a world of its own.
type Stand struct {
	Contender string
	Task      *Task
	World     *world.World
}

// Field is all that a comparison is between, set up side by side.
type Field struct {
	Stands []Stand
	Notes  []string // who was left out and why
}

// Present are the contenders of these names whose commands are installed, in
// the order of the lineup, with a note for each other one.
func (l *Lineup) Present(names ...string) (present []Contender, notes []string, err error) {
	for _, c := range l.Contenders {
		if !slices.Contains(names, c.Name) {
			continue
		}
		missing := c.Missing()
		switch {
		case missing == "":
			present = append(present, c)
		case l.Strict:
			return nil, nil, fmt.Errorf("%s takes %s, which is %w", c.Name, missing, ErrMissing)
		default:
			notes = append(notes, fmt.Sprintf("%s left out: %s is not installed", c.Name, missing))
		}
	}
	return present, notes, nil
}

// Filters tells whether the contender of that name filters.
func (l *Lineup) Filters(name string) bool {
	return slices.ContainsFunc(l.Contenders, func(c Contender) bool { return c.Name == name && c.Filters })
}

// Field sets every named contender up for every task and makes sure that all
// decide alike. The caller closes it.
func (l *Lineup) Field(ctx context.Context, tasks []*Task, names ...string) (*Field, error) {
	present, notes, err := l.Present(names...)
	if err != nil {
		return nil, err
	}
	f := &Field{Notes: notes}
	for _, t := range tasks {
		for _, c := range present {
			if err := ctx.Err(); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			if why := c.Refuses(t); why != "" {
				if note := c.Name + " " + why; !slices.Contains(f.Notes, note) {
					f.Notes = append(f.Notes, note)
				}
				continue
			}
			l.Progress("set up %s with %d", c.Name, t.Size())
			w, err := c.Setup(ctx, t)
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			f.Stands = append(f.Stands, Stand{c.Name, t, w})
		}
	}
	return f, nil
}

// Close takes all worlds down.
func (f *Field) Close() error {
	var err error
	for _, s := range f.Stands {
		err = errors.Join(err, s.World.Close())
	}
	return err
}

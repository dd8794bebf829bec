package traffic

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"egate/bench/contender"
	"egate/bench/measure"
	"egate/bench/prefixes"
	"egate/bench/result"
	"egate/bench/world"
)

// switching measures how long a sender is held up while a policy is replaced by
// one that differs a little. The command that replaces it runs on other
// processors than the sender's, where there are others.
func (b *bench) switching(ctx context.Context, _ wanted) (sheets []result.Sheet, err error) {
	sheet := result.Sheet{
		ID: "switch-gap", Title: "Longest gap between two packets while the policy is replaced", Size: "prefixes",
		Unit: "ms", Baseline: noSwitch, Better: "lower",
		Notes: []string{
			"each sample is the longest gap during one command, seen by a thread of real-time priority on a processor that the command does not use",
			noSwitch + " is `egate check` of the same policy again and again for as long as egate's switch took: as much time and work beside the sender, but nothing changes; what gaps it has are the machine's",
		},
	}
	for _, n := range b.form.SwitchSizes {
		points, notes, err := b.switchingAt(ctx, n)
		if err != nil {
			return nil, err
		}
		sheet.Points = append(sheet.Points, points...)
		sheet.Notes = append(sheet.Notes, notes...)
	}
	return []result.Sheet{sheet}, nil
}

// mostSwitched bounds what nft and ipset are given, which take seconds for more.
const mostSwitched = 10_000

// noSwitch is the name of the baseline.
const noSwitch = "no switch"

func (b *bench) switchingAt(ctx context.Context, n int) (points []result.Point, notes []string, err error) {
	// Two tasks that agree on where the sender sends.
	list := prefixes.New(prefixes.IPv4, n)
	task := contender.Prefixes(list, contender.Drop, 1024)
	other := task
	other.Prefixes = &prefixes.List{Family: list.Family, Prefixes: list.Prefixes[:n-1]}

	names := []string{result.Egate}
	if n <= mostSwitched {
		names = append(names, result.NFTSet, result.IPSet)
	} else {
		notes = append(notes, fmt.Sprintf("nft set and ipset left out above %d: see load and change for how long they take", mostSwitched))
	}
	f, err := b.lineup.Field(ctx, []*contender.Task{&task}, names...)
	if err != nil {
		return nil, nil, err
	}
	defer closing(f, &err)
	train := NewTrain(task.Passing())
	var cells []measure.Cell
	var took time.Duration // of egate's last switch
	for _, s := range f.Stands {
		sender, err := NewSender(s.World, train)
		if err != nil {
			return nil, nil, err
		}
		s.World.KeepUntilClose(sender)
		if err := s.World.Sink(); err != nil {
			return nil, nil, err
		}
		commands, err := b.switches(ctx, s, &other)
		if err != nil {
			return nil, nil, err
		}
		for name, command := range commands {
			turn := 0
			cells = append(cells, measure.Cell{Contender: name, Size: n, Sample: func() (float64, error) {
				turn++
				return sender.LongestGap(ctx, func() error {
					begin := time.Now()
					for {
						if _, err := s.World.Sender.Measure(command(turn), keepApart); err != nil {
							return err
						}
						if name != noSwitch || time.Since(begin) >= took {
							break
						}
					}
					if name == result.Egate {
						took = time.Since(begin)
					}
					return nil
				})
			}})
		}
	}
	slices.SortFunc(cells, func(a, b measure.Cell) int { return strings.Compare(b.Contender, a.Contender) })
	b.lineup.Progress("measure switch-gap at %d: %d samples a round, rounds: %d", n, len(cells), b.form.Switches)
	points, err = measure.Interleave(ctx, cells, b.form.Switches, noSwitch)
	for _, p := range points {
		notes = append(notes, fmt.Sprintf("%s, %d prefixes: longest of %d: %.3f ms", p.Contender, n, len(p.Samples), slices.Max(p.Samples)))
	}
	return points, notes, err
}

// switches are the commands that are timed at a stand, by the names of their
// cells: each makes the command of a turn. With egate comes the baseline.
func (b *bench) switches(ctx context.Context, s contender.Stand, other *contender.Task) (map[string]func(turn int) *exec.Cmd, error) {
	tasks := [2]*contender.Task{s.Task, other}
	switch s.Contender {
	case result.NFTSet:
		return texts(ctx, s.Contender, [2]string{contender.NFTSetText(tasks[0]), contender.NFTSetText(tasks[1])}, "nft", "-f", "-"), nil
	case result.IPSet:
		return texts(ctx, s.Contender, [2]string{contender.IPSetText(tasks[0]), contender.IPSetText(tasks[1])}, "ipset", "restore"), nil
	}
	gate, ok := world.Kept[*contender.Gate](s.World)
	if !ok {
		return nil, errors.New("find the gate of egate: it has none")
	}
	var paths [2]string
	for i, t := range tasks {
		path, err := gate.Write(fmt.Sprintf("switch-%d", i), t)
		if err != nil {
			return nil, err
		}
		paths[i] = path
	}
	return map[string]func(int) *exec.Cmd{
		result.Egate: func(turn int) *exec.Cmd { return gate.Apply(ctx, paths[turn%2]) },
		noSwitch:     func(turn int) *exec.Cmd { return gate.Check(ctx, paths[turn%2]) },
	}, nil
}

// texts makes the commands that read one of two texts.
func texts(ctx context.Context, name string, inputs [2]string, command string, args ...string) map[string]func(int) *exec.Cmd {
	return map[string]func(int) *exec.Cmd{name: func(turn int) *exec.Cmd {
		cmd := exec.CommandContext(ctx, command, args...)
		cmd.Stdin = strings.NewReader(inputs[turn%2])
		return cmd
	}}
}

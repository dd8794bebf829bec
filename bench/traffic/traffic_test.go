package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"egate/bench/contender"
	"egate/bench/prefixes"
	"egate/bench/result"
	"egate/bench/world"
	"egate/internal/cli"
	"egate/internal/testutil"
)

// envEgate makes a process of the test binary the command egate.
const envEgate = "EGATE_TEST_BENCH_EGATE"

func TestMain(m *testing.M) {
	if os.Getenv(envEgate) != "" {
		os.Exit(cli.Run(context.Background(), cli.Process{
			Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv,
		}))
	}
	os.Exit(m.Run())
}

// lineup is the contenders that take no commands but egate.
func lineup(t *testing.T) *contender.Lineup {
	t.Helper()
	testutil.RequireRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	all := contender.All(contender.Command{Path: self, Env: []string{envEgate + "=1"}})
	return &contender.Lineup{
		Contenders: slices.DeleteFunc(all, func(c contender.Contender) bool { return len(c.Needs) > 0 }),
		Strict:     true,
		Progress:   t.Logf,
	}
}

// TestSheets measures one sheet of each kind as briefly as can be: the figures
// say nothing, but every contender has decided right by then.
func TestSheets(t *testing.T) {
	l := lineup(t)
	want := []string{"send-rules-v4", "send-one-v6", "latency-p50", "switch-gap"}
	wanted := func(id string) bool { return slices.Contains(want, id) }
	groups := Groups(l, Form{
		Rounds: 1, Destinations: 512, Rules: []int{3}, Prefixes: []int{20}, Switches: 1, SwitchSizes: []int{20},
	})
	var ids []string
	for _, g := range groups {
		if !slices.ContainsFunc(g.IDs, wanted) {
			continue
		}
		sheets, err := g.Measure(context.Background(), wanted)
		if err != nil {
			t.Fatalf("measure %v: %v", g.IDs, err)
		}
		for _, s := range sheets {
			ids = append(ids, s.ID)
			for _, p := range s.Points {
				if p.Value.Median <= 0 || len(p.Samples) != 1 || p.Added == nil {
					t.Errorf("%s: %s at %d: %+v, want one sample above 0, and what it adds", s.ID, p.Contender, p.Size, p)
				}
			}
			if !slices.ContainsFunc(s.Points, func(p result.Point) bool { return p.Contender == result.Egate }) {
				t.Errorf("%s has no point of egate", s.ID)
			}
		}
	}
	if !slices.Equal(ids, want) {
		t.Errorf("sheets %v, want %v", ids, want)
	}
}

// Look-ups and connections are measured at all stands that take no commands, and
// egate loses none.
func TestLookupSheets(t *testing.T) {
	l := lineup(t)
	for _, g := range Groups(l, Form{Rounds: 1, Connections: 20}) {
		if !slices.Contains(g.IDs, "lookup-time") {
			continue
		}
		sheets, err := g.Measure(context.Background(), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, s := range sheets {
			ids = append(ids, s.ID)
			i := slices.IndexFunc(s.Points, func(p result.Point) bool { return p.Contender == result.Egate })
			if len(s.Points) != 2 || i < 0 || len(s.Points[i].Samples) != 1 {
				t.Errorf("%s: %+v, want one sample of egate and of nothing", s.ID, s.Points)
				continue
			}
			if lost := s.ID == "connect-lost"; (s.Points[i].Value.Median > 0) == lost {
				t.Errorf("%s: egate has %v", s.ID, s.Points[i].Value)
			}
		}
		if !slices.Equal(ids, g.IDs) {
			t.Errorf("sheets %v, want %v", ids, g.IDs)
		}
	}
}

func TestWrongDecisionAboutNamesIsNotMeasured(t *testing.T) {
	l := lineup(t)
	for _, c := range []struct {
		name, domain string
		filters      bool // what is said of it
		want         error
	}{
		{result.Nothing, listedDomain, false, nil},
		{result.Nothing, listedDomain, true, contender.ErrWrongDecision},
		{result.Egate, listedDomain, true, nil},
		{result.Egate, listedDomain, false, contender.ErrWrongDecision},
		{result.Egate, unlistedDomain, true, contender.ErrWrongDecision},
		{result.Egate, "another.example", true, contender.ErrWrongDecision},
	} {
		t.Run(fmt.Sprintf("%s, %s, %t", c.name, c.domain, c.filters), func(t *testing.T) {
			task := contender.Names(c.domain)
			f, err := l.Field(context.Background(), []*contender.Task{&task}, c.name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w := f.Stands[0].World
			server, err := newNameServer(w)
			if err != nil {
				t.Fatal(err)
			}
			w.KeepUntilClose(server)
			a, err := newAsker(w, contender.Resolver(c.name))
			if err != nil {
				t.Fatal(err)
			}
			w.KeepUntilClose(a)
			if err := a.check(c.filters); !errors.Is(err, c.want) {
				t.Errorf("check: %v, want %v", err, c.want)
			}
		})
	}
}

func TestAnswersAreWhatTheyShould(t *testing.T) {
	for _, c := range []struct {
		domain, network string
		number          uint32
		host            string
	}{
		{listedDomain, "20", 1, "0.0.2"},
		{listedDomain, "20", 0x12345, "2.70.138"},
		{unlistedDomain, "21", 0x800000, "0.0.0"},
	} {
		q := newQuestion(c.domain)
		q[1] = 7
		spell(q[labelAt:], c.number)
		if got := read(q[labelAt:]); got != c.number {
			t.Errorf("read what spell(%d) wrote: %d", c.number, got)
		}
		var m dns.Msg
		if err := m.Unpack(appendAnswer(nil, q)); err != nil {
			t.Fatal(err)
		}
		if m.Id != 7 || !m.Response || len(m.Question) != 1 || len(m.Answer) != 2 {
			t.Fatalf("answer %v", &m)
		}
		if got, want := m.Question[0].Name[8:], "."+c.domain+"."; got != want {
			t.Errorf("question about %s, want %s", got, want)
		}
		if got, want := m.Answer[0].(*dns.A).A.String(), c.network+"."+c.host; got != want || m.Answer[1].Header().Name != m.Question[0].Name {
			t.Errorf("address %s, want %s; %v", got, want, m.Answer[1])
		}
	}
	if got := appendAnswer(nil, []byte("short")); len(got) != 0 {
		t.Errorf("answer to what is no question: %x", got)
	}
}

func TestWrongDecisionIsNotMeasured(t *testing.T) {
	l := lineup(t)
	nothing := l.Contenders[0].Install
	for _, c := range []struct {
		name    string
		install func(context.Context, *world.World, *contender.Task) error
	}{
		{"passes all", nothing},
		{"does the opposite", func(ctx context.Context, w *world.World, task *contender.Task) error {
			opposite := *task
			opposite.Action = contender.Allow
			i := slices.IndexFunc(l.Contenders, func(c contender.Contender) bool { return c.Name == result.Egate })
			return l.Contenders[i].Install(ctx, w, &opposite)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := contender.Rules(prefixes.IPv4, contender.Drop, 3, 8)
			wrong := contender.Contender{
				Name: c.name, Filters: true, Install: c.install, Refuses: func(*contender.Task) string { return "" },
			}
			_, err := (&contender.Lineup{Contenders: []contender.Contender{wrong}, Progress: t.Logf}).
				Field(context.Background(), []*contender.Task{&task}, c.name)
			if !errors.Is(err, contender.ErrWrongDecision) {
				t.Errorf("Field: %v, want %v", err, contender.ErrWrongDecision)
			}
		})
	}
}

func TestMissingCommand(t *testing.T) {
	missing := contender.Contender{Name: "new", Needs: []string{"egate-no-such-command"}}
	l := &contender.Lineup{Contenders: []contender.Contender{missing}}
	present, notes, err := l.Present("new")
	if len(present) != 0 || len(notes) != 1 || err != nil {
		t.Errorf("Present = %v, %q, %v; want none and a note", present, notes, err)
	}
	l.Strict = true
	if _, _, err := l.Present("new"); !errors.Is(err, contender.ErrMissing) {
		t.Errorf("Present, strict: %v, want %v", err, contender.ErrMissing)
	}
}

// TestLongestGap has the sender held up by nobody, and must see less than the
// time that it sends for.
func TestLongestGap(t *testing.T) {
	testutil.RequireRoot(t)
	w, err := world.New()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	task := contender.Rules(prefixes.IPv4, contender.Drop, 1, 8)
	s, err := NewSender(w, NewTrain(task.Passing()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken := errors.New("broken")
	gap, err := s.LongestGap(context.Background(), func() error { time.Sleep(50 * time.Millisecond); return broken })
	if !errors.Is(err, broken) {
		t.Errorf("LongestGap: %v, want the error of what it waits for", err)
	}
	if gap <= 0 || gap >= 50 {
		t.Errorf("LongestGap = %v ms in 50 ms", gap)
	}
}

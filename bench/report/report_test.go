package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"egate/bench/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// point is a value with what it adds to base, both ± 1.
func measured(contender string, size int, value, base float64) result.Point {
	return result.Point{
		Contender: contender, Size: size, Value: around(value), Samples: []float64{value - 1, value, value + 1},
		Added: &result.Spread{Median: value - base, Low: value - base - 1, High: value - base + 1},
	}
}

func around(v float64) result.Spread { return result.Spread{Median: v, Low: v - 1, High: v + 1} }

func plain(contender string, size int, value float64) result.Point {
	return result.Point{Contender: contender, Size: size, Value: around(value), Samples: []float64{value}}
}

// example is a run with a sheet of each kind.
func example() *result.Run {
	return &result.Run{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 95 * time.Second, Form: "full",
		Machine: result.Machine{CPU: "Some Processor", CPUs: 2, MemoryMB: 8000, Kernel: "6.18.0 x86_64",
			Tools: map[string]string{"nft": "nftables v1.0.6", "egate": "egate v1"}},
		Sheets: []result.Sheet{
			{
				ID: "programs-v4-mixed", Title: "Random destinations <half> & half", Size: "prefixes", Unit: "ns",
				Baseline: "empty program", Better: "lower", Notes: []string{"who was left out"},
				Points: []result.Point{
					measured("empty program", 10, 20, 20), measured("ICMP drop", 10, 19.5, 20), measured("LPM trie", 10, 48, 20), measured("egate", 10, 90, 20),
					measured("empty program", 1_000_000, 21, 21), measured("ICMP drop", 1_000_000, 22, 21),
					measured("LPM trie", 1_000_000, 1621, 21), measured("egate", 1_000_000, 221, 21),
				},
			},
			{
				ID: "send-rules-v4", Title: "Rules in a row", Size: "rules", Unit: "ns", Baseline: "empty program", Better: "lower",
				Points: []result.Point{
					measured("empty program", 10, 2000, 2000), measured("nft rules", 10, 2235, 2000), measured("egate", 10, 2050, 2000),
					measured("empty program", 1000, 2000, 2000), measured("nft rules", 1000, 19845, 2000), measured("egate", 1000, 2060, 2000),
					measured("empty program", 4096, 2000, 2000), measured("egate", 4096, 1990, 2000),
				},
			},
			{
				ID: "throughput", Title: "TCP throughput", Size: "rules", Unit: "Mbit/s", Baseline: "nothing", Better: "higher",
				Points: []result.Point{measured("nothing", 20, 31000, 31000), measured("egate", 20, 30070, 31000)},
			},
			{
				ID: "load-v4", Title: "Time to put a list in force", Size: "prefixes", Unit: "ms", Better: "lower",
				Points: []result.Point{
					plain("ipset", 1000, 12), plain("nft set", 1000, 9.5), plain("egate", 1000, 70),
					plain("ipset", 1_000_000, 4000), plain("nft set", 1_000_000, 1200), plain("egate", 1_000_000, 1300),
				},
			},
		},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, example()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the table differs from %s (go test ./bench/report -update writes it anew); got\n%s", file, b.Bytes())
	}
}

func TestJSONKeepsARun(t *testing.T) {
	want := example()
	var b bytes.Buffer
	if err := JSON(&b, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
	if _, err := ReadJSON(strings.NewReader(`{"sheet": []}`)); err == nil {
		t.Error("an unknown key is no error")
	}
}

func TestTargets(t *testing.T) {
	found := map[string]Target{}
	for _, target := range Targets(example()) {
		found[target.What] = target
	}
	for _, c := range []struct {
		what    string
		reached bool
		checks  []Check
	}{
		{"1,000,000 prefixes, random destinations", true, []Check{{"programs-v4-mixed", "200 ns at 1,000,000", true}}},
		{"1,000,000 prefixes against the kernel's LPM trie", true, []Check{{"programs-v4-mixed", "8 times, 200 ns against 1,600 ns", true}}},
		{"1,000 rules against nftables rules in a row", true, []Check{{"send-rules-v4", "297 times, 60 ns against 17,845 ns", true}}},
		{"4,096 rules against 10 rules", true, []Check{{"send-rules-v4", "-0.20 times, 50 ns and -10 ns", true}}},
		{"TCP throughput, 20 rules", false, []Check{{"throughput", "97.0 %, 30,070 Mbit/s of 31,000 Mbit/s", false}}},
		{"load of 1,000,000 prefixes against ipset", true, []Check{{"load-v4", "3.08 times, 1,300 ms against 4,000 ms", true}}},
		{"load of 1,000,000 prefixes against nftables", false, []Check{{"load-v4", "0.923 times, 1,300 ms against 1,200 ms", false}}},
		{"longest gap that a sender sees at a switch", false, nil},
	} {
		got, ok := found[c.what]
		if !ok {
			t.Errorf("no target %q", c.what)
			continue
		}
		if got.Reached() != c.reached || !reflect.DeepEqual(got.Checks, c.checks) {
			t.Errorf("%s: reached %v, %+v; want %v, %+v", c.what, got.Reached(), got.Checks, c.reached, c.checks)
		}
	}
}

// Of each kind of answer the size counts at which it adds most; questions do not
// count.
func TestTargetOfAnswers(t *testing.T) {
	run := &result.Run{Sheets: []result.Sheet{{
		ID: "names-lookup-fresh", Size: "names", Unit: "ns", Baseline: "empty program", Better: "lower",
		Points: []result.Point{
			measured("empty program", 1, 20, 20), measured("question", 1, 5020, 20), measured("answer of 1 A", 1, 520, 20), measured("answer of 8 A", 1, 2220, 20),
			measured("empty program", 100, 20, 20), measured("question", 100, 5020, 20), measured("answer of 1 A", 100, 1520, 20), measured("answer of 8 A", 100, 1920, 20),
		},
	}}}
	for _, target := range Targets(run) {
		var want []Check
		if target.What == "a DNS answer about a new name" {
			want = []Check{{"names-lookup-fresh", "1,500 ns, answer of 1 A at 100", true}, {"names-lookup-fresh", "2,200 ns, answer of 8 A at 1", false}}
		}
		if !reflect.DeepEqual(target.Checks, want) {
			t.Errorf("%s: %+v, want %+v", target.What, target.Checks, want)
		}
	}
}

// One miss among several checks is a miss.
func TestTargetIsReachedByAllSheets(t *testing.T) {
	target := Target{Checks: []Check{{Reached: true}, {Reached: false}}}
	if target.Reached() {
		t.Error("reached, although a sheet says otherwise")
	}
}

func TestPlots(t *testing.T) {
	run := example()
	dir := filepath.Join(t.TempDir(), "plots")
	if err := Plots(dir, run); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sheet      string
		has, lacks []string
	}{
		{
			"programs-v4-mixed",
			[]string{"Random destinations &lt;half&gt; &amp; half", ">LPM trie<", ">egate<", ">1,000,000<", "Some Processor", "not drawn, nowhere above 1 ns: ICMP drop"},
			[]string{">ICMP drop<", "hollow:"},
		},
		{"send-rules-v4", []string{">nft rules<", "hollow: less than 50 ns, drawn there"}, []string{"not drawn"}},
		{"throughput", []string{">nothing<", "30,070 Mbit/s", "31,000 Mbit/s (1.0x egate)"}, []string{"more than"}},
		{"load-v4", []string{">ipset<", ">5,000<"}, []string{"more than", "hollow"}},
	} {
		text, err := os.ReadFile(filepath.Join(dir, c.sheet+".svg"))
		if err != nil {
			t.Error(err)
			continue
		}
		wellFormed(t, c.sheet, text)
		onCanvas(t, c.sheet, text)
		for _, part := range c.has {
			if !bytes.Contains(text, []byte(part)) {
				t.Errorf("%s does not show %q", c.sheet, part)
			}
		}
		for _, part := range c.lacks {
			if bytes.Contains(text, []byte(part)) {
				t.Errorf("%s shows %q", c.sheet, part)
			}
		}
		if again := plot(run, sheet(run, c.sheet)); !bytes.Equal(text, again) {
			t.Errorf("%s: two plots of one run differ", c.sheet)
		}
	}
}

func sheet(run *result.Run, id string) *result.Sheet {
	for i := range run.Sheets {
		if run.Sheets[i].ID == id {
			return &run.Sheets[i]
		}
	}
	return nil
}

// onCanvas checks that texts and dots begin on the canvas, and none of them in
// its last column, where a name would have no room.
func onCanvas(t *testing.T, name string, text []byte) {
	t.Helper()
	var svg struct {
		Width   float64 `xml:"width,attr"`
		Height  float64 `xml:"height,attr"`
		Texts   []place `xml:"text"`
		Circles []place `xml:"circle"`
	}
	if err := xml.Unmarshal(text, &svg); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, p := range append(svg.Texts, svg.Circles...) {
		if x, y := p.X+p.CX, p.Y+p.CY; x < 0 || x > svg.Width-80 || y < 0 || y > svg.Height {
			t.Errorf("%s: something stands at %v,%v on a canvas of %v by %v", name, x, y, svg.Width, svg.Height)
		}
	}
}

type place struct {
	X  float64 `xml:"x,attr"`
	Y  float64 `xml:"y,attr"`
	CX float64 `xml:"cx,attr"`
	CY float64 `xml:"cy,attr"`
}

// wellFormed reads the whole text as XML.
func wellFormed(t *testing.T, name string, text []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	for elements := 0; ; elements++ {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			if elements == 0 {
				t.Errorf("%s is empty", name)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// Whatever a sheet holds, there is a plot and a table of it.
func TestOddSheets(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for name, s := range map[string]result.Sheet{
		"no points":            {},
		"a size but no points": {Size: "rules", Baseline: "empty program"},
		"only the baseline":    {Size: "rules", Baseline: "a", Points: []result.Point{measured("a", 1, 5, 5), measured("a", 2, 5, 5)}},
		"nothing above zero":   {Size: "rules", Unit: "ns", Points: []result.Point{plain("a", 1, 0), plain("a", 2, -5)}},
		"negative bars":        {Points: []result.Point{plain("a", 0, -3), plain("egate", 0, -5)}},
		"sizes of zero":        {Size: "rules", Points: []result.Point{plain("a", 0, 3), plain("a", -7, 3)}},
		"no numbers": {Size: "rules", Unit: "ns", Points: []result.Point{
			plain("a", 1, nan), plain("a", 2, inf), plain("egate", 1, -inf), plain("egate", 2, 3),
		}},
		"tiny and huge":     {Size: "rules", Unit: "MB", Points: []result.Point{plain("a", 1, 1e-12), plain("a", 1<<40, 1e200)}},
		"no added":          {Size: "rules", Baseline: "b", Points: []result.Point{plain("a", 1, 1), plain("a", 2, 1)}},
		"no text":           {Title: "\x00\x1b[31m\ufffe", Notes: []string{"\x00"}, Points: []result.Point{plain("\x07", 0, 1)}},
		"many contenders":   {Size: "rules", Points: crowd(2)},
		"many bars":         {Points: crowd(1)},
		"one size, no unit": {Size: "rules", Baseline: "b", Points: []result.Point{measured("a", 3, 5, 4)}},
	} {
		t.Run(name, func(t *testing.T) {
			run := &result.Run{Sheets: []result.Sheet{s}}
			wellFormed(t, name, plot(run, &run.Sheets[0]))
			var b bytes.Buffer
			if err := Table(&b, run); err != nil {
				t.Error(err)
			}
			if strings.ContainsAny(b.String(), "\x00\x1b\x07") {
				t.Errorf("control characters reach the terminal: %q", b.String())
			}
		})
	}
}

func crowd(sizes int) (points []result.Point) {
	for i := range 40 {
		for size := range sizes {
			points = append(points, plain(strings.Repeat("x", i), 1+size, 100+float64(i)/10))
		}
	}
	return points
}

func TestPlotsRefusesIDsThatAreNoFileNames(t *testing.T) {
	for _, id := range []string{"", "a/b", "../a", ".", "..", "a\x00"} {
		run := &result.Run{Sheets: []result.Sheet{{ID: id}}}
		if err := Plots(t.TempDir(), run); !errors.Is(err, ErrSheetID) {
			t.Errorf("id %q: err = %v", id, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Plots(filepath.Join(file, "below"), &result.Run{}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder below a file: err = %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {-0.0001, "0"}, {0.0623, "0.062"}, {1.234, "1.23"}, {12.34, "12.3"}, {99.96, "100"}, {123.4, "123"},
		{-17845.2, "-17,845"}, {1e6, "1,000,000"}, {1e300, "1e+300"},
	} {
		if got := number(c.v); got != c.want {
			t.Errorf("number(%v) = %q, want %q", c.v, got, c.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct{ v, below, above float64 }{
		{1, 1, 1}, {1.5, 1, 2}, {3, 2, 5}, {7, 5, 10}, {1000, 1000, 1000}, {0.03, 0.02, 0.05},
	} {
		if got := below(c.v); math.Abs(got-c.below) > 1e-9*c.below {
			t.Errorf("below(%v) = %v, want %v", c.v, got, c.below)
		}
		if got := above(c.v); math.Abs(got-c.above) > 1e-9*c.above {
			t.Errorf("above(%v) = %v, want %v", c.v, got, c.above)
		}
	}
}

// Labels keep apart, and none is below the plot.
func TestLabelsKeepApart(t *testing.T) {
	var labels []label
	for i := range 8 {
		labels = append(labels, label{point: point{100, bottom - float64(i)}})
	}
	labels = append(labels, label{point: point{50, bottom}})
	placed := apart(labels)
	for i, a := range placed {
		if a.y > bottom {
			t.Errorf("label %d is at %v, below the plot", i, a.y)
		}
		for _, b := range placed[:i] {
			if a.x == b.x && math.Abs(a.y-b.y) < 15.9 {
				t.Errorf("labels at %v and %v touch", a.y, b.y)
			}
		}
	}
}

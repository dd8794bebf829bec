package ipset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadSet(t *testing.T) {
	const file = "\ufeff# office\r\n" +
		"\r\n" +
		"10.0.0.0/8\r\n" +
		"  192.0.2.1\t# a printer\n" +
		"\t\n" +
		"2001:db8::/32#no space\n" +
		"198.51.100.7-198.51.100.9" // no newline at the end
	want := []string{
		"10.0.0.0-10.255.255.255", "192.0.2.1-192.0.2.1", "198.51.100.7-198.51.100.9",
		"2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
	}
	for name, r := range map[string]io.Reader{
		"whole":       strings.NewReader(file),
		"one byte":    iotest.OneByteReader(strings.NewReader(file)),
		"data at EOF": iotest.DataErrReader(strings.NewReader(file)),
	} {
		set, errs := ReadSet(r, "office.txt")
		if len(errs) > 0 {
			t.Fatalf("%s: %v", name, errs)
		}
		if got := text(set.Ranges()); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestReadSetErrors(t *testing.T) {
	long := strings.Repeat("1", MaxLineBytes+5)
	tests := []struct {
		name, file string
		want       []string
	}{
		{"several", "10.0.0.0/8\n10.0.0.1/8\n\n \tfoo # x\n", []string{
			`f.txt:2:1: "10.0.0.1/8" has host bits set; the prefix is 10.0.0.0/8`,
			`f.txt:4:3: "foo" is not an address`,
		}},
		{"after a byte order mark", "\ufeff foo\n", []string{`f.txt:1:2: "foo" is not an address`}},
		{"column in runes", "\u00a0foo\n", []string{"f.txt:1:1: \"\\u00a0foo\" is not an address"}},
		{"two on a line", "10.0.0.1 10.0.0.2\n", []string{`f.txt:1:1: "10.0.0.1 10.0.0.2" has text after it; a comment begins with #`}},
		{"lone carriage return", "10.0.0.1\r10.0.0.2\n", []string{`f.txt:1:1: "10.0.0.1\r10.0.0.2" is not an address, a prefix or a range a-b`}},
		{"zero byte", "10.0.0.1\x00\n", []string{`f.txt:1:1: "10.0.0.1\x00" is not an address, a prefix or a range a-b`}},
		{"long line", "10.0.0.1\n" + long + "\nfoo\n", []string{
			`f.txt:2:1: the line is longer than 65536 bytes`,
			`f.txt:3:1: "foo" is not an address`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, errs := ReadSet(strings.NewReader(tt.file), "f.txt")
			var got []string
			for _, e := range errs {
				got = append(got, e.Error())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("errors %q, want %q", got, tt.want)
			}
			if set != nil {
				t.Error("gave a set beside errors")
			}
		})
	}
}

func TestReadSetLongComment(t *testing.T) {
	set, errs := ReadSet(strings.NewReader("10.0.0.1 #"+strings.Repeat("x", 3*MaxLineBytes)+"\n10.0.0.3\n"), "f.txt")
	if len(errs) > 0 || len(set.Ranges()) != 2 {
		t.Errorf("a comment longer than a line may be: %v, %v", set, errs)
	}
}

func TestReadSetBoundsErrors(t *testing.T) {
	_, errs := ReadSet(strings.NewReader(strings.Repeat("foo\n", 1000)), "f.txt")
	if len(errs) != 21 {
		t.Fatalf("%d errors, want 21", len(errs))
	}
	if got, want := errs[20].Error(), "f.txt:21:1: and 980 more errors from here on"; got != want {
		t.Errorf("last error %q, want %q", got, want)
	}
}

func TestReadSetBoundsEntries(t *testing.T) {
	_, errs := ReadSet(&repeating{line: []byte("10.0.0.1\n")}, "f.txt")
	if got, want := fmt.Sprint(errs), "[f.txt: the file has more than 4000000 elements]"; got != want {
		t.Errorf("errors %s, want %s", got, want)
	}
}

func TestReadSetBoundsBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a gibibyte")
	}
	_, errs := ReadSet(&repeating{line: append(bytes.Repeat([]byte{'#'}, 60_000), '\n')}, "f.txt")
	if got, want := fmt.Sprint(errs), "[f.txt: the file is larger than 1073741824 bytes]"; got != want {
		t.Errorf("errors %s, want %s", got, want)
	}
}

func TestReadSetKeepsTheReadersError(t *testing.T) {
	r := io.MultiReader(strings.NewReader("10.0.0.1\n10.0."), iotest.ErrReader(errors.New("input/output error")))
	set, errs := ReadSet(r, "f.txt")
	if set != nil || len(errs) == 0 || errs[len(errs)-1].Error() != "f.txt: read the file: input/output error" {
		t.Errorf("set %v, errors %v", set, errs)
	}
}

func TestReadSetLongLinesAndGarbage(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	garbage := make([]byte, 1<<20)
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	for name, tt := range map[string]struct {
		file []byte
		want string // of the first error
	}{
		"10 MB without a newline":   {bytes.Repeat([]byte("1"), 10<<20), "f.txt:1:1: the line is longer than 65536 bytes"},
		"10 MB before the next one": {append(bytes.Repeat([]byte("10.0.0.1,"), 10<<20/9), "\n10.0.0.1\n"...), "f.txt:1:1: the line is longer than 65536 bytes"},
		"zeros":                     {make([]byte, 10<<20), "f.txt:1:1: the line is longer than 65536 bytes"},
		"random bytes":              {garbage, "f.txt:1:1: "},
	} {
		set, errs := ReadSet(bytes.NewReader(tt.file), "f.txt")
		if set != nil || len(errs) == 0 || len(errs) > 21 || !strings.HasPrefix(errs[0].Error(), tt.want) {
			t.Errorf("%s: %d errors: %.300v", name, len(errs), errs)
		}
		for _, e := range errs {
			if len(e.Message) > 500 {
				t.Errorf("%s: a message of %d bytes", name, len(e.Message))
			}
		}
	}
}

// meddling changes a file before a certain read of it.
type meddling struct {
	*os.File
	reads  int
	meddle func()
}

func (m *meddling) Read(p []byte) (int, error) {
	if m.reads--; m.reads == 0 {
		m.meddle()
	}
	return m.File.Read(p)
}

func TestReadSetOfChangingFiles(t *testing.T) {
	content := bytes.Repeat([]byte("10.0.0.1\n"), 20_000) // several reads
	const changed = "f.txt: the file was changed while it was read; put a new list in its place by renaming it"
	for name, tt := range map[string]struct {
		meddle func(path string) error
		want   string // "" for none
	}{
		"left alone": {func(string) error { return nil }, ""},
		"cut short":  {func(path string) error { return os.Truncate(path, 9000) }, changed},
		"emptied":    {func(path string) error { return os.Truncate(path, 0) }, changed},
		"growing": {func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("10.0.0.2\n")
			return err
		}, changed},
		"written anew": {func(path string) error {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)) // whatever the clock's steps
		}, changed},
		"removed": {os.Remove, ""},
		"replaced by renaming": {func(path string) error {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.txt")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			set, errs := ReadSet(&meddling{f, 2, func() {
				if err := tt.meddle(path); err != nil {
					t.Fatal(err)
				}
			}}, "f.txt")
			if tt.want == "" {
				if len(errs) > 0 || set.IsEmpty() {
					t.Errorf("errors %v", errs)
				}
				return
			}
			if set != nil || len(errs) == 0 || errs[len(errs)-1].Error() != tt.want {
				t.Errorf("set %v, errors %v, want %s", set, errs, tt.want)
			}
		})
	}
}

func TestReadSetOfADirectory(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if set, errs := ReadSet(f, "f.txt"); set != nil || len(errs) != 1 || !strings.HasSuffix(errs[0].Error(), "is a directory") {
		t.Errorf("set %v, errors %v", set, errs)
	}
}

// repeating is an endless file of one line.
type repeating struct {
	line []byte
	rest []byte
}

func (r *repeating) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			r.rest = r.line
		}
		c := copy(p[n:], r.rest)
		r.rest, n = r.rest[c:], n+c
	}
	return n, nil
}

// millionLines is a set file of 900,000 random IPv4 elements and 100,000 IPv6
// ones, unsorted: the worst case of a blocklist.
func millionLines() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := range 1_000_000 {
		switch v := rng.Uint32(); i % 10 {
		case 0:
			fmt.Fprintf(&b, "2001:db8:%x:%x::/64\n", v>>16, v&0xffff)
		case 1, 2, 3:
			fmt.Fprintf(&b, "%d.%d.%d.0/24\n", v>>24, v>>16&255, v>>8&255)
		default:
			fmt.Fprintf(&b, "%d.%d.%d.%d\n", v>>24, v>>16&255, v>>8&255, v&255)
		}
	}
	return b.Bytes()
}

func BenchmarkReadSetMillion(b *testing.B) {
	file := millionLines()
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, errs := ReadSet(bytes.NewReader(file), "f.txt"); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

// TestReadSetDoesNotAllocateByLine: twice the lines cost the allocations of a
// growing slice only.
func TestReadSetDoesNotAllocateByLine(t *testing.T) {
	file := bytes.Repeat([]byte("10.0.0.0/8\n192.0.2.1-192.0.2.9 # x\n2001:db8::1\n"), 10_000)
	if n := testing.AllocsPerRun(3, func() { ReadSet(bytes.NewReader(file), "f.txt") }); n > 60 {
		t.Errorf("%v allocations for 30,000 lines", n)
	}
}

// FuzzReadSet: no panic, the same answer for any way of reading, places inside
// the file, and a set that reads back from its own text.
func FuzzReadSet(f *testing.F) {
	f.Add([]byte("10.0.0.0/8\n# x\n\n2001:db8::1-2001:db8::ff\r\n"))
	f.Add([]byte("10.0.0.1/8\nfoo\n ::/0 # all\n"))
	f.Add([]byte("\xef\xbb\xbf::-1::\n1.2.3.4"))
	f.Add([]byte("\x00\n\xff\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		set, errs := ReadSet(bytes.NewReader(file), "f")
		again, errsAgain := ReadSet(iotest.OneByteReader(bytes.NewReader(file)), "f")
		if !slices.Equal(errs, errsAgain) {
			t.Fatalf("errors %v, then %v", errs, errsAgain)
		}
		lines := bytes.Split(file, []byte("\n"))
		for _, e := range errs {
			if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 {
				t.Fatalf("%v is outside of the file", e)
			}
		}
		if len(errs) > 0 {
			return
		}
		if !set.Equal(again) {
			t.Fatalf("%v, then %v", set.Ranges(), again.Ranges())
		}
		back, errs := ReadSet(strings.NewReader(strings.Join(text(set.Ranges()), "\n")), "f")
		if len(errs) > 0 || !back.Equal(set) {
			t.Fatalf("%v read back as %v, %v", set.Ranges(), back, errs)
		}
	})
}

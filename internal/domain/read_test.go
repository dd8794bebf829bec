package domain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"egate/internal/ipset"
)

func patterns(s *Set) (out []string) {
	for _, p := range s.Patterns() {
		out = append(out, p.String())
	}
	return out
}

func TestReadSet(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", ""},
		{"comments", "# a\n\n   # b\n", ""},
		{"names", "b.example\na.example\n*.c.example", "a.example b.example *.c.example"},
		{"doubles", "a.example\nA.Example.\n*.a.example\n", "a.example *.a.example"},
		{"spaces and CRLF", " a.example\t# x\r\n\tb.example\r\n\r\n", "a.example b.example"},
		{"byte order mark", "\ufeffa.example\n", "a.example"},
		{"IDN", "b\u00fccher.example # books\n", "xn--bcher-kva.example"},
		{"hosts", "127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback # x\nfe80::1%lo0\tlocalhost\n0.0.0.0 ads.example\r\n", "ads.example ip6-localhost ip6-loopback localhost"},
		{"addresses in hosts", "0.0.0.0 0.0.0.0\n0.0.0.0 a.example 0.0.0.0\n", "a.example"},
		{"patterns in hosts", "0.0.0.0 *.a.example\n", "*.a.example"},
		{"comment longer than a line", "a.example # " + strings.Repeat("x", 2*ipset.MaxLineBytes) + "\nb.example\n", "a.example b.example"},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
				set, errs := ReadSet(r, "n.txt")
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				if got := strings.Join(patterns(set), " "); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
		})
	}
}

func TestReadSetErrors(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"places", "ok.example\n\n  a..b # x\n\tb\u00fcc her.example\n0.0.0.0 fine.example c..d\n", []string{
			`n.txt:3:3: "a..b" has an empty label: two dots in a row`,
			`n.txt:4:6: "her.example" follows a name; write one name a line, and # before a comment`,
			`n.txt:5:22: "c..d" has an empty label: two dots in a row`,
		}},
		{"column in runes", "0.0.0.0 b\u00fccher.example a..b\n", []string{
			`n.txt:1:24: "a..b" has an empty label: two dots in a row`,
		}},
		{"behind a byte order mark", "\ufeffa..b\n", []string{
			`n.txt:1:1: "a..b" has an empty label: two dots in a row`,
		}},
		{"addresses", "192.0.2.1\n10.0.0.0/8\n", []string{
			`n.txt:1:1: "192.0.2.1" is an address and not a name; write it under addresses`,
			`n.txt:2:1: "10.0.0.0/8" is an address and not a name; write it under addresses`,
		}},
		{"formats of others", "||ads.example^\naddress=/ads.example/\nads.example CNAME .\n", []string{
			`n.txt:1:1: "||ads.example^" is a filter of a web browser; write "*.ads.example" for the names below it, and "ads.example" for the name itself`,
			`n.txt:2:1: "address=/ads.example/" has the character '='; a name has letters, digits, '-' and '_'`,
			`n.txt:3:13: "CNAME ." follows a name; write one name a line, and # before a comment`,
		}},
		{"long line", "a.example\n" + strings.Repeat("x", ipset.MaxLineBytes+1) + "\nb.example\n", []string{
			`n.txt:2:1: the line is longer than 65536 bytes`,
		}},
		{"UTF-16", "\xff\xfea\x00.\x00b\x00\n", []string{
			`n.txt:1:1: "\xff\xfea\x00.\x00b\x00" has the label "\xff\xfea\x00", which is no internationalised name`,
		}},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			set, errs := ReadSet(strings.NewReader(tt.text), "n.txt")
			var got []string
			for _, e := range errs {
				got = append(got, e.Error())
			}
			if set != nil || !slices.Equal(got, tt.want) {
				t.Errorf("set %v, errors\n  %s\nwant\n  %s", set, strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestReadSetShortensErrors(t *testing.T) {
	_, errs := ReadSet(strings.NewReader(strings.Repeat("a..b\n", 100)), "n.txt")
	if len(errs) != maxLineErrors+1 || errs[maxLineErrors].Error() != "n.txt:21:1: and 80 more errors from here on" {
		t.Errorf("%d errors, the last %v", len(errs), errs[len(errs)-1])
	}
}

func TestReadSetTooMany(t *testing.T) {
	var text bytes.Buffer
	for i := range MaxEntries {
		fmt.Fprintf(&text, "n%d.example\n", i)
	}
	if set, errs := ReadSet(bytes.NewReader(text.Bytes()), "n.txt"); len(errs) > 0 || set.Len() != MaxEntries {
		t.Fatalf("as many as may be: %v", errs)
	}
	text.WriteString("one.example\n")
	if set, errs := ReadSet(&text, "n.txt"); set != nil || len(errs) != 1 || errs[0].Error() != "n.txt: the file has more than 1000000 names" {
		t.Errorf("one more: %v", errs)
	}
}

func TestReadSetOfABrokenReader(t *testing.T) {
	r := io.MultiReader(strings.NewReader("a.example\n"), iotest.ErrReader(errors.New("the disk is gone")))
	if set, errs := ReadSet(r, "n.txt"); set != nil || len(errs) != 1 || errs[0].Error() != "n.txt: read the file: the disk is gone" {
		t.Errorf("%v, %v", set, errs)
	}
}

// touching writes to a file while it is read.
type touching struct {
	*os.File
	write func()
}

func (f touching) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err == nil {
		f.write()
	}
	return n, err
}

func TestReadSetOfAFileThatChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.txt")
	tests := map[string]struct {
		write func(*os.File) error
		want  string
	}{
		"nothing":        {func(*os.File) error { return nil }, ""},
		"more":           {func(f *os.File) error { _, err := f.WriteString("b.example\n"); return err }, "n.txt: the file was changed while it was read; put a new list in its place by renaming it"},
		"another time":   {func(f *os.File) error { return os.Chtimes(f.Name(), time.Now(), time.Unix(1, 0)) }, "n.txt: the file was changed while it was read; put a new list in its place by renaming it"},
		"closed by then": {func(*os.File) error { return nil }, "n.txt: read the file: stat " + path + ": file already closed"},
	}
	for name, tt := range tests {
		if err := os.WriteFile(path, []byte("a.example\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = touching{f, func() {
			if err := tt.write(f); err != nil {
				t.Error(err)
			}
		}}
		if name == "closed by then" {
			r = &closing{File: f}
		}
		set, errs := ReadSet(r, "n.txt")
		switch {
		case tt.want == "" && (set == nil || len(errs) > 0):
			t.Errorf("%s: %v", name, errs)
		case tt.want != "" && (set != nil || len(errs) != 1 || errs[0].Error() != tt.want):
			t.Errorf("%s: %v", name, errs)
		}
		f.Close()
	}
}

// closing is closed once it is read.
type closing struct{ *os.File }

func (f *closing) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err == io.EOF {
		f.File.Close()
	}
	return n, err
}

// FuzzReadSet: no panic, errors have a place in the file, and what is accepted
// is in egate's form, sorted and without doubles; written out, it is read as the
// same.
func FuzzReadSet(f *testing.F) {
	for _, seed := range []string{"a.example\n*.b.example # x\n", "0.0.0.0 ads.example\n", "\ufeffa\r\n", "a b\n", "0.0.0.0 0.0.0.0", "||a^", "b\u00fccher.example"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, errs := ReadSet(bytes.NewReader(text), "n.txt")
		if (set == nil) != (len(errs) > 0) {
			t.Fatalf("%v beside %v", set, errs)
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		for _, e := range errs {
			if e.Line < 1 || e.Line > lines || e.Column < 1 || strings.ContainsAny(e.Message, "\n\r\x1b") {
				t.Fatalf("%v", e)
			}
		}
		if set == nil {
			return
		}
		for i, p := range set.Patterns() {
			checkForm(t, "a line", p)
			if i > 0 && compare(set.Patterns()[i-1], p) >= 0 {
				t.Fatalf("%v stands behind %v", p, set.Patterns()[i-1])
			}
		}
		again, errs := ReadSet(strings.NewReader(strings.Join(patterns(set), "\n")), "n.txt")
		if len(errs) > 0 || !again.Equal(set) {
			t.Fatalf("%v is read as %v, %v", patterns(set), again, errs)
		}
	})
}

// listText is a list of n names as feeds have them.
func listText(n int) []byte {
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, "0.0.0.0 ads%x.tracker%d.example.com\n", i*2654435761%(1<<32), i%1000)
	}
	return text.Bytes()
}

// A list of 100,000 names is normal. It takes some 50 ms.
func TestReadSetIsFast(t *testing.T) {
	text := listText(100_000)
	start := time.Now()
	set, errs := ReadSet(bytes.NewReader(text), "n.txt")
	if len(errs) > 0 || set.Len() != 100_000 {
		t.Fatalf("%d names, %v", set.Len(), errs)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func BenchmarkReadSet(b *testing.B) {
	text := listText(100_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, errs := ReadSet(bytes.NewReader(text), "n.txt"); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

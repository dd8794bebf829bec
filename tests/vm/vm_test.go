package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMetaDependency(t *testing.T) {
	const description = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n" +
		"Depends: linux-base (>= 4), linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nDescription: x\n"
	pkg, version, err := metaDependency(description)
	if err != nil || pkg != "linux-image-6.1.0-56-cloud-amd64" || version != "6.1.192-2" {
		t.Errorf("metaDependency = %q, %q, %v", pkg, version, err)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"no kernel":         "Depends: libc6 (= 2.36)\n",
		"no exact version":  "Depends: linux-image-6.1.0-56-cloud-amd64 (>= 6.1)\n",
		"not a dependency":  "Recommends: linux-image-6.1.0-56-cloud-amd64 (= 6.1)\n",
		"no version at all": "Depends: linux-image-6.1.0-56-cloud-amd64\n",
	} {
		if pkg, _, err := metaDependency(text); err == nil {
			t.Errorf("%s: metaDependency = %q, want an error", name, pkg)
		}
	}
}

// bzImage builds a kernel image of one setup sector and a payload.
func bzImage(content string, length uint32) []byte {
	image := make([]byte, 2*512)
	image[0x1f1] = 1
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(image[0x248:], 8)
	binary.LittleEndian.PutUint32(image[0x24c:], length)
	return append(append(image, "loader__"...), content...)
}

func TestPayload(t *testing.T) {
	const lz4 = "\x02\x21\x4c\x18data" + "size"
	got, tool, err := payload(bzImage(lz4, uint32(len(lz4))))
	if err != nil || string(got) != "\x02\x21\x4c\x18data" || tool != "lz4" {
		t.Errorf("payload = %q, %q, %v", got, tool, err)
	}
	if _, tool, err = payload(bzImage("\x28\xb5\x2f\xfddatasize", 12)); err != nil || tool != "zstd" {
		t.Errorf("payload of a zstd kernel = %q, %v", tool, err)
	}
	for name, image := range map[string][]byte{
		"empty":             nil,
		"no header":         make([]byte, 4096),
		"payload too long":  bzImage(lz4, uint32(len(lz4))+1),
		"payload too short": bzImage(lz4, 7),
		"unknown format":    bzImage("123456789abc", 12),
	} {
		if _, _, err := payload(image); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPickModules(t *testing.T) {
	const dep = `kernel/net/sched/sch_fq.ko.xz:
kernel/drivers/net/wireguard/wireguard.ko.xz: kernel/lib/crypto/libcurve25519.ko.xz kernel/net/ipv4/udp_tunnel.ko.xz
kernel/net/ipv4/udp_tunnel.ko.xz:
kernel/lib/crypto/libcurve25519.ko.xz:
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz
kernel/drivers/net/tunable.ko:
`
	want := []string{
		"kernel/drivers/net/wireguard/wireguard.ko.xz", "kernel/lib/crypto/libcurve25519.ko.xz",
		"kernel/net/ipv4/udp_tunnel.ko.xz", "kernel/net/sched/sch_fq.ko.xz",
	}
	if got := pickModules(dep); !reflect.DeepEqual(got, want) {
		t.Errorf("pickModules = %q, want %q", got, want)
	}
}

func TestLibraryPath(t *testing.T) {
	for line, want := range map[string]string{
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n": "/lib/x86_64-linux-gnu/libc.so.6",
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n":                  "/lib64/ld-linux-x86-64.so.2",
		"\tlinux-vdso.so.1 (0x00007ffd)\n":                            "",
		"\tnot a dynamic executable\n":                                "",
		"\tlibmissing.so => not found\n":                              "",
		"/usr/sbin/ip:\n":                                             "",
	} {
		got, ok := libraryPath(line)
		if ok != (want != "") || ok && got != want {
			t.Errorf("libraryPath(%q) = %q, %v; want %q", line, got, ok, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]struct {
		ready, exited bool
		code          int
	}{
		"":                       {},
		"rea":                    {},
		"ready\r\n":              {ready: true},
		"ready\r\nexit 1":        {ready: true}, // "exit 125" cut short
		"ready\r\nexit 125\r\n":  {ready: true, exited: true, code: 125},
		"ready\r\nexit 0\r\n":    {ready: true, exited: true},
		"ready\r\nexit none\r\n": {ready: true},
	} {
		ready, code, exited := parseStatus(text)
		if ready != want.ready || exited != want.exited || code != want.code {
			t.Errorf("parseStatus(%q) = %v, %d, %v; want %+v", text, ready, code, exited, want)
		}
	}
}

func TestGuestEnv(t *testing.T) {
	got := guestEnv([]string{"EGATE_SEED=7", "EGATE_VM=old", "CI=true", "SECRET=x", "PATH=/x"}, "6.1")
	for _, want := range []string{"EGATE_SEED=7", "EGATE_VM=6.1", "CI=true"} {
		if !slices.Contains(got, want) {
			t.Errorf("guestEnv lacks %s: %q", want, got)
		}
	}
	for _, unwanted := range []string{"EGATE_VM=old", "SECRET=x", "PATH=/x"} {
		if slices.Contains(got, unwanted) {
			t.Errorf("guestEnv has %s: %q", unwanted, got)
		}
	}
}

func TestTimeLimit(t *testing.T) {
	for _, c := range []struct {
		args []string
		want time.Duration
	}{
		{[]string{"-test.v", "-test.timeout=10m0s"}, 11 * time.Minute},
		{[]string{"-test.timeout=0s"}, time.Hour},
		{nil, time.Hour},
	} {
		if got := timeLimit(c.args); got != c.want {
			t.Errorf("timeLimit(%q) = %v, want %v", c.args, got, c.want)
		}
	}
}

func TestScriptQuotesEveryWord(t *testing.T) {
	j := job{binary: "/tmp/x.test", args: []string{"-test.run=^A$|B 'c'", "$(reboot)"}, dir: "/a b", env: []string{"EGATE_X=1; 2"}}
	want := `cd '/a b' || exit 125
export 'EGATE_X=1; 2'
exec '/egate/x.test' '-test.run=^A$|B '\''c'\''' '$(reboot)'
`
	if got := j.script(); got != want {
		t.Errorf("script is\n%s\nwant\n%s", got, want)
	}
}

func TestLastLines(t *testing.T) {
	if got := lastLines("a\r\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("lastLines = %q, want b, c", got)
	}
	if got := lastLines("", 2); got != "" {
		t.Errorf("lastLines of nothing = %q", got)
	}
}

// TestArchive reads back the fields of a newc archive by hand; that the kernel
// takes it is shown by every guest.
func TestArchive(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("12345"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "skipped.cpio")
	a, err := appendArchive(path)
	if err != nil {
		t.Fatal(err)
	}
	a.dir("/tmp")
	a.tree(dir, "/x/y", func(relative string, _ os.DirEntry) bool { return relative == "skipped.cpio" })
	a.text("/x/y/file", 0o600, "the first one stays")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"tmp 041777 ", "x 040755 ", "x/y 040755 ", "x/y/file 100640 12345", "x/y/link 120777 file",
		"TRAILER!!! 000000 ",
	}
	if got := readArchive(t, data); !reflect.DeepEqual(got, want) {
		t.Errorf("archive holds %q, want %q", got, want)
	}
}

// readArchive lists a newc archive as "NAME MODE CONTENT".
func readArchive(t *testing.T, data []byte) []string {
	t.Helper()
	field := func(number int) int {
		value := 0
		for _, digit := range data[6+8*number : 14+8*number] {
			value = value*16 + strings.IndexByte("0123456789ABCDEF", digit)
		}
		return value
	}
	octal := func(mode int) string {
		text := ""
		for shift := 15; shift >= 0; shift -= 3 {
			text += string(rune('0' + mode>>shift&7))
		}
		return text
	}
	var entries []string
	for len(data) >= 110 && bytes.HasPrefix(data, []byte("070701")) {
		size, nameSize := field(6), field(11)
		content := (110 + nameSize + 3) &^ 3
		entries = append(entries, string(data[110:110+nameSize-1])+" "+octal(field(1))+" "+
			string(data[content:content+size]))
		data = data[(content+size+3)&^3:]
	}
	if len(data) != 0 {
		t.Fatalf("%d bytes after the last entry", len(data))
	}
	return entries
}

func TestArchiveKeepsTheFirstError(t *testing.T) {
	a, err := appendArchive(filepath.Join(t.TempDir(), "a.cpio"))
	if err != nil {
		t.Fatal(err)
	}
	a.copy("/nonexistent", "/x")
	a.text("/y", 0o644, "")
	if err := a.close(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("close = %v, want the error of the missing file", err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{
		{}, {"boot"}, {"fetch", "5.4"}, {"exec"}, {"exec", "--kernel", "5.4", "x"},
		{"exec", "--kernel", "6.1"}, {"exec", "--memory", "1", "--kernel", "6.1", "x"}, {"exec", "--bad"},
	} {
		var stdout, stderr bytes.Buffer
		code, err := run(context.Background(), args, &stdout, &stderr)
		if code != exitUsage || !errors.Is(err, errUsage) || !strings.Contains(stderr.String(), "usage: vm fetch") {
			t.Errorf("vm %q: code %d, error %v, want usage", args, code, err)
		}
	}
}

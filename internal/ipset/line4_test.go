package ipset

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// agree fails the test where scanLine4 takes a line that the reader of all
// elements would refuse or read otherwise.
func agree(t *testing.T, line string) (taken bool) {
	t.Helper()
	got, ok := scanLine4([]byte(line))
	if !ok {
		return false
	}
	s := setReader{file: "f", line: 2}
	s.addElement([]byte(line), false)
	if len(s.errs) > 0 || len(s.v4) != 1 || s.v4[0] != got {
		t.Fatalf("%q: read as %v, in full as %v %v", line, got.unpack(), s.v4, s.errs)
	}
	return true
}

func TestScanLine4(t *testing.T) {
	for line, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.1\n": true, "192.0.2.1\r\n": true, "0.0.0.0/0\n": true, "255.255.255.255/32\n": true,
		"10.0.0.0/8 # x\n": true, "10.0.0.0/8#x\n": true, "10.0.0.0/8\t \n": true, "10.0.0.1-10.0.0.9\n": true, "10.0.0.1-10.0.0.1": true,
		"": false, "\n": false, "#\n": false, " 10.0.0.1\n": false, "10.0.0.1 x\n": false, "10.0.0\n": false, "10.0.0.\n": false,
		"10.0.0.1.\n": false, "10.0.0.1.1\n": false, "10.0.0.256\n": false, "10.0.0.1000\n": false, "10.0.0.01\n": false,
		"010.0.0.1\n": false, "10..0.1\n": false, "10.0.0.0/\n": false, "10.0.0.0/33\n": false, "10.0.0.0/08\n": false,
		"10.0.0.0/008\n": false, "10.0.0.1/8\n": false, "10.0.0.0/8-10.0.0.9\n": false, "10.0.0.9-10.0.0.1\n": false,
		"10.0.0.1-\n": false, "10.0.0.1-9\n": false, "10.0.0.1 - 10.0.0.9\n": false, "10.0.0.1\x00\n": false, "2001:db8::1\n": false,
		"::ffff:10.0.0.1\n": false, "\ufeff10.0.0.1\n": false, "1/.0.0.1\n": false, "10.0.0.:\n": false,
	} {
		if got := agree(t, line); got != want {
			t.Errorf("%q: taken %v, want %v", line, got, want)
		}
	}
}

func TestScanLine4AgreesOnRandomLines(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	taken := 0
	for range 200_000 {
		a, n := rng.Uint32(), rng.IntN(34)
		line := []byte(fmt.Sprintf("%v/%d #\r\n", From4(a&^(1<<(32-min(n, 32))-1)), n))
		if rng.IntN(2) == 0 {
			line = []byte(fmt.Sprintf("%v-%v\n", From4(a), From4(rng.Uint32())))
		}
		if rng.IntN(2) == 0 {
			line[rng.IntN(len(line))] = "0123456789./-# \t\r\n:x"[rng.IntN(20)]
		}
		if agree(t, string(line)) {
			taken++
		}
	}
	if taken < 50_000 {
		t.Errorf("%d of 200,000 lines were taken: the test tells nothing", taken)
	}
}

func FuzzScanLine4(f *testing.F) {
	f.Add("10.0.0.0/8 # x\r\n")
	f.Add("10.0.0.1-10.0.0.9\n")
	f.Fuzz(func(t *testing.T, line string) { agree(t, line) })
}

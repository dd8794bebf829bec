package readers

import "testing"

// FuzzDNS gives any bytes to the reader as a message: it must make of them what
// the oracle does, and learn nothing else, above all from a malformed one.
func FuzzDNS(f *testing.F) {
	r := newDNSReader(f)
	for _, msg := range serverMessages() {
		// of long ones a change is lost in the repetition
		if len(msg) < 5000 {
			f.Add(msg, uint8(2))
		}
	}
	own := pointer(12)
	m := message(name("a.example"), 65, 3).record(own, 5, 60, name("b.example")...)
	f.Add([]byte(m.record(pointer(39), 65, 60, join([]byte{0, 1, 0}, param(4, 192, 0, 2, 1), param(6, make([]byte, 32)...))...).record(own, 1, 60, 1, 2, 3, 4)), uint8(0))
	f.Add([]byte(message(pointer(12), 1, 0)), uint8(0))
	f.Add([]byte(message(join(labels("a"), pointer(14)), 1, 0)), uint8(0))
	f.Add([]byte(message(name("a"), 1, 2).record(own, 5, 60, pointer(31)...).record(pointer(31), 1, 60, 1, 2, 3, 4)), uint8(0))
	f.Add([]byte(message(name("a"), 1, 1).record(pointer(19), 1, 60, 1, 2, 3, 4)), uint8(0))

	f.Fuzz(func(t *testing.T, msg []byte, base uint8) {
		if len(msg) == 0 || len(msg)+int(base) > maxMessage {
			t.Skip("no message, or longer than the room")
		}
		r.check(t, msg, int(base))
	})
}

// FuzzDotted holds the reader of names with dots to what a name is.
func FuzzDotted(f *testing.F) {
	r := newDNSReader(f)
	for _, s := range []string{"example.com", "WWW.Example.COM.", "a..b", ".", "a b", "xn--bcher-kva.example"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxFrameMessage {
			t.Skip("longer than a name by far")
		}
		want, ok := dottedOracle(b)
		result, d := r.readDotted(t, b)
		if (result == 0) != ok {
			t.Fatalf("%q: returned %d, want a name: %v", b, result, ok)
		}
		if ok && string(d.Wire[:d.NameBytes]) != string(want) {
			t.Fatalf("%q: name %q, want %q", b, d.Wire[:d.NameBytes], want)
		}
	})
}

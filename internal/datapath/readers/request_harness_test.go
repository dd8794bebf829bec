package readers

import (
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"egate/internal/testutil"
)

// requestRoomBytes is EGATE_ROOM_BYTES.
const requestRoomBytes = 16384

// requestKind is enum request of bpf/include/request.h.
type requestKind uint32

const (
	requestMore requestKind = iota
	requestNamed
	requestNameless
	requestUnreadable
)

func (k requestKind) String() string {
	names := [...]string{"more", "named", "nameless", "unreadable"}
	if int(k) >= len(names) {
		return "no answer"
	}
	return names[k]
}

// requestAnswer is what a reader says of the bytes that a client sent.
type requestAnswer struct {
	kind requestKind
	name string // if it is named
	ech  bool
}

// requestReader is bpf/include/request.h in a program of its own.
type requestReader struct {
	program         *ebpf.Program
	room, requested *ebpf.Map
	values          [][]byte // of map room, for each CPU
	roomOffset      int      // where in one the bytes to read stand
	wireOffset      int      // where in struct name the name stands
	ctx             requestContext
}

// requestContext is the part of struct __sk_buff that test runs take.
type requestContext struct {
	_  [12]uint32
	CB [5]uint32
	_  [31]uint32
}

func newRequestReader(t testing.TB) *requestReader {
	t.Helper()
	testutil.RequireRoot(t)
	s, err := loadReaders()
	if err != nil {
		t.Fatal(err)
	}
	var config readersEgatePolicyConfig
	config.Names.InUse = 1
	if err := s.Variables[readersVarConfig].Set(&config); err != nil {
		t.Fatal(err)
	}
	var objects struct {
		Program   *ebpf.Program `ebpf:"egate_read_request"`
		Room      *ebpf.Map     `ebpf:"room"`
		Requested *ebpf.Map     `ebpf:"requested"`
	}
	o := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}}
	if err := s.LoadAndAssign(&objects, &o); err != nil {
		t.Fatalf("load: %+v", err)
	}
	t.Cleanup(func() {
		objects.Program.Close()
		objects.Room.Close()
		objects.Requested.Close()
	})
	r := &requestReader{program: objects.Program, room: objects.Room, requested: objects.Requested}
	for range ebpf.MustPossibleCPU() {
		r.values = append(r.values, make([]byte, r.room.ValueSize()))
	}
	r.roomOffset = memberOffset(t, s.Maps["room"].Value, "bytes")
	r.wireOffset = memberOffset(t, s.Maps["requested"].Value, "wire")
	return r
}

func memberOffset(t testing.TB, of btf.Type, name string) int {
	t.Helper()
	s, ok := of.(*btf.Struct)
	if !ok {
		t.Fatalf("%v is no struct", of)
	}
	for _, m := range s.Members {
		if m.Name == name {
			return int(m.Offset.Bytes())
		}
	}
	t.Fatalf("%v has no member %s", of, name)
	return 0
}

// put lays bytes into the room for the runs to come.
func (r *requestReader) put(t testing.TB, b []byte) {
	t.Helper()
	for _, v := range r.values {
		copy(v[r.roomOffset:][:requestRoomBytes], b)
	}
	if err := r.room.Put(uint32(0), r.values); err != nil {
		t.Fatal(err)
	}
}

// readPut reads the first n bytes that lie in the room.
func (r *requestReader) readPut(t testing.TB, n int) requestAnswer {
	t.Helper()
	returned, _ := r.run(t, n, 1)
	a := requestAnswer{kind: requestKind(returned & 0xff), ech: returned&256 != 0}
	if returned > 511 || a.kind > requestUnreadable {
		t.Fatalf("program returned %#x", returned)
	}
	if a.kind == requestNamed {
		name, err := r.requested.LookupBytes(uint32(0))
		if err != nil {
			t.Fatal(err)
		}
		a.name = dotted(t, name[r.wireOffset:])
	}
	return a
}

// read reads bytes.
func (r *requestReader) read(t testing.TB, b []byte) requestAnswer {
	t.Helper()
	r.put(t, b)
	return r.readPut(t, min(len(b), requestRoomBytes))
}

func (r *requestReader) run(t testing.TB, n, repeat int) (returned uint32, ns float64) {
	t.Helper()
	r.ctx.CB[0] = uint32(n)
	opts := ebpf.RunOptions{Data: emptyFrame, Context: &r.ctx, Repeat: uint32(repeat)}
	start := time.Now()
	returned, err := r.program.Run(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return returned, float64(time.Since(start).Nanoseconds()) / float64(repeat)
}

// emptyFrame is an Ethernet and an IPv4 header, without which no test run begins.
var emptyFrame = func() []byte {
	f := make([]byte, 14+20)
	f[12] = 8 // IPv4
	f[14] = 0x45
	return f
}()

// dotted writes out a name that stands as DNS writes it.
func dotted(t testing.TB, wire []byte) string {
	t.Helper()
	var labels []string
	for wire[0] != 0 {
		n := int(wire[0])
		if n > 63 || n+1 >= len(wire) {
			t.Fatalf("name has a label of %d bytes: %x", n, wire)
		}
		labels = append(labels, string(wire[1:1+n]))
		wire = wire[1+n:]
	}
	return strings.Join(labels, ".")
}

package readers

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/domain"
	"egate/internal/testutil"
)

// frameHeaders is what stands in front of a message in a test frame: Ethernet
// and IPv4, without which the kernel runs nothing.
var frameHeaders = func() []byte {
	h := make([]byte, 34)
	binary.BigEndian.PutUint16(h[12:], 0x0800)
	h[14] = 0x45
	return h
}()

const (
	// test frames hold messages of up to this many bytes; longer ones go
	// through map long_message
	maxFrameMessage = 3072
	// EGATE_ROOM_BYTES
	maxMessage = 16384
	maxLearned = 4096
)

// testKey is the key of names' hashes.
var testKey = domain.Key{0x0706050403020100, 0x0f0e0d0c0b0a0908}

// learnedAddress is an address that the reader opened.
type learnedAddress struct {
	addr netip.Addr
	ttl  uint32 // seconds
}

// dnsReading is what the reader makes of a message; struct dns_reading.
type dnsReading struct {
	Question     int32 // offset behind the question, or -1; of readDotted what it returned
	Answers      int32 // number of addresses, or -1; this and all below only with a question
	AskedType    uint16
	NameBytes    uint16
	Longest      uint16
	Labels       uint8
	_            uint8
	Hash         uint64
	Starts       [128]uint8
	Wire         [256]uint8
	LearnedCount uint32
	_            uint32
}

// dnsReader is bpf/include/dns.h in programs of its own, whose learn() only
// notes what it is told.
type dnsReader struct {
	program    *ebpf.Program
	dotted     *ebpf.Program
	reading    *ebpf.Map
	long       *ebpf.Map
	context    dnsContext
	value      []byte // of map dns_reading
	frame      []byte
	longBuffer []byte
}

// dnsContext is the part of struct __sk_buff that test runs take.
type dnsContext struct {
	_  [12]uint32
	CB [5]uint32
	_  [31]uint32
}

func newDNSReader(t testing.TB) *dnsReader {
	t.Helper()
	testutil.RequireRoot(t)
	spec, err := loadReaders()
	if err != nil {
		t.Fatal(err)
	}
	var config readersEgatePolicyConfig
	config.Names.InUse, config.Names.Key = 1, testKey
	if err := spec.Variables[readersVarConfig].Set(&config); err != nil {
		t.Fatal(err)
	}
	var objects struct {
		Program *ebpf.Program `ebpf:"egate_read_dns"`
		Dotted  *ebpf.Program `ebpf:"egate_read_dotted"`
		Reading *ebpf.Map     `ebpf:"dns_reading"`
		Long    *ebpf.Map     `ebpf:"long_message"`
	}
	o := &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}}
	if err := spec.LoadAndAssign(&objects, o); err != nil {
		t.Fatalf("load: %+v", err)
	}
	r := &dnsReader{program: objects.Program, dotted: objects.Dotted, reading: objects.Reading, long: objects.Long}
	r.value = make([]byte, r.reading.ValueSize())
	r.longBuffer = make([]byte, maxMessage)
	t.Cleanup(func() {
		r.program.Close()
		r.dotted.Close()
		r.reading.Close()
		r.long.Close()
	})
	return r
}

var processed = regexp.MustCompile(`processed (\d+) insns`)

// read reads a message that stands in the room behind base bytes of something else.
func (r *dnsReader) read(t testing.TB, message []byte, base int) (d dnsReading, learned []learnedAddress) {
	t.Helper()
	if returned, err := r.program.Run(r.options(t, message, base)); err != nil {
		t.Fatalf("run program on %x: %v", message, err)
	} else if returned != 0 {
		t.Fatalf("program returned %d for %x", int32(returned), message)
	}
	return r.result(t)
}

// readDotted reads a name with dots. It returns what read_dotted does, and what
// it leaves of the name.
func (r *dnsReader) readDotted(t testing.TB, name []byte) (int32, dnsReading) {
	t.Helper()
	// the message has a byte behind the name, so that there may be none in it
	opts := r.options(t, append(name[:len(name):len(name)], 'x'), 7)
	if returned, err := r.dotted.Run(opts); err != nil {
		t.Fatalf("run program on %q: %v", name, err)
	} else if returned != 0 {
		t.Fatalf("program returned %d for %q", int32(returned), name)
	}
	d, _ := r.result(t)
	return d.Question, d
}

func (r *dnsReader) result(t testing.TB) (d dnsReading, learned []learnedAddress) {
	t.Helper()
	if err := r.reading.Lookup(uint32(0), &r.value); err != nil {
		t.Fatal(err)
	}
	n, err := binary.Decode(r.value, binary.LittleEndian, &d)
	if err != nil {
		t.Fatal(err)
	}
	if d.LearnedCount > maxLearned {
		t.Fatalf("%d addresses are more than the test has room for", d.LearnedCount)
	}
	for entry := r.value[n:]; len(learned) < int(d.LearnedCount); entry = entry[24:] {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], binary.LittleEndian.Uint64(entry))
		binary.BigEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(entry[8:]))
		learned = append(learned, learnedAddress{netip.AddrFrom16(b).Unmap(), binary.LittleEndian.Uint32(entry[16:])})
	}
	return d, learned
}

func (r *dnsReader) options(t testing.TB, message []byte, base int) *ebpf.RunOptions {
	t.Helper()
	r.context.CB = [5]uint32{uint32(base)}
	r.frame = append(r.frame[:0], frameHeaders...)
	if len(message) > 0 && len(message) <= maxFrameMessage {
		r.frame = append(r.frame, message...)
		return &ebpf.RunOptions{Data: r.frame, Context: &r.context}
	}
	copy(r.longBuffer, message)
	if err := r.long.Put(uint32(0), r.longBuffer); err != nil {
		t.Fatal(err)
	}
	r.context.CB[1] = uint32(len(message))
	return &ebpf.RunOptions{Data: r.frame, Context: &r.context}
}

// price is what one run costs, in nanoseconds, over many on the same message:
// the least of some rounds.
func (r *dnsReader) price(t testing.TB, message []byte) float64 {
	t.Helper()
	return r.priceOf(t, r.program, message)
}

func (r *dnsReader) priceOf(t testing.TB, program *ebpf.Program, message []byte) float64 {
	t.Helper()
	const runs = 20_000
	opts := r.options(t, message, 0)
	opts.Repeat = runs
	least := time.Duration(1<<63 - 1)
	for range 5 {
		start := time.Now()
		if _, err := program.Run(opts); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(start))
	}
	return float64(least.Nanoseconds()) / runs
}

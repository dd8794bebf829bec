package programs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"

	"egate/internal/testutil/frames"
)

// What the programs return, from linux/pkt_cls.h.
const (
	passed  = 0xffffffff // TC_ACT_UNSPEC
	dropped = 2          // TC_ACT_SHOT
)

// target is a destination, and whether a packet to it must be dropped.
type target struct {
	to   netip.AddrPort
	drop bool
}

// field is the destinations of the test runs of several programs, all of one
// family.
type field struct {
	targets      []target
	v6           bool
	frame        []byte
	fresh        bool   // each packet is the first one of its connection
	first        uint32 // number of the first run, a multiple of the number of targets
	destinations *ebpf.Map
}

// newField makes a field of a power of two of targets, in the order of the runs.
// The caller closes.
func newField(targets []target) (*field, error) {
	if n := len(targets); n == 0 || n&(n-1) != 0 {
		return nil, fmt.Errorf("make destinations: there are %d of them, want a power of two", n)
	}
	f := &field{targets: targets, v6: !targets[0].to.Addr().Is4()}
	own := netip.MustParseAddr("192.0.2.1")
	if f.v6 {
		own = netip.MustParseAddr("2001:db8::1")
	}
	f.frame = frames.UDP(own, targets[0].to.Addr(), 40000, targets[0].to.Port(), make([]byte, 22))

	spec, err := loadScatter()
	if err != nil {
		return nil, fmt.Errorf("load program scatter: %w", err)
	}
	s := spec.Maps["destinations"]
	s.MaxEntries = uint32(len(targets))
	if f.destinations, err = ebpf.NewMap(s); err != nil {
		return nil, fmt.Errorf("make destinations: %w", err)
	}
	keys, values := make([]uint32, len(targets)), make([]scatterDestination, len(targets))
	for i, t := range targets {
		keys[i] = uint32(i)
		values[i].set(t.to)
	}
	if _, err := f.destinations.BatchUpdate(keys, values, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("fill destinations: %w", err), f.Close())
	}
	return f, nil
}

// set writes address and port as they are on the wire.
func (d *scatterDestination) set(to netip.AddrPort) {
	for i, b := 0, to.Addr().AsSlice(); len(b) > 0; i, b = i+1, b[4:] {
		d.Address[i] = binary.NativeEndian.Uint32(b)
	}
	d.Port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, to.Port()))
}

func (f *field) Close() error { return f.destinations.Close() }

// runner is a program under test on a field.
type runner struct {
	field   *field
	objects scatterObjects
}

// newRunner makes the program run on the field. The field must stay open. The
// caller closes.
func newRunner(p *ebpf.Program, f *field) (*runner, error) {
	r := &runner{field: f}
	spec, err := loadScatter()
	if err != nil {
		return nil, fmt.Errorf("load program scatter: %w", err)
	}
	spec.Maps["destinations"].MaxEntries = f.destinations.MaxEntries()
	if err := errors.Join(spec.Variables["mask"].Set(f.destinations.MaxEntries()-1), spec.Variables["v6"].Set(bit(f.v6)),
		spec.Variables["fresh"].Set(bit(f.fresh))); err != nil {
		return nil, fmt.Errorf("load program scatter: %w", err)
	}
	err = spec.LoadAndAssign(&r.objects, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"destinations": f.destinations},
	})
	if err != nil {
		return nil, fmt.Errorf("load program scatter: %w", err)
	}
	if err := r.objects.Contender.Put(uint32(0), p); err != nil {
		return nil, errors.Join(fmt.Errorf("put program under test: %w", err), r.Close())
	}
	return r, nil
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (r *runner) Close() error { return r.objects.Close() }

// check sends one packet to each of the first n targets and compares what the
// program decides with what it must, which is to let all pass if it does not
// filter: a figure of a program that decides something else says nothing.
func (r *runner) check(n int, filters bool) error {
	if err := r.objects.Next.Set(r.field.first); err != nil {
		return fmt.Errorf("start with the first destination: %w", err)
	}
	for _, t := range r.field.targets[:min(n, len(r.field.targets))] {
		verdict, err := r.objects.Scatter.Run(&ebpf.RunOptions{Data: r.field.frame, Repeat: 1})
		if err != nil {
			return err
		}
		want := uint32(passed)
		if t.drop && filters {
			want = dropped
		}
		if verdict != want {
			return fmt.Errorf("check program: a packet to %v returned %#x, want %#x", t.to, verdict, want)
		}
	}
	return nil
}

// price is the mean of that many runs in nanoseconds, which the kernel gives as
// a whole number.
func (r *runner) price(runs int) (float64, error) {
	verdict, ns, err := r.objects.Scatter.Benchmark(r.field.frame, runs, nil)
	if err != nil {
		return 0, err
	}
	if verdict != passed && verdict != dropped {
		return 0, fmt.Errorf("run program: the last packet returned %#x", verdict)
	}
	return float64(ns.Nanoseconds()), nil
}

// closers are closed together, the last one first.
type closers []io.Closer

func (c *closers) keep(k io.Closer) { *c = append(*c, k) }

func (c *closers) Close() error {
	var err error
	for i := len(*c) - 1; i >= 0; i-- {
		err = errors.Join(err, (*c)[i].Close())
	}
	return err
}

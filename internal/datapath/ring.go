package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"egate/internal/verdict"
)

// RingEvent is one decision as the program reported it; see struct egate_event
// and struct egate_named_event in bpf/include/abi.h.
type RingEvent struct {
	abiEgateEvent
	wire [abiEgateLimitEGATE_LIMIT_NAME_BYTES]byte // the name, if NameLength is not 0
}

// decode reads a record of the ring.
func (e *RingEvent) decode(record []byte) error {
	n, err := binary.Decode(record, binary.NativeEndian, &e.abiEgateEvent)
	if err != nil {
		return err
	}
	if e.NameLength == 0 {
		return nil
	}
	if copy(e.wire[:], record[n:]) < int(e.NameLength) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// ringPatience is how long a reader waits before it looks whether its ring is
// still the gate's.
const ringPatience = time.Second

// Ring is the ring buffer of a gate's events. Read is for one goroutine; Close
// may be called from another and ends a Read that waits.
type Ring struct {
	gate   *gate
	lock   *os.File
	metas  map[uint32]*meta // by generation; nil: gone before it was asked for
	names  map[ringInterface]string
	record ringbuf.Record

	mu     sync.Mutex // guards reader and closed
	reader *ringbuf.Reader
	closed bool
	mapID  ebpf.MapID
}

// OpenRing opens a gate's events. What one reader takes another doesn't see,
// so there is one at a time. The caller closes it.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrBusy or ErrPermission.
func OpenRing(name string) (*Ring, error) {
	r, err := openRing(name)
	if err != nil {
		return nil, fmt.Errorf("open events of gate %s: %w", name, explain(err))
	}
	return r, nil
}

func openRing(name string) (*Ring, error) {
	if err := CheckGateName(name); err != nil {
		return nil, err
	}
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return nil, ErrNoGate
	}
	if err != nil {
		return nil, err
	}
	r := &Ring{gate: h.gate(name), metas: map[uint32]*meta{}, names: map[ringInterface]string{}}
	exists, err := r.gate.exists()
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, ErrNoGate
	}
	if err := r.gate.checkABI(); err != nil {
		return nil, err
	}
	if r.lock, err = os.Open(r.gate.path(statePin)); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	if err := lockReader(r.lock); err != nil {
		r.lock.Close()
		return nil, err
	}
	if err := r.open(); err != nil {
		r.lock.Close()
		return nil, err
	}
	if err := r.learn(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func lockReader(f *os.File) error {
	err := lockFile(f, time.Now())
	if !errors.Is(err, ErrBusy) {
		return err
	}
	if pid := lockHolder(f); pid != 0 {
		return fmt.Errorf("another reader has them (pid %d), and an event is seen by one: %w", pid, ErrBusy)
	}
	return fmt.Errorf("another reader has them, and an event is seen by one: %w", ErrBusy)
}

// open opens the gate's ring as it is now.
func (r *Ring) open() error {
	m, id, err := r.pinned()
	if err != nil {
		return err
	}
	defer m.Close()
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return fmt.Errorf("read ring buffer: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		reader.Close()
		return os.ErrClosed
	}
	if r.reader != nil {
		r.reader.Close()
	}
	r.reader, r.mapID = reader, id
	return nil
}

func (r *Ring) pinned() (*ebpf.Map, ebpf.MapID, error) {
	m, err := ebpf.LoadPinnedMap(r.gate.path(statePin, eventsMap), nil)
	if err != nil {
		return nil, 0, fmt.Errorf("open ring buffer: %w", err)
	}
	info, err := m.Info()
	if err != nil {
		m.Close()
		return nil, 0, fmt.Errorf("ask for map id: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		m.Close()
		return nil, 0, fmt.Errorf("ask for map id: the kernel tells none: %w", ErrUnsupported)
	}
	return m, id, nil
}

// learn reads what is known of the generations that are there, while they are.
func (r *Ring) learn() error {
	dirs, err := r.gate.generationDirs()
	if err != nil {
		return err
	}
	for _, number := range dirs {
		r.meta(number)
	}
	return nil
}

// Read waits for the next event and stores it. It returns io.EOF when the gate
// is off, and os.ErrClosed after Close.
func (r *Ring) Read(event *RingEvent) error {
	for {
		r.mu.Lock()
		reader, closed := r.reader, r.closed
		r.mu.Unlock()
		if closed {
			return fmt.Errorf("read events: %w", os.ErrClosed)
		}
		reader.SetDeadline(time.Now().Add(ringPatience))
		err := reader.ReadInto(&r.record)
		switch {
		case err == nil:
			if err := event.decode(r.record.RawSample); err != nil {
				return fmt.Errorf("read events: one of %d bytes: %w", len(r.record.RawSample), err)
			}
			return nil
		case errors.Is(err, ringbuf.ErrClosed):
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("read events: %w", err)
		}
		if err := r.follow(); err != nil {
			return err
		}
	}
}

// follow goes over to another ring if the gate has one.
func (r *Ring) follow() error {
	m, id, err := r.pinned()
	if errors.Is(err, fs.ErrNotExist) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	m.Close()
	if id == r.mapID {
		return nil
	}
	r.metas, r.names = map[uint32]*meta{}, map[ringInterface]string{}
	if err := r.open(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// meta gives what is known of a generation, nil if that is gone.
func (r *Ring) meta(number uint32) *meta {
	m, asked := r.metas[number]
	if asked {
		return m
	}
	m, err := readMeta(r.gate.path(fmt.Sprintf("%s%d", genPrefix, number), metaPin))
	if err != nil {
		m = nil
	}
	r.metas[number] = m
	return m
}

// Rule gives the label of the rule that decided, "default" where none did, and
// the position where its policy is gone.
func (r *Ring) Rule(e *RingEvent) string {
	if e.Rule == uint32(abiEgateLimitEGATE_LIMIT_NO_RULE) {
		return "default"
	}
	m := r.meta(e.Generation)
	if m != nil && int(e.Direction) < len(m.Chains) {
		if rules := m.Chains[verdict.Direction(e.Direction)].Rules; int(e.Rule) < len(rules) {
			return rules[e.Rule].Label
		}
	}
	return fmt.Sprintf("#%d of generation %d", e.Rule+1, e.Generation)
}

// ringInterface is an interface as a generation knows it.
type ringInterface struct{ generation, ifindex uint32 }

// Interface gives the name that the interface had when its policy was applied
// or adopted it, "" where that is gone. An interface that comes later with the
// index of one that is gone is taken for it.
func (r *Ring) Interface(e *RingEvent) string {
	m := r.meta(e.Generation)
	if m == nil {
		return ""
	}
	key := ringInterface{e.Generation, e.Ifindex}
	name, known := r.names[key]
	if known {
		return name
	}
	// A generation whose pins are gone meanwhile has what meta says.
	adopted, err := readAdopted(r.gate.path(fmt.Sprintf("%s%d", genPrefix, e.Generation)))
	if err != nil {
		adopted = nil
	}
	for _, o := range ownersOf(m, adopted) {
		r.names[ringInterface{e.Generation, uint32(o.Index)}] = o.Name
	}
	return r.names[key]
}

// Name gives the name that the packet goes by: of a connection's request, of a
// question, or of the destination. It is "" where there is none, its text is
// forgotten, or the gate's names can't be read: an event is worth having without.
func (r *Ring) Name(e *RingEvent) string {
	if e.NameLength > 0 {
		text, _ := textOfWire(e.wire[:], e.NameLength)
		return text
	}
	if e.abiEgateEvent.Name == 0 {
		return ""
	}
	m, err := r.openNames()
	if err != nil {
		return ""
	}
	defer m.Close()
	text, err := hashText(m, e.abiEgateEvent.Name)
	if err != nil {
		return ""
	}
	return text
}

// openNames opens the texts of names: those of a policy on trial may have
// another pin. Each time, since they come and go with policies.
func (r *Ring) openNames() (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(r.gate.path(statePin, namesMap), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		m, err = ebpf.LoadPinnedMap(r.gate.path(statePin, namesMap+twinSuffix), &ebpf.LoadPinOptions{ReadOnly: true})
	}
	return m, err
}

// Close ends the reading.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return errors.Join(r.reader.Close(), r.lock.Close())
}

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Unread is an answer that the programs could not read, and have dropped.
type Unread struct {
	Name    string // the asked one as zone files have it, without a dot at the end; "." is the root
	Server  netip.Addr
	Type    uint16 // of the question
	Outcome string // why it was not read, see Outcomes

	timeNs uint64
	hash   uint64
	wire   []byte
}

// UnreadReader reads what the programs of a gate could not. Read is for one
// goroutine; Close may be called from another and ends a Read that waits.
type UnreadReader struct {
	gate   *gate
	record ringbuf.Record

	mu     sync.Mutex // guards reader, mapID and closed
	reader *ringbuf.Reader
	mapID  ebpf.MapID
	closed bool
}

// OpenUnread opens a gate's ring of unread answers. What one reader takes
// another does not see; the caller sees to it that there is one. Where no policy
// of the gate ever used names, Read waits for one that does. The caller closes.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged or ErrPermission.
func OpenUnread(name string) (*UnreadReader, error) {
	r := &UnreadReader{}
	var err error
	if r.gate, err = findGate(name); err == nil {
		err = r.follow()
	}
	if err != nil {
		return nil, fmt.Errorf("open unread answers: %w", explain(err))
	}
	return r, nil
}

// follow opens the gate's ring as it is now, if it is another one.
func (r *UnreadReader) follow() error {
	t, err := patiently(r.gate.openNameTables)
	if err != nil || t == nil {
		return err
	}
	defer t.close()
	m := t.state[unreadMap]
	info, err := m.Info()
	if err != nil {
		return fmt.Errorf("ask for map id: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return fmt.Errorf("ask for map id: the kernel tells none: %w", ErrUnsupported)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || id == r.mapID {
		return nil
	}
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return fmt.Errorf("read ring buffer: %w", err)
	}
	if r.reader != nil {
		err = r.reader.Close()
	}
	r.reader, r.mapID = reader, id
	return err
}

// unreadLife is for how long who asked may wait for an answer, or ask again.
const unreadLife = time.Minute

// Read waits for the next answer that could not be read; what was told more than
// a minute ago, to no reader, is passed over. It returns io.EOF when
// the gate is off, and os.ErrClosed after Close.
func (r *UnreadReader) Read() (Unread, error) {
	for {
		r.mu.Lock()
		reader, closed := r.reader, r.closed
		r.mu.Unlock()
		var err error
		switch {
		case closed:
			return Unread{}, fmt.Errorf("read unread answers: %w", os.ErrClosed)
		case reader == nil: // no policy uses names yet
			time.Sleep(ringPatience)
			err = os.ErrDeadlineExceeded
		default:
			reader.SetDeadline(time.Now().Add(ringPatience))
			err = reader.ReadInto(&r.record)
		}
		switch {
		case err == nil:
			nowNs, err := monotonic()
			if err != nil {
				return Unread{}, fmt.Errorf("read unread answers: %w", err)
			}
			u, ok := decodeUnread(r.record.RawSample)
			if !ok || older(u.timeNs, unreadLife, nowNs) {
				continue
			}
			return u, nil
		case errors.Is(err, ringbuf.ErrClosed):
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return Unread{}, fmt.Errorf("read unread answers: %w", err)
		}
		err = r.follow()
		switch {
		case errors.Is(err, ErrNoGate):
			return Unread{}, io.EOF
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrDamaged):
			continue // a writer is at work, or was killed: the next look tells
		case err != nil:
			return Unread{}, fmt.Errorf("read unread answers: %w", explain(err))
		}
	}
}

// decodeUnread is not ok for a name that can't be one.
func decodeUnread(raw []byte) (Unread, bool) {
	var u abiEgateUnread
	if _, err := binary.Decode(raw, binary.NativeEndian, &u); err != nil {
		return Unread{}, false
	}
	name, ok := textOfWire(u.Wire[:], u.Length)
	if !ok || int(u.Outcome) >= len(outcomes) {
		return Unread{}, false
	}
	return Unread{
		Name: name, Server: netipOf(u.Server), Type: u.Type, Outcome: outcomes[u.Outcome].name,
		timeNs: u.TimeNs, hash: u.Name, wire: u.Wire[:u.Length],
	}, true
}

// Close ends the reading.
func (r *UnreadReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.reader == nil {
		return nil
	}
	return r.reader.Close()
}

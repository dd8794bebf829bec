package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/packet"
)

// streamRoomBytes is the size of an unfinished message's room.
const streamRoomBytes = int(abiEgateLimitEGATE_LIMIT_ROOM_BYTES)

// How long entries of names' maps stay that nothing needs.
const (
	questionLife  = 30 * time.Second // longer than any resolver is waited for
	forgottenLife = time.Hour        // of a name's text without address or connection: people ask what was looked up
	// Streams bear no time. One whose numbers did not change for so long, and
	// whose connection has no name, has ended: servers close idle DNS
	// connections after seconds or minutes.
	streamLife = 10 * time.Minute
)

// Swept tells how many entries a sweep removed.
type Swept struct {
	Addresses int // whose names have all expired
	Names     int // texts of names
	Questions int // without an answer
	Bindings  int // connections that go by a name, and have ended
	Streams   int // connections whose first request or DNS was being read
}

// Sweeper removes from a gate's maps of names what has expired, so that it does
// not crowd out what has not. Programs never need it: they see by the times what
// has expired. It is for one goroutine.
type Sweeper struct {
	gate    string
	streams map[abiEgateFlowKey]streamSeen
}

// streamSeen is since when a stream has these numbers.
type streamSeen struct {
	stream  abiEgateStream
	sinceNs uint64
}

// NewSweeper makes one for a gate, which need not exist yet.
func NewSweeper(gate string) *Sweeper { return &Sweeper{gate: gate} }

// Sweep sweeps once. Where no policy of the gate ever used names there is
// nothing to do.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged or ErrPermission.
func (s *Sweeper) Sweep() (Swept, error) {
	nowNs, err := monotonic()
	if err != nil {
		return Swept{}, fmt.Errorf("sweep: %w", err)
	}
	swept, err := s.sweep(nowNs)
	if err != nil {
		return swept, fmt.Errorf("sweep: %w", explain(err))
	}
	return swept, nil
}

func (s *Sweeper) sweep(nowNs uint64) (out Swept, err error) {
	t, err := openNameTables(s.gate)
	if err != nil || t == nil {
		return out, err
	}
	defer t.close()
	used := map[uint64]bool{}
	bound := map[abiEgateFlowKey]bool{}
	if out.Addresses, err = t.sweepLearned(nowNs, used); err != nil {
		return out, err
	}
	if out.Bindings, err = t.sweepBindings(nowNs, used, bound); err != nil {
		return out, err
	}
	if out.Names, err = t.sweepNames(nowNs, used); err != nil {
		return out, err
	}
	if out.Questions, err = t.sweepQuestions(nowNs); err != nil {
		return out, err
	}
	out.Streams, err = s.sweepStreams(t, nowNs, bound)
	return out, err
}

// older tells whether a time lies a life behind. Programs read a coarse clock,
// and write while this runs, so that it may lie ahead, too.
func older(thanNs uint64, life time.Duration, nowNs uint64) bool {
	return nowNs > thanNs && nowNs-thanNs > uint64(life)
}

// sweepLearned removes addresses whose names have all expired. used gets the
// names that the others have.
func (t *nameTables) sweepLearned(nowNs uint64, used map[uint64]bool) (int, error) {
	var expired []abiEgateAddr
	dead := func(_ *abiEgateAddr, l *abiEgateLearned) bool {
		for i := range l.Slots {
			if l.Slots[i].Name != 0 && l.Slots[i].ExpiresNs > nowNs {
				return false
			}
		}
		return l.Lock == 0
	}
	err := eachEntry(t.state[learnedMap], func(a *abiEgateAddr, l *abiEgateLearned) error {
		if dead(a, l) {
			expired = append(expired, *a)
			return nil
		}
		for i := range l.Slots {
			used[l.Slots[i].Name] = true
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	removed, err := take(t.state[learnedMap], expired, dead, func(a *abiEgateAddr) error { return t.announce(*a) })
	return removed, errors.Join(err, t.count(sweptAddresses, removed))
}

// sweepBindings removes connections that are over. used gets the names of the
// others, bound the others.
func (t *nameTables) sweepBindings(nowNs uint64, used map[uint64]bool, bound map[abiEgateFlowKey]bool) (int, error) {
	var over []abiEgateFlowKey
	dead := func(k *abiEgateFlowKey, b *abiEgateBinding) bool {
		if k.Proto == packet.ProtoTCP {
			return older(b.SeenNs, flowTCPLife, nowNs)
		}
		return older(b.SeenNs, flowOtherLife, nowNs)
	}
	err := eachEntry(t.state[bindingsMap], func(k *abiEgateFlowKey, b *abiEgateBinding) error {
		if dead(k, b) {
			over = append(over, *k)
			return nil
		}
		used[b.Slot.Name] = true
		bound[*k] = true
		return nil
	})
	if err != nil {
		return 0, err
	}
	removed, err := take(t.state[bindingsMap], over, dead, nothing[abiEgateFlowKey])
	return removed, errors.Join(err, t.count(sweptBindings, removed))
}

func nothing[K any](*K) error { return nil }

// sweepNames removes texts that nothing refers to and that were not met lately.
func (t *nameTables) sweepNames(nowNs uint64, used map[uint64]bool) (int, error) {
	var unused []uint64
	dead := func(_ *uint64, n *abiEgateName) bool {
		return older(n.SeenNs, forgottenLife, nowNs) && n.VouchedNs <= nowNs
	}
	err := eachEntry(t.state[namesMap], func(hash *uint64, n *abiEgateName) error {
		if !used[*hash] && dead(hash, n) {
			unused = append(unused, *hash)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	// A name that an address was given meanwhile was met just now.
	removed, err := take(t.state[namesMap], unused, dead, nothing[uint64])
	return removed, errors.Join(err, t.count(sweptNames, removed))
}

// sweepQuestions removes questions that nobody will answer.
func (t *nameTables) sweepQuestions(nowNs uint64) (int, error) {
	var old []abiEgateQuestionKey
	dead := func(_ *abiEgateQuestionKey, q *abiEgateQuestion) bool { return older(q.AskedNs, questionLife, nowNs) }
	err := eachEntry(t.state[questionsMap], func(k *abiEgateQuestionKey, q *abiEgateQuestion) error {
		if dead(k, q) {
			old = append(old, *k)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	removed, err := take(t.state[questionsMap], old, dead, nothing[abiEgateQuestionKey])
	return removed, errors.Join(err, t.count(sweptQuestions, removed))
}

// sweepStreams removes streams that did not move for long, with their unfinished
// messages.
func (s *Sweeper) sweepStreams(t *nameTables, nowNs uint64, bound map[abiEgateFlowKey]bool) (int, error) {
	var still []abiEgateFlowKey
	there := map[abiEgateFlowKey]streamSeen{}
	dead := func(k *abiEgateFlowKey, now *abiEgateStream) bool { return *now == there[*k].stream }
	err := eachEntry(t.state[streamsMap], func(k *abiEgateFlowKey, now *abiEgateStream) error {
		seen, known := s.streams[*k]
		if !known || seen.stream != *now {
			seen = streamSeen{*now, nowNs}
		}
		there[*k] = seen
		connection := *k
		connection.Pad = [3]uint8{}
		if older(seen.sinceNs, streamLife, nowNs) && !bound[connection] {
			still = append(still, *k)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.streams = there
	removed, err := take(t.state[streamsMap], still, dead, nothing[abiEgateFlowKey])
	if err != nil {
		return removed, err
	}
	return removed, errors.Join(t.dropUnfinished(there, still), t.count(sweptStreams, removed))
}

// dropUnfinished removes unfinished messages whose streams are gone, here or by
// the kernel's eviction.
func (t *nameTables) dropUnfinished(there map[abiEgateFlowKey]streamSeen, removed []abiEgateFlowKey) error {
	for _, k := range removed {
		delete(there, k)
	}
	var left []abiEgateFlowKey
	err := eachEntry(t.state[streamRoomsMap], func(k *abiEgateFlowKey, _ *[streamRoomBytes]byte) error {
		if _, known := there[*k]; !known {
			left = append(left, *k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range left {
		var now abiEgateStream
		switch err := t.state[streamsMap].Lookup(&left[i], &now); {
		case err == nil:
			continue // it is there again
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return fmt.Errorf("look for stream: %w", err)
		}
		if err := t.state[streamRoomsMap].Delete(&left[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove unfinished message: %w", err)
		}
	}
	return nil
}

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/packet"
)

// Bounds of lives, as in bpf/include/learn.h.
const (
	minTTL = time.Minute
	maxTTL = 24 * time.Hour
)

// vouchedLife is for how long answers about a name that can't be read pass once
// it was learned otherwise: long enough for who asked to ask again.
const vouchedLife = time.Minute

// AddressTTL is an address that a name leads to, and for how long.
type AddressTTL struct {
	Address netip.Addr
	TTL     time.Duration
}

// Vouch opens addresses to the name of an answer that the programs could not
// read, as they would have done themselves, and lets such answers about it pass
// for a minute: who calls it has asked the same server the same and read all.
// It tells how many addresses are open to the name; those that no name opens are
// passed over.
//
// A program that gives the same address another name in the microsecond between
// this reading and writing it loses that; who asked for it asks again when the
// connection it wanted is refused.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged or ErrPermission.
func Vouch(gate string, u *Unread, addresses []AddressTTL) (opened int, err error) {
	opened, err = vouch(gate, u, addresses)
	if err != nil {
		return opened, fmt.Errorf("vouch for %s: %w", u.Name, explain(err))
	}
	return opened, nil
}

func vouch(name string, u *Unread, addresses []AddressTTL) (opened int, err error) {
	t, err := openNameTables(name)
	if err != nil || t == nil {
		return 0, err
	}
	defer t.close()
	nowNs, err := monotonic()
	if err != nil {
		return 0, err
	}
	// The text first: by it programs find the name's class.
	if err := t.keepText(u, nowNs, 0); err != nil {
		return 0, err
	}
	for _, a := range addresses {
		if isSpecial(a.Address) {
			continue
		}
		if err := t.open(addrKey(a.Address), u.hash, nowNs, min(max(a.TTL, minTTL), maxTTL)); err != nil {
			return opened, err
		}
		opened++
	}
	return opened, t.keepText(u, nowNs, nowNs+uint64(vouchedLife))
}

// isSpecial is the twin of is_special in bpf/include/learn.h.
func isSpecial(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() {
		return true
	}
	if a.Is4() {
		b := a.As4()
		return b[0] == 0 || b[0] == 127 || b[0] == 169 && b[1] == 254 || b[0] >= 224
	}
	b := a.As16()
	return [8]byte(b[:8]) == [8]byte{} || b[0] == 0xff || b[0] == 0xfe && b[1]&0xc0 == 0x80
}

// keepText enters a name's text, or marks it as met just now.
func (t *nameTables) keepText(u *Unread, nowNs, vouchedNs uint64) error {
	var n abiEgateName
	err := t.state[namesMap].Lookup(u.hash, &n)
	fresh := errors.Is(err, ebpf.ErrKeyNotExist)
	if err != nil && !fresh {
		return fmt.Errorf("look a name up: %w", err)
	}
	n.SeenNs, n.VouchedNs = nowNs, max(vouchedNs, n.VouchedNs)
	n.Length = uint8(len(u.wire))
	copy(n.Wire[:], u.wire)
	if err := t.state[namesMap].Put(u.hash, &n); err != nil {
		return fmt.Errorf("write a name: %w", err)
	}
	if fresh {
		return t.count(addedNames, 1)
	}
	return nil
}

// lockedTries is how often a value is read again that a program is writing,
// which takes it less than a microsecond.
const lockedTries = 100

// open gives an address a name, as learn does in bpf/include/learn.h. The name's
// class stays to be found by a program: no generation has number 0.
func (t *nameTables) open(a abiEgateAddr, name, nowNs uint64, life time.Duration) error {
	slot := abiEgateNameSlot{Name: name, ExpiresNs: nowNs + uint64(life)}
	m := t.state[learnedMap]
	for tries := 0; ; tries++ {
		var l abiEgateLearned
		err := m.Lookup(&a, &l)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			l = abiEgateLearned{Addr: a}
			l.Slots[0] = slot
			err = m.Update(&a, &l, ebpf.UpdateNoExist)
			if err == nil {
				return errors.Join(t.count(addedAddresses, 1), t.announce(a))
			}
			if errors.Is(err, ebpf.ErrKeyExist) && tries < lockedTries {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("open address: %w", err)
		}
		if (l.Lock != 0 || l.Addr != a) && tries < lockedTries {
			continue
		}
		l.Addr, l.Lock = a, 0
		put := &l.Slots[chooseSlot(&l, name, nowNs)]
		if put.Name == name && put.ExpiresNs > nowNs {
			slot.ClassOf, slot.ExpiresNs = put.ClassOf, max(put.ExpiresNs, slot.ExpiresNs)
		}
		*put = slot
		err = m.Update(&a, &l, ebpf.UpdateExist)
		if errors.Is(err, ebpf.ErrKeyNotExist) && tries < lockedTries {
			continue // evicted
		}
		if err != nil {
			return fmt.Errorf("open address: %w", err)
		}
		return t.announce(a)
	}
}

// chooseSlot is the twin of choose_slot in bpf/include/learn.h but for what it
// knows of classes.
func chooseSlot(l *abiEgateLearned, name, nowNs uint64) int {
	best, bestRank := 0, -1
	for i := range l.Slots {
		s, rank := &l.Slots[i], 0
		switch {
		case s.Name == name:
			rank = 2
		case s.ExpiresNs <= nowNs:
			rank = 1
		}
		if rank > bestRank || rank == bestRank && s.ExpiresNs < l.Slots[best].ExpiresNs {
			best, bestRank = i, rank
		}
	}
	return best
}

// ownStreamBytes is how much of an own connection passes unread: half of what
// sequence numbers can tell apart, and far more than the answer to a question.
const ownStreamBytes = 1 << 30

// PassUnread lets what comes in on a connection to a DNS server pass unread, so
// that its owner can read answers that the programs can't. The connection is
// established; local and server are its ends. Where the gate does not see the
// connection there is nothing to do.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged or ErrPermission.
func PassUnread(gate string, local, server netip.AddrPort) error {
	if err := passUnread(gate, local, server); err != nil {
		return fmt.Errorf("let own DNS connection pass: %w", explain(err))
	}
	return nil
}

func passUnread(name string, local, server netip.AddrPort) error {
	t, err := openNameTables(name)
	if err != nil || t == nil {
		return err
	}
	defer t.close()
	key := abiEgateFlowKey{
		Local: addrKey(local.Addr().WithZone("")), Remote: addrKey(server.Addr().WithZone("")),
		LocalPort: local.Port(), RemotePort: server.Port(), Proto: packet.ProtoTCP,
		Pad: [3]uint8{uint8(abiEgateDirectionEGATE_INGRESS)},
	}
	var s abiEgateStream
	err = t.state[streamsMap].Lookup(&key, &s)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for stream: %w", err)
	}
	// Segments before the next one pass: they were read.
	s.Next += ownStreamBytes
	if err := t.state[streamsMap].Update(&key, &s, ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("write stream: %w", err)
	}
	return nil
}

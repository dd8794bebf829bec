package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// wireName is a name as DNS writes it.
func wireName(name string) []byte {
	var wire []byte
	for label := range strings.SplitSeq(name, ".") {
		wire = append(append(wire, byte(len(label))), label...)
	}
	return append(wire, 0)
}

// writeLearned gives an address names in the maps that answers are learned to.
// Their classes belong to no generation, so that the program looks for itself.
func writeLearned(t testing.TB, s state, addr netip.Addr, life time.Duration, list ...string) {
	t.Helper()
	key, err := s.nameKey()
	if err != nil {
		t.Fatal(err)
	}
	now, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	value := abiEgateLearned{Addr: addrKey(addr)}
	for i, name := range list {
		hash := key.Hash(name)
		value.Slots[i] = abiEgateNameSlot{Name: hash, ExpiresNs: now + uint64(life)}
		text := abiEgateName{SeenNs: now, Length: uint8(len(wireName(name)))}
		copy(text.Wire[:], wireName(name))
		if err := s[namesMap].Put(hash, &text); err != nil {
			t.Fatal(err)
		}
	}
	if err := s[learnedMap].Put(&value.Addr, &value); err != nil {
		t.Fatal(err)
	}
}

package datapath

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"egate/internal/packet"
	"egate/internal/tables"
	"egate/internal/verdict"
)

// tellNames fills in what names the packet goes by: its destination's, or that
// of its connection.
func (m *memory) tellNames(k *packet.Key, st *tables.State) {
	if !m.set.DNS.InUse {
		return
	}
	m.world.Tell(k, st)
	key, ok := m.flow(k)
	if !ok || k.Direction != verdict.Egress || isOpening(k) {
		return
	}
	if name, bound := m.bound[key]; bound {
		st.Names = []string{name}
	}
}

// bind lets the packet's connection go by a name from now on, if the rule that
// let it pass asks for names and it does not yet.
func (m *memory) bind(k *packet.Key, st tables.State, r tables.Result) {
	key, ok := m.flow(k)
	if !ok || k.Direction != verdict.Egress || r.Reason != verdict.ReasonRule || r.Action != verdict.Allow {
		return
	}
	if _, bound := m.bound[key]; bound && !isOpening(k) {
		return
	}
	if name, ok := m.set.Chains[verdict.Egress].Bound(r.Rule, st.Names); ok {
		m.bound[key] = name
	}
}

// sameName checks that an event names one of the packet's names. Who asks a
// server names what it asks for.
func sameName(e *abiEgateEvent, j *judged) error {
	if e.Name == 0 || j.state.Resolver {
		return nil
	}
	for _, name := range j.state.Names {
		if benchKey.Hash(name) == e.Name {
			return nil
		}
	}
	return fmt.Errorf("the event has name %x, the packet %q", e.Name, j.state.Names)
}

// know lets the program have learned what the packet's destination is called in
// the policy's world.
func (b *testBench) know(t *testing.T, m *memory, k *packet.Key) {
	t.Helper()
	if !m.set.DNS.InUse || k.Direction != verdict.Egress || !k.Has(packet.HaveDst) || m.known[k.Dst] {
		return
	}
	m.known[k.Dst] = true
	names := slices.Compact(m.world.Names(k.Dst))
	if len(names) > 0 {
		writeLearned(t, b.state, k.Dst.Netip(), time.Hour, names...)
	}
}

package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// read fills in what is known of names in the view of a generation.
func (s *NamesStatus) read(g *gate, shown *generation) error {
	s.InUse = shown.meta.Names != nil
	if s.InUse {
		m, err := shown.openMap(resolversMap)
		if err != nil {
			return err
		}
		s.Servers, err = trustedOf(m)
		m.Close()
		if err != nil {
			return err
		}
	}
	st, err := g.readableNames(shown)
	if err != nil || st == nil {
		return err
	}
	defer st.close()
	// The counters first: what comes between the readings must not look evicted.
	t, err := s.readTotals(st)
	if err != nil {
		return err
	}
	return s.readTables(st, t)
}

func (s *NamesStatus) readTotals(st state) (*abiEgateNameTotals, error) {
	var perCPU []abiEgateNameTotals
	if err := st[nameTotalsMap].Lookup(uint32(0), &perCPU); err != nil {
		return nil, fmt.Errorf("read totals of names: %w", err)
	}
	t := addNameTotals(perCPU)
	for i, count := range t.Outcome {
		if count > 0 {
			s.Messages = append(s.Messages, MessageTotals{outcomes[i].name, outcomes[i].text, count})
		}
	}
	s.Addresses = AddressTotals{t.AddressesNew, t.AddressesProlonged, t.AddressesSpecial, t.NamesDisplaced}
	s.Texts = TextTotals{t.NamesNew, t.NamesForgotten}
	s.Bound, s.Failed = t.BindingsNew, t.Failed
	s.Unread = UnreadTotals{t.UnreadSent, t.UnreadLost}
	return t, nil
}

func addNameTotals(perCPU []abiEgateNameTotals) *abiEgateNameTotals {
	sum := &abiEgateNameTotals{}
	for i := range perCPU {
		from := &perCPU[i]
		for o := range sum.Outcome {
			sum.Outcome[o] += from.Outcome[o]
		}
		sum.AddressesNew += from.AddressesNew
		sum.AddressesProlonged += from.AddressesProlonged
		sum.AddressesSpecial += from.AddressesSpecial
		sum.NamesNew += from.NamesNew
		sum.NamesDisplaced += from.NamesDisplaced
		sum.NamesForgotten += from.NamesForgotten
		sum.BindingsNew += from.BindingsNew
		sum.Failed += from.Failed
		sum.UnreadSent += from.UnreadSent
		sum.UnreadLost += from.UnreadLost
	}
	return sum
}

// readTables tells how full the tables are, and of those whose new entries are
// all counted also what was evicted.
func (s *NamesStatus) readTables(st state, t *abiEgateNameTotals) error {
	swept := make([]uint64, sweptEntries)
	for i := range swept {
		if err := st[sweptMap].Lookup(uint32(i), &swept[i]); err != nil {
			return fmt.Errorf("read what was swept: %w", err)
		}
	}
	for _, table := range []struct {
		name  string
		count func(*ebpf.Map) (uint64, error)
	}{
		{learnedMap, countEntries[abiEgateAddr, abiEgateLearned]},
		{namesMap, countEntries[uint64, abiEgateName]},
		{questionsMap, countEntries[abiEgateQuestionKey, abiEgateQuestion]},
		{bindingsMap, countEntries[abiEgateFlowKey, abiEgateBinding]},
		{streamsMap, countEntries[abiEgateFlowKey, abiEgateStream]},
		{streamRoomsMap, countEntries[abiEgateFlowKey, streamRoom]},
	} {
		known, err := table.count(st[table.name])
		if err != nil {
			return err
		}
		out := TableStatus{Name: table.name, Known: known, Max: uint64(st[table.name].MaxEntries())}
		switch table.name {
		case learnedMap:
			out.Evicted = evicted(t.AddressesNew+swept[addedAddresses], swept[sweptAddresses]+known)
		case namesMap:
			out.Evicted = evicted(t.NamesNew+swept[addedNames], swept[sweptNames]+known)
		}
		s.Tables = append(s.Tables, out)
	}
	return nil
}

// evicted is what was entered and is neither there nor was taken out. Readings
// of counters that go on may be one ahead of another.
func evicted(entered, accounted uint64) *uint64 {
	n := entered - min(entered, accounted)
	return &n
}

// streamRoom is struct egate_stream_room of bpf/include/maps.h.
type streamRoom [abiEgateLimitEGATE_LIMIT_ROOM_BYTES]byte

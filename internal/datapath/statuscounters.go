package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"egate/internal/packet"
	"egate/internal/verdict"
)

// readCounters adds up the sums of generations that are gone and the counters
// of those that are there.
func (s *Status) readCounters(v *view, shown *generation, st state) error {
	all := map[sumKey]*sum{}
	var own *counted
	// The generations first: one that is folded meanwhile is then found in the
	// sums with its number, and left out here.
	counters := map[uint32]*counted{}
	for _, gen := range v.generations {
		c, err := gen.counters()
		if err != nil {
			return err
		}
		counters[gen.number] = c
		if gen == shown {
			own = c
		}
	}
	var key sumKey
	var value sum
	entries := st[sumsMap].Iterate()
	for entries.Next(&key, &value) {
		total := value
		all[key] = &total
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read sums: %w", err)
	}
	for _, gen := range v.generations {
		err := counters[gen.number].each(func(key sumKey, part uint32, c *sum) error {
			total := all[key]
			if total == nil {
				total = &sum{}
				all[key] = total
			}
			if !total.has(gen.number, part) {
				total.add(c.Packets[:], c.Bytes[:])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.setRules(shown.meta, own, all)
	s.setInterfaces(shown, all)
	return s.readTotals(st)
}

func (s *Status) setRules(m *meta, own *counted, all map[sumKey]*sum) {
	for _, d := range verdict.Directions {
		from, to := &m.Chains[d], &s.Chains[d]
		to.Default, to.Replies = from.Default.String(), from.Replies
		to.Fallback = ruleCounters(all[defaultKey(d)])
		for i, r := range from.Rules {
			c := &own.rules[d][i]
			if r.Name != "" {
				c = all[ruleKey(d, r.Name)]
			}
			to.Rules = append(to.Rules, RuleStatus{
				Label: r.Label, Name: r.Name, Line: r.Line, Action: r.Action.String(),
				Merged: r.Merged, LastLine: r.LastLine, RuleCounters: ruleCounters(c),
			})
		}
	}
}

func ruleCounters(c *sum) RuleCounters {
	return RuleCounters{
		Allowed: c.counter(verdict.Allow), Dropped: c.counter(verdict.Drop),
		Rejected: c.counter(verdict.Reject), Continued: c.counter(verdict.Continue),
	}
}

// counter gives the counter of an action; that of nil is zero.
func (s *sum) counter(a verdict.Action) Counter {
	if s == nil {
		return Counter{}
	}
	return Counter{Packets: s.Packets[a], Bytes: s.Bytes[a]}
}

func (s *Status) setInterfaces(shown *generation, all map[sumKey]*sum) {
	for _, o := range shown.owners {
		out := newInterfaceStatus(o.guarded)
		for _, d := range verdict.Directions {
			c, h := all[interfaceKey(d, o.guarded)], &out.Hooks[d]
			h.Allowed, h.Dropped, h.Rejected = c.counter(verdict.Allow), c.counter(verdict.Drop), c.counter(verdict.Reject)
		}
		s.Interfaces = append(s.Interfaces, out)
	}
	for _, g := range shown.dnsOnly() {
		if shown.owner(g.Index) != nil { // it was adopted since
			continue
		}
		out := newInterfaceStatus(g)
		out.DNSOnly = true
		s.Interfaces = append(s.Interfaces, out)
	}
	slices.SortFunc(s.Interfaces, func(a, b InterfaceStatus) int { return cmp.Compare(a.Ifindex, b.Ifindex) })
}

func newInterfaceStatus(g guarded) InterfaceStatus {
	out := InterfaceStatus{Name: g.Name, NamedAt: g.Name, Ifindex: g.Index, Link: "ethernet"}
	if g.Link == uint8(abiEgateLinkEGATE_LINK_NONE) {
		out.Link = "none"
	}
	for d := range out.Hooks {
		out.Hooks[d].Programs = []Program{}
	}
	return out
}

// readTotals reads the counters that all policies share.
func (s *Status) readTotals(st state) error {
	for _, d := range verdict.Directions {
		var perCPU []abiEgateTotals
		if err := st[totalsMap].Lookup(uint32(d), &perCPU); err != nil {
			return fmt.Errorf("read totals: %w", err)
		}
		sum := addTotals(perCPU)
		out := &s.Totals[d]
		for number := range sum.Proto {
			p := &sum.Proto[number]
			if *p == (abiEgateProtoCounter{}) {
				continue
			}
			out.Protocols = append(out.Protocols, ProtocolTotals{
				Number: uint8(number), Name: protocolName(uint8(number)),
				Passed:  Counter{p.PassedPackets, p.PassedBytes},
				Blocked: Counter{p.BlockedPackets, p.BlockedBytes},
			})
		}
		for number := range sum.Reason {
			if r := &sum.Reason[number]; *r != (abiEgateReasonCounter{}) {
				out.Reasons = append(out.Reasons, ReasonTotals{verdict.Reason(number).String(), Counter{r.Packets, r.Bytes}})
			}
		}
		out.Answers = AnswerTotals{sum.AnswersSent, sum.AnswersFailed}
		out.Events = EventTotals{sum.EventsSent, sum.EventsLost, sum.EventsSuppressed}
		s.Flows.Failed += sum.FlowsFailed
	}
	known, err := countEntries[abiEgateFlowKey, abiEgateFlow](st[flowsMap])
	if err != nil {
		return err
	}
	s.Flows.Known, s.Flows.Max = known, uint64(st[flowsMap].MaxEntries())
	return nil
}

func addTotals(perCPU []abiEgateTotals) *abiEgateTotals {
	sum := &abiEgateTotals{}
	for c := range perCPU {
		from := &perCPU[c]
		for i := range sum.Proto {
			sum.Proto[i].PassedPackets += from.Proto[i].PassedPackets
			sum.Proto[i].PassedBytes += from.Proto[i].PassedBytes
			sum.Proto[i].BlockedPackets += from.Proto[i].BlockedPackets
			sum.Proto[i].BlockedBytes += from.Proto[i].BlockedBytes
		}
		for i := range sum.Reason {
			sum.Reason[i].Packets += from.Reason[i].Packets
			sum.Reason[i].Bytes += from.Reason[i].Bytes
		}
		sum.AnswersSent += from.AnswersSent
		sum.AnswersFailed += from.AnswersFailed
		sum.EventsSent += from.EventsSent
		sum.EventsLost += from.EventsLost
		sum.EventsSuppressed += from.EventsSuppressed
		sum.FlowsFailed += from.FlowsFailed
	}
	return sum
}

// countEntries counts what is in a hash, many a call.
func countEntries[K, V any](m *ebpf.Map) (count uint64, err error) {
	err = eachEntry(m, func(*K, *V) error { count++; return nil })
	return count, err
}

// eachEntry calls f for what is in a hash, many a call of the kernel. Others
// may write it meanwhile.
func eachEntry[K, V any](m *ebpf.Map, f func(*K, *V) error) error {
	size := min(flowBatch, int(m.MaxEntries()))
	keys, values := make([]K, size), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read %v: %w", m, err)
		}
		for i := range n {
			if err := f(&keys[i], &values[i]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// protocolName is "" for protocols that have no name here, and for the number
// that stands for packets whose protocol could not be read.
func protocolName(number uint8) string {
	if number == uint8(abiEgateLimitEGATE_LIMIT_UNKNOWN_PROTOCOL) {
		return ""
	}
	return packet.ProtoName(number)
}

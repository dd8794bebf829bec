package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"egate/internal/packet"
	"egate/internal/verdict"
)

// How often and how long a reader tries to meet a gate between two changes.
const (
	readTries = 50
	readPause = 10 * time.Millisecond
)

// ReadStatus reads how a gate stands. It takes no lock and changes nothing;
// if a writer is at work, it reads again until both ends of a reading agree.
//
// Errors wrap ErrGateName, ErrNoGate, ErrABI, ErrDamaged, ErrPermission, or
// ErrBusy if the gate never stood still.
func ReadStatus(name string) (*Status, error) {
	if err := CheckGateName(name); err != nil {
		return nil, err
	}
	h, err := openHost()
	if errors.Is(err, errNoBPFFS) {
		return nil, fmt.Errorf("read status of gate %s: %w", name, ErrNoGate)
	}
	if err != nil {
		return nil, fmt.Errorf("read status of gate %s: %w", name, explain(err))
	}
	g := h.gate(name)
	for tries := 0; ; tries++ {
		s, err := g.readStatus()
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, errMoved) && tries < readTries:
			time.Sleep(readPause)
		case errors.Is(err, errMoved):
			return nil, fmt.Errorf("read status of gate %s: it changes all the time: %w", name, ErrBusy)
		default:
			return nil, fmt.Errorf("read status: %w", explain(err))
		}
	}
}

// errMoved says that the gate was changed while it was read.
var errMoved = errors.New("the gate was changed meanwhile")

// readStatus reads once. It gives errMoved if a writer changed something.
func (g *gate) readStatus() (*Status, error) {
	exists, err := g.exists()
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, g.errNone()
	}
	before, err := g.fingerprint()
	if err != nil {
		return nil, err
	}
	s, err := g.readOnce()
	after, again := g.fingerprint()
	if again != nil || before != after {
		return nil, errMoved
	}
	return s, err
}

// fingerprint changes whenever a writer changes what is in force or pinned.
func (g *gate) fingerprint() (string, error) {
	slot, err := g.slot()
	if err != nil {
		return "", err
	}
	dirs, err := g.generationDirs()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprint(slot, dirs), nil // maps are printed sorted
}

func (g *gate) readOnce() (*Status, error) {
	s := &Status{
		Gate: g.name, State: Enforcing, Problems: []string{}, Interfaces: []InterfaceStatus{},
	}
	for d := range s.Chains {
		s.Chains[d].Rules = []RuleStatus{}
		s.Totals[d].Protocols, s.Totals[d].Reasons = []ProtocolTotals{}, []ReasonTotals{}
	}
	slot, err := g.slot()
	if err != nil {
		return nil, err
	}
	if slot == 0 {
		s.State = Broken
		s.Problems = append(s.Problems, "nothing is in force: an apply or off was interrupted; run it again")
		return s, nil
	}
	if err := g.checkABI(); err != nil {
		return nil, err
	}
	v, err := g.view()
	if err != nil {
		return nil, err
	}
	defer v.close()
	shown := s.describe(v)
	if shown == nil {
		return s, nil
	}
	state, err := g.readableState(shown)
	if err != nil {
		return nil, err
	}
	defer state.close()
	if err := s.readCounters(v, shown, state); err != nil {
		return nil, err
	}
	if err := s.readHooks(g, shown); err != nil {
		return nil, err
	}
	if len(s.Problems) > 0 && s.State == Enforcing {
		s.State = Broken
	}
	return s, nil
}

// describe fills in what is known of the policy in force, and gives its
// generation; nil if there is none.
func (s *Status) describe(v *view) *generation {
	shown := v.current
	switch {
	case shown == nil:
		s.State = Broken
		s.Problems = append(s.Problems, fmt.Sprintf("program %d is in force, and its pins are gone: nothing is known of it; apply a policy, or run off", v.slot))
		return nil
	case v.expired:
		s.State, s.Deadline = Reverted, &v.deadline
		if v.previous != nil {
			shown = v.previous
		} else {
			s.Problems = append(s.Problems, fmt.Sprintf("the policy %s was not confirmed and none was in force before: everything passes; run off, or apply a policy", shown.meta.Policy))
		}
	case v.pending:
		s.State, s.Deadline = Pending, &v.deadline
		if v.previous != nil {
			s.Previous = v.previous.meta.Policy
		}
	}
	m := shown.meta
	s.Policy, s.Path, s.SHA256, s.Generation, s.Applied = m.Policy, m.Path, m.SHA256, m.Generation, m.Applied
	s.Audit, s.Netns, s.Hook = m.Audit, m.Netns.Inode, m.Hook
	return shown
}

// readableState opens the state for reading, with the connection table that a
// generation uses: while a confirmation is pending there can be two. The caller
// closes.
func (g *gate) readableState(shown *generation) (state, error) {
	s := state{}
	for _, name := range []string{sumsMap, totalsMap, flowsMap} {
		m, err := ebpf.LoadPinnedMap(g.path(statePin, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			s.close()
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w; `apply --replace-state` starts afresh", err, ErrDamaged)
			}
			return nil, fmt.Errorf("open %s of the state: %w", name, err)
		}
		s[name] = m
	}
	twin, err := ebpf.LoadPinnedMap(g.path(statePin, flowsMap+twinSuffix), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open %s of the state: %w", flowsMap, err)
	}
	uses, err := shown.usesMap(twin)
	if err != nil {
		twin.Close()
		s.close()
		return nil, err
	}
	if !uses {
		twin.Close()
		return s, nil
	}
	s[flowsMap].Close()
	s[flowsMap] = twin
	return s, nil
}

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
		err := counters[gen.number].each(gen.meta, func(key sumKey, c *sum) error {
			total := all[key]
			if total == nil {
				total = &sum{}
				all[key] = total
			}
			if total.Folded != gen.number {
				total.add(c.Packets[:], c.Bytes[:])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.setRules(shown.meta, own, all)
	s.setInterfaces(shown.meta, all)
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
				Label: r.Label, Name: r.Name, Line: r.Line, Action: r.Action.String(), RuleCounters: ruleCounters(c),
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

func (s *Status) setInterfaces(m *meta, all map[sumKey]*sum) {
	for _, i := range m.Interfaces {
		out := InterfaceStatus{Name: i.Name, NamedAt: i.Name, Ifindex: i.Index, Link: "ethernet"}
		if i.Link == uint8(abiEgateLinkEGATE_LINK_NONE) {
			out.Link = "none"
		}
		for _, d := range verdict.Directions {
			c := all[interfaceKey(d, i)]
			out.Hooks[d] = HookStatus{
				Programs: []Program{},
				Allowed:  c.counter(verdict.Allow), Dropped: c.counter(verdict.Drop), Rejected: c.counter(verdict.Reject),
			}
		}
		s.Interfaces = append(s.Interfaces, out)
	}
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
	known, err := countEntries(st[flowsMap])
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

// countEntries counts the connections, many a call.
func countEntries(m *ebpf.Map) (uint64, error) {
	keys := make([]abiEgateFlowKey, flowBatch)
	values := make([]abiEgateFlow, flowBatch)
	var cursor ebpf.MapBatchCursor
	for known := uint64(0); ; {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		known += uint64(n)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return known, nil
		}
		if err != nil {
			return 0, fmt.Errorf("count connections: %w", err)
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

// readHooks looks at the interfaces, in the gate's network namespace if that
// can be found.
func (s *Status) readHooks(g *gate, shown *generation) error {
	owners, err := g.host.dispatcherOwners()
	if err != nil {
		return err
	}
	ran, err := inNetns(shown.meta.Netns, func() error {
		links, err := listLinks()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
		}
		for i := range s.Interfaces {
			if err := s.readInterface(&s.Interfaces[i], names, owners); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !ran {
		s.Problems = append(s.Problems, fmt.Sprintf("network namespace net:[%d] is gone, or belongs to no process that can be seen from here", s.Netns))
	}
	return err
}

func (s *Status) readInterface(i *InterfaceStatus, names map[int]string, owners map[ebpf.ProgramID]string) error {
	name, ok := names[i.Ifindex]
	if !ok {
		i.Gone = true
		s.Problems = append(s.Problems, fmt.Sprintf("interface %s (ifindex %d) is gone; the next apply forgets it", i.NamedAt, i.Ifindex))
		return nil
	}
	i.Name = name
	for _, d := range verdict.Directions {
		h := &i.Hooks[d]
		programs, err := hookPrograms(i.Ifindex, d, owners)
		if err != nil {
			return err
		}
		h.Programs = append(h.Programs, programs...)
		h.Position = 1 + slices.IndexFunc(programs, func(p Program) bool { return p.Gate == s.Gate })
		h.Attached = h.Position > 0
		if !h.Attached {
			s.Problems = append(s.Problems, fmt.Sprintf("%s of %s is not guarded: somebody has detached egate; apply the policy again", d, i.Name))
		}
	}
	return nil
}

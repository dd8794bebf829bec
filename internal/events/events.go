// Package events is stage 5: from the kernel to typed events. It reads the
// decisions that a gate's programs report and gives them names: of rules,
// interfaces, reasons.
package events

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"egate/internal/datapath"
	"egate/internal/ipset"
	"egate/internal/packet"
	"egate/internal/verdict"
)

// Event is one decision about one packet; a GSO super-packet is one.
type Event struct {
	Time       time.Time // wall clock
	Gate       string
	Generation uint32 // of the policy that decided
	Direction  verdict.Direction
	Interface  string // as it was called when the policy was applied; "" where that is not known any more
	Ifindex    uint32

	Action verdict.Action
	Reason verdict.Reason
	Rule   string // the rule's label, or "default"
	Audit  bool   // the packet passed all the same

	Source, Destination netip.Addr // invalid where they could not be read
	Name                string     // that the packet goes by, or its DNS message asks for; "" where there is none or its text is forgotten
	Family              uint8      // 4 or 6; 0 where the packet is not IP or could not be read
	EtherType           uint16     // behind all VLAN tags; 0 without a link header
	HasProto            bool
	Proto               uint8
	HasPorts            bool // TCP, UDP, SCTP
	SourcePort          uint16
	DestinationPort     uint16
	HasICMP             bool // ICMP, ICMPv6
	ICMPType, ICMPCode  uint8
	ICMPID              uint16 // of an echo
	TCPFlags            uint8  // 0 for other protocols
	Fragment            packet.Fragment

	Segments uint16 // how many packets leave the host
	Length   uint32 // bytes, with the link header
}

// jsonEvent is the stable form of an Event for programs.
type jsonEvent struct {
	Time            time.Time  `json:"time"`
	Gate            string     `json:"gate"`
	Generation      uint32     `json:"generation"`
	Direction       string     `json:"direction"`
	Interface       string     `json:"interface"`
	Ifindex         uint32     `json:"ifindex"`
	Action          string     `json:"action"`
	Reason          string     `json:"reason"`
	Rule            string     `json:"rule"`
	Audit           bool       `json:"audit"`
	Source          netip.Addr `json:"source,omitzero"`
	Destination     netip.Addr `json:"destination,omitzero"`
	Name            string     `json:"name,omitempty"`
	Family          uint8      `json:"family,omitzero"`
	EtherType       uint16     `json:"ether_type,omitzero"`
	Proto           *uint8     `json:"protocol,omitzero"`
	ProtoName       string     `json:"protocol_name,omitzero"`
	SourcePort      *uint16    `json:"source_port,omitzero"`
	DestinationPort *uint16    `json:"destination_port,omitzero"`
	ICMPType        *uint8     `json:"icmp_type,omitzero"`
	ICMPCode        *uint8     `json:"icmp_code,omitzero"`
	ICMPID          *uint16    `json:"icmp_id,omitzero"`
	TCPFlags        uint8      `json:"tcp_flags,omitzero"`
	Fragment        string     `json:"fragment,omitzero"`
	Segments        uint16     `json:"segments"`
	Length          uint32     `json:"length"`
}

var fragmentNames = map[packet.Fragment]string{packet.FirstFragment: "first", packet.LaterFragment: "later"}

// MarshalJSON gives the stable form; fields of what could not be read, or the
// protocol does not have, are left out.
func (e Event) MarshalJSON() ([]byte, error) {
	out := jsonEvent{
		Time: e.Time, Gate: e.Gate, Generation: e.Generation,
		Direction: e.Direction.String(), Interface: e.Interface, Ifindex: e.Ifindex,
		Action: e.Action.String(), Reason: e.Reason.String(), Rule: e.Rule, Audit: e.Audit,
		Source: e.Source, Destination: e.Destination, Name: e.Name, Family: e.Family, EtherType: e.EtherType,
		TCPFlags: e.TCPFlags, Fragment: fragmentNames[e.Fragment], Segments: e.Segments, Length: e.Length,
	}
	if e.HasProto {
		out.Proto, out.ProtoName = &e.Proto, packet.ProtoName(e.Proto)
	}
	if e.HasPorts {
		out.SourcePort, out.DestinationPort = &e.SourcePort, &e.DestinationPort
	}
	if e.HasICMP {
		out.ICMPType, out.ICMPCode, out.ICMPID = &e.ICMPType, &e.ICMPCode, &e.ICMPID
	}
	return json.Marshal(out)
}

// Option changes how a Reader reads.
type Option func(*Reader)

// KeepOld gives also the events from before Open that still lie in the ring.
func KeepOld(r *Reader) { r.sinceNs = 0 }

// Reader reads a gate's events, one reader at a time. Read is for one
// goroutine; Close may be called from another.
type Reader struct {
	gate    string
	ring    *datapath.Ring
	sinceNs uint64 // CLOCK_MONOTONIC
}

// Open begins to read a gate's events, from now on. The caller closes.
//
// Errors wrap datapath.ErrGateName, ErrNoGate, ErrABI, ErrBusy or
// ErrPermission.
func Open(gate string, options ...Option) (*Reader, error) {
	r := &Reader{gate: gate}
	var err error
	if r.sinceNs, err = monotonicNs(); err != nil {
		return nil, err
	}
	for _, option := range options {
		option(r)
	}
	if r.ring, err = datapath.OpenRing(gate); err != nil {
		return nil, err
	}
	return r, nil
}

// Read waits for the next event. It returns io.EOF when the gate is off, and an
// error that wraps os.ErrClosed after Close.
func (r *Reader) Read() (Event, error) {
	var raw datapath.RingEvent
	for {
		if err := r.ring.Read(&raw); err != nil {
			return Event{}, err
		}
		if raw.TimeNs < r.sinceNs {
			continue
		}
		now, err := monotonicNs()
		if err != nil {
			return Event{}, err
		}
		e := decode(&raw)
		e.Time = time.Now().Add(time.Duration(raw.TimeNs - now)).Round(0)
		e.Gate, e.Rule, e.Interface, e.Name = r.gate, r.ring.Rule(&raw), r.ring.Interface(&raw), r.ring.Name(&raw)
		return e, nil
	}
}

// Close ends the reading; a Read that waits returns.
func (r *Reader) Close() error { return r.ring.Close() }

// decode takes from a record what stands in it.
func decode(raw *datapath.RingEvent) Event {
	e := Event{
		Generation: raw.Generation, Direction: verdict.Direction(raw.Direction), Ifindex: raw.Ifindex,
		Action: verdict.Action(raw.Action), Reason: verdict.Reason(raw.Reason), Audit: raw.Audit != 0,
		Family: raw.Family, EtherType: raw.EtherType, Fragment: packet.Fragment(raw.Fragment),
		Segments: raw.Segments, Length: raw.Length,
	}
	have := packet.Have(raw.Have)
	if have&packet.HaveSrc != 0 {
		e.Source = ipset.Addr{Hi: raw.Src.Hi, Lo: raw.Src.Lo}.Netip()
	}
	if have&packet.HaveDst != 0 {
		e.Destination = ipset.Addr{Hi: raw.Dst.Hi, Lo: raw.Dst.Lo}.Netip()
	}
	if have&packet.HaveProto == 0 {
		return e
	}
	e.HasProto, e.Proto = true, raw.Proto
	if have&packet.HaveTransport == 0 {
		return e
	}
	switch raw.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		e.HasPorts, e.SourcePort, e.DestinationPort = true, raw.SourcePort, raw.Selector
		e.TCPFlags = raw.TcpFlags
	case packet.ProtoICMP, packet.ProtoICMPv6:
		e.HasICMP, e.ICMPType, e.ICMPCode, e.ICMPID = true, uint8(raw.Selector>>8), uint8(raw.Selector), raw.SourcePort
	}
	return e
}

// monotonicNs is the clock of event times.
func monotonicNs() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return uint64(ts.Nano()), nil
}

package readers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// oracleReading is what bpf/include/dns.h should make of a message, found with
// another reader of DNS: package dns of Miek Gieben reads the names and the data
// of the records, one by one.
//
// Where that reader is more lenient, and this one and egate's refuse:
//   - a pointer that does not lead back, or into the header, or to labels that
//     run into the name that points to them (orderly)
//   - a question or record that ends with the message, before its type, class,
//     TTL, length or data
//   - A, AAAA, CNAME, SVCB and HTTPS records without data, SVCB and HTTPS
//     records without a target
//   - other than one question
//
// Where it is stricter, and egate's reads on:
//   - the values of SVCB parameters other than the hints (pickyAbout), and a v4
//     address written as a v6 hint; picky then says that what follows is unknown
//   - data of records that egate does not need, which is why it is not given the
//     message as a whole
type oracleReading struct {
	malformedQuestion error
	name              []byte // as DNS writes it, in lower case
	labels, longest   int
	behindQuestion    int
	answers           int
	askedType         uint16

	malformed error
	picky     error
	learned   []learnedAddress
}

var pickyAbout = regexp.MustCompile(`bad svcb(alpn|port|mandatory|nodefaultalpn|otthp): |expected ipv6, got ipv4`)

var errDisorderly = errors.New("name does not lead back")

func oracleRead(msg []byte) (o oracleReading) {
	o.malformedQuestion = o.readQuestion(msg)
	if o.malformedQuestion == nil {
		o.malformed = o.readAnswers(msg)
	}
	return o
}

func (o *oracleReading) readQuestion(msg []byte) error {
	if len(msg) < 12 {
		return errors.New("no header")
	}
	var m dns.Msg
	if err := m.Unpack(msg[:12]); err != nil {
		return err
	}
	if m.Opcode != dns.OpcodeQuery {
		return errors.New("other operation than QUERY")
	}
	if n := binary.BigEndian.Uint16(msg[4:]); n != 1 {
		return fmt.Errorf("%d questions", n)
	}
	o.answers = int(binary.BigEndian.Uint16(msg[6:]))
	name, off, err := unpackName(msg, 12)
	if err != nil {
		return err
	}
	if off+4 > len(msg) {
		return errors.New("question ends with the message")
	}
	o.askedType = binary.BigEndian.Uint16(msg[off:])
	o.behindQuestion = off + 4
	if o.name, err = packName(name); err != nil {
		return err
	}
	for i := 0; o.name[i] != 0; i += 1 + int(o.name[i]) {
		o.labels++
		o.longest = max(o.longest, int(o.name[i]))
	}
	return nil
}

func (o *oracleReading) readAnswers(msg []byte) error {
	present, err := unpackCanonical(msg, 12)
	if err != nil {
		return err
	}
	off, ttl := o.behindQuestion, uint32(1<<31-1)
	for range o.answers {
		owner, behind, err := unpackName(msg, off)
		if err != nil {
			return err
		}
		off = behind
		if off+10 > len(msg) {
			return errors.New("record ends with the message")
		}
		h := dns.RR_Header{
			Name:     owner,
			Rrtype:   binary.BigEndian.Uint16(msg[off:]),
			Class:    binary.BigEndian.Uint16(msg[off+2:]),
			Ttl:      binary.BigEndian.Uint32(msg[off+4:]),
			Rdlength: binary.BigEndian.Uint16(msg[off+8:]),
		}
		data := off + 10
		off = data + int(h.Rdlength)
		if off > len(msg) {
			return errors.New("data ends with the message")
		}
		if h.Class != dns.ClassINET {
			continue
		}
		mine := dns.CanonicalName(owner) == present
		service := o.askedType == dns.TypeSVCB || o.askedType == dns.TypeHTTPS
		switch h.Rrtype {
		case dns.TypeA, dns.TypeAAAA:
		case dns.TypeCNAME:
			if !mine {
				continue
			}
		case dns.TypeSVCB, dns.TypeHTTPS:
			if !mine || !service {
				continue
			}
		default:
			continue
		}
		if h.Rdlength == 0 {
			return errors.New("no data")
		}
		rr, _, err := dns.UnpackRRWithHeader(h, msg[:off], data)
		if err != nil && pickyAbout.MatchString(err.Error()) {
			o.picky = err
		}
		if err != nil {
			return err
		}
		if !mine {
			continue
		}
		if h.Ttl>>31 != 0 {
			h.Ttl = 0
		}
		ttl := &ttl
		if h.Rrtype != dns.TypeCNAME {
			its := *ttl
			ttl = &its
		}
		*ttl = min(*ttl, h.Ttl)
		switch rr := rr.(type) {
		case *dns.CNAME:
			if !orderly(msg, data) {
				return errDisorderly
			}
			present = dns.CanonicalName(rr.Target)
		case *dns.A:
			o.learn(rr.A, *ttl)
		case *dns.AAAA:
			o.learn(rr.AAAA, *ttl)
		case *dns.SVCB:
			err = o.learnHints(msg, data, rr, *ttl)
		case *dns.HTTPS:
			err = o.learnHints(msg, data, &rr.SVCB, *ttl)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *oracleReading) learnHints(msg []byte, data int, rr *dns.SVCB, ttl uint32) error {
	if rr.Target == "" {
		return errors.New("no target")
	}
	if !orderly(msg, data+2) {
		return errDisorderly
	}
	for _, v := range rr.Value {
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint:
			for _, a := range v.Hint {
				if rr.Priority != 0 {
					o.learn(a, ttl)
				}
			}
		case *dns.SVCBIPv6Hint:
			for _, a := range v.Hint {
				if rr.Priority != 0 {
					o.learn(a, ttl)
				}
			}
		}
	}
	return nil
}

func (o *oracleReading) learn(ip []byte, ttl uint32) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		panic(fmt.Sprintf("address of %d bytes", len(ip)))
	}
	o.learned = append(o.learned, learnedAddress{a.Unmap(), ttl})
}

func unpackName(msg []byte, off int) (string, int, error) {
	name, behind, err := dns.UnpackDomainName(msg, off)
	if err == nil && !orderly(msg, off) {
		err = errDisorderly
	}
	return name, behind, err
}

func unpackCanonical(msg []byte, off int) (string, error) {
	name, _, err := unpackName(msg, off)
	return dns.CanonicalName(name), err
}

// packName gives a name in lower case as DNS writes it.
func packName(name string) ([]byte, error) {
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(dns.CanonicalName(name), wire, 0, nil, false)
	return wire[:n], err
}

// orderly tells whether every pointer of a well-formed name leads to labels that
// stand before those that the pointer ends, and behind the header.
func orderly(msg []byte, off int) bool {
	for first, limit := off, len(msg); off < limit; {
		switch c := int(msg[off]); {
		case c == 0:
			return true
		case c >= 0xc0:
			to := (c&0x3f)<<8 | int(msg[off+1])
			if to < 12 || to >= first || off+2 > limit {
				return false
			}
			first, limit, off = to, first, to
		default:
			off += 1 + c
		}
	}
	return false
}

// sameReading compares what the program made of a message with what it should.
func sameReading(d *dnsReading, learned []learnedAddress, o *oracleReading, base int) error {
	if o.malformedQuestion != nil {
		if d.Question != -1 || len(learned) > 0 {
			return fmt.Errorf("question read up to %d, %v learned, but: %w", d.Question, learned, o.malformedQuestion)
		}
		return nil
	}
	if d.Question != int32(base+o.behindQuestion) {
		return fmt.Errorf("question read up to %d, want %d", d.Question, base+o.behindQuestion)
	}
	type fields struct {
		askedType       uint16
		name            string
		labels, longest int
	}
	got := fields{d.AskedType, fmt.Sprintf("%q", d.Wire[:d.NameBytes]), int(d.Labels), int(d.Longest)}
	want := fields{o.askedType, fmt.Sprintf("%q", o.name), o.labels, o.longest}
	if got != want {
		return fmt.Errorf("question %+v, want %+v", got, want)
	}
	for i, start := range d.Starts[:d.Labels] {
		if want := wireStart(o.name, i); int(start) != want {
			return fmt.Errorf("label %d starts at %d, want %d", i, start, want)
		}
	}
	if o.picky != nil {
		// what comes first is known
		if len(learned) < len(o.learned) {
			return fmt.Errorf("learned %v, want at least %v", learned, o.learned)
		}
		learned = learned[:len(o.learned)]
	} else if o.malformed != nil && d.Answers != -1 {
		return fmt.Errorf("answers read, but: %w", o.malformed)
	} else if o.malformed == nil && d.Answers != int32(len(o.learned)) {
		return fmt.Errorf("answers said to have %d addresses, want %d", d.Answers, len(o.learned))
	}
	if !slices.Equal(learned, o.learned) {
		return fmt.Errorf("learned %v, want %v (%v)", learned, o.learned, o.malformed)
	}
	return nil
}

// wireStart is where label i of a name begins.
func wireStart(name []byte, i int) (start int) {
	for range i {
		start += 1 + int(name[start])
	}
	return start
}

// hasLearned tells whether a message that package dns reads as a whole has all
// that was learned in its answer section.
func hasLearned(msg []byte, learned []learnedAddress) error {
	var m dns.Msg
	if m.Unpack(msg) != nil {
		return nil
	}
	has := map[netip.Addr]bool{}
	add := func(ip []byte) {
		if a, ok := netip.AddrFromSlice(ip); ok {
			has[a.Unmap()] = true
		}
	}
	hints := func(rr *dns.SVCB) {
		for _, v := range rr.Value {
			switch v := v.(type) {
			case *dns.SVCBIPv4Hint:
				for _, a := range v.Hint {
					add(a)
				}
			case *dns.SVCBIPv6Hint:
				for _, a := range v.Hint {
					add(a)
				}
			}
		}
	}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			add(rr.A)
		case *dns.AAAA:
			add(rr.AAAA)
		case *dns.SVCB:
			hints(rr)
		case *dns.HTTPS:
			hints(&rr.SVCB)
		}
	}
	for _, l := range learned {
		if !has[l.addr] {
			return fmt.Errorf("%v was learned, but is no answer of %v", l.addr, &m)
		}
	}
	return nil
}

// dottedOracle gives the name that is written with dots, as DNS writes it.
func dottedOracle(b []byte) (wire []byte, ok bool) {
	s, _ := strings.CutSuffix(string(b), ".")
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return nil, false
		}
		wire = append(wire, byte(len(label)))
		for _, c := range []byte(label) {
			if c <= ' ' || c >= 0x7f {
				return nil, false
			}
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			wire = append(wire, c)
		}
	}
	return append(wire, 0), len(wire) < 255
}

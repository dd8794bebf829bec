package packet

import (
	"slices"
	"strconv"
	"strings"

	"egate/internal/verdict"
)

// laterWords are names people will try because the policy language is to know
// them; a packet's text without a meaning for them must not look as if it had.
var laterWords = []string{"uid", "gid", "user", "unit", "cgroup", "container", "process", "mark", "interface", "vlan"}

const expectWord = "in, out, ttl=N, flags=LETTERS, fragment=first, fragment=later, fragment-id=N, type=N, code=N, id=N, " +
	"an ICMP name, ipv4, ipv6, no-link, problem=REASON, name=NAME, reply or reply-error, e.g. fragment=later"

// nonIPWord takes one word behind a frame that is not IP.
func (p *textParser) nonIPWord(name, value string, w word) (sets string, err error) {
	const expected = "in or out, e.g. arp in; behind non-ip also type=N and control, e.g. non-ip type=0x88b5"
	switch {
	case p.direction(w):
		return "direction", nil
	case p.key.Control && p.given["control"] == 0: // a protocol's name says the rest
	case w.text == "control":
		p.key.Control = true
		return "control", nil
	case name == "type":
		n, err := number(value, w, 16)
		p.key.EtherType = uint16(n)
		return "type", err
	}
	return "", errAt(w.column, expected, "%s is no word for this frame", w.quote())
}

// finishNonIP checks what the words behind non-ip say together.
func (p *textParser) finishNonIP() error {
	t := p.key.EtherType
	switch {
	case t == etherIPv4 || t == etherIPv6 || isVLAN(t):
		return errAt(p.given["type"], "the type of a frame that is not IP, e.g. type=0x88b5", "type 0x%04x is IP or a VLAN tag", t)
	case t < etherMinimum:
		return nil // the DSAP decides, and the text tells by "control"
	}
	_, control := controlName(t)
	if p.key.Control && !control {
		return errAt(p.given["control"], "control behind an 802.3 length, e.g. non-ip type=38 control", "type 0x%04x is no link-control protocol", t)
	}
	p.key.Control = control
	return nil
}

// ipWord takes one word behind the addresses of an IP packet.
func (p *textParser) ipWord(name, value string, w word) (sets string, err error) {
	if p.direction(w) {
		return "direction", nil
	}
	switch w.text {
	case "ipv4", "ipv6":
		p.key.Family = w.text[3] - '0'
		return "family", nil
	case "no-link":
		return "no-link", nil
	case "reply":
		p.extras.Reply = true
		return "reply", nil
	case "reply-error":
		p.extras.ReplyError = true
		return "reply-error", nil
	}
	if slices.Contains(laterWords, name) {
		return "", errAt(w.column, expectWord, "this version knows no %s", name)
	}
	if !strings.Contains(w.text, "=") {
		return "icmp", p.icmpName(w)
	}
	var n uint64
	switch name {
	case "ttl", "hop-limit":
		n, err = number(value, w, 8)
		p.key.HopLimit = uint8(n)
		return "ttl", err
	case "fragment-id":
		n, err = number(value, w, 32)
		p.key.FragmentID = uint32(n)
		return name, err
	case "id":
		n, err = number(value, w, 16)
		p.key.SourcePort = uint16(n)
		return name, err
	case "code":
		n, err = number(value, w, 8)
		p.key.Selector |= uint16(n)
		return name, err
	case "type":
		if value != unreadable {
			n, err = number(value, w, 8)
			p.key.Selector |= uint16(n) << 8
			p.key.Have |= HaveTransport
		}
		return "icmp", err
	case "flags":
		p.key.TCPFlags, err = parseFlags(value, w)
		return name, err
	case "fragment":
		i := slices.Index(fragmentNames[:], value)
		if i < int(FirstFragment) {
			return "", errAt(w.column, "fragment=first or fragment=later", "%s is no part of a datagram", w.quote())
		}
		p.key.Fragment = Fragment(i)
		return name, nil
	case "problem":
		return name, p.parseProblem(value, w)
	case "name":
		return w.text, p.parseNames(value, w)
	}
	return "", errAt(w.column, expectWord, "unknown word %s", w.quote())
}

func (p *textParser) icmpName(w word) error {
	if _, ok := ICMPMessages(w.text); !ok {
		return errAt(w.column, expectWord, "unknown word %s", w.quote())
	}
	p.message = w
	selector, ok := namedSelector(p.key.Proto, w.text)
	if !ok || !p.key.Has(HaveProto) {
		return errAt(w.column, expectWord, "protocol %s has no %s", p.proto.text, w.text)
	}
	p.key.Selector = selector
	p.key.Have |= HaveTransport
	return nil
}

func parseFlags(value string, w word) (flags uint8, err error) {
	if value == "none" {
		return 0, nil
	}
	for _, letter := range value {
		i := strings.IndexRune(flagLetters, letter)
		if i < 0 || flags&(1<<i) != 0 {
			flags = 0
			break
		}
		flags |= 1 << i
	}
	if flags == 0 {
		return 0, errAt(w.column, "letters of "+flagLetters+" once each, or none, e.g. flags=SA", "%s has no such flags", w.quote())
	}
	return flags, nil
}

func (p *textParser) parseProblem(value string, w word) error {
	names := make([]string, len(textReasons))
	for i, r := range textReasons {
		if names[i] = r.String(); names[i] == value {
			p.key.Problem = r
			return nil
		}
	}
	return errAt(w.column, "one of "+strings.Join(names, ", ")+", e.g. problem=truncated", "%s is no problem of a packet", w.quote())
}

// finishFamily settles the family from the addresses or the word.
func (p *textParser) finishFamily() error {
	k := &p.key
	family := uint8(0)
	for _, e := range []struct {
		have Have
		is4  bool
		w    word
	}{{HaveSrc, k.Src.Is4(), p.src}, {HaveDst, k.Dst.Is4(), p.dst}} {
		f := uint8(6)
		if e.is4 {
			f = 4
		}
		switch {
		case !k.Has(e.have):
		case family != 0 && family != f:
			return errAt(e.w.column, "two addresses of one family, e.g. tcp 10.0.0.5 -> 93.184.216.34:443", "source and destination are of different families")
		default:
			family = f
		}
	}
	if family != 0 {
		if k.Family != 0 {
			return errAt(p.given["family"], "ipv4 or ipv6 only where both addresses are *, e.g. tcp * -> *:443 ipv4", "the addresses tell the family")
		}
		k.Family = family
	}
	if f := nameFamily(k.Proto); f != 0 && k.Family != 0 && f != k.Family && p.proto.text == ProtoName(k.Proto) {
		return errAt(p.proto.column, "icmp with IPv4 and icmpv6 with IPv6, e.g. icmpv6 2001:db8::1 -> 2001:db8::2 echo-request, or the number "+
			strconv.Itoa(int(k.Proto)), "%s does not go with IPv%d", p.proto.text, k.Family)
	}
	_, noLink := p.given["no-link"]
	switch {
	case noLink && k.Family == 0:
		return errAt(p.given["no-link"], "an address, ipv4 or ipv6 beside it, e.g. * * -> * ipv4 no-link", "no-link says nothing of a packet of unknown family")
	case noLink:
	case k.Family == 4:
		k.EtherType = etherIPv4
	case k.Family == 6:
		k.EtherType = etherIPv6
	}
	return nil
}

// finishPorts settles the ports of the protocols that have them.
func (p *textParser) finishPorts() error {
	k := &p.key
	for _, e := range []struct {
		port string
		w    word
	}{{p.srcPort, p.src}, {p.dstPort, p.dst}} {
		switch {
		case e.port == "":
		case !k.Has(HaveProto) || !hasPorts(k.Proto):
			return errAt(e.w.column, "an address without a port, e.g. 10.0.0.5", "protocol %s has no ports", p.proto.text)
		case e.port != unreadable && k.Fragment == LaterFragment:
			return errAt(e.w.column, "an address without a port, e.g. udp 10.0.0.5 -> 10.0.0.6 fragment=later", "a later fragment carries no ports")
		}
	}
	if !k.Has(HaveProto) || !hasPorts(k.Proto) || k.Fragment == LaterFragment {
		return nil
	}
	switch {
	case p.dstPort == "":
		return errAt(p.dst.column, expectPort, "%s needs a destination port", p.proto.text)
	case p.dstPort == unreadable && p.srcPort != "" && p.srcPort != unreadable:
		return errAt(p.src.column, "no port here either, e.g. tcp 10.0.0.5 -> 93.184.216.34:*", "ports are readable together or not at all")
	case p.dstPort == unreadable:
		return nil
	case p.srcPort == unreadable:
		return errAt(p.src.column, expectAddress, "ports are readable together or not at all")
	}
	for _, e := range []struct {
		text string
		w    word
		to   *uint16
	}{{p.srcPort, p.src, &k.SourcePort}, {p.dstPort, p.dst, &k.Selector}} {
		if e.text == "" {
			continue
		}
		n, err := strconv.ParseUint(e.text, 10, 16)
		if err != nil {
			return errAt(e.w.column, "a port up to 65535, e.g. 93.184.216.34:443", "%q is no port", e.text)
		}
		*e.to = uint16(n)
	}
	k.Have |= HaveTransport
	return nil
}

// finishICMP checks the words that only ICMP has, and that they are there.
func (p *textParser) finishICMP() error {
	k := &p.key
	icmp := k.Has(HaveProto) && isICMP(k.Proto) && k.Fragment != LaterFragment
	for _, name := range []string{"icmp", "code", "id"} {
		column, given := p.given[name]
		switch {
		case !given:
		case !icmp:
			return errAt(column, "it only in an icmp or icmpv6 packet that is no later fragment, e.g. icmp 10.0.0.1 -> 10.0.0.2 type=8 code=0",
				"this packet has no ICMP header")
		case name != "icmp" && !k.Has(HaveTransport):
			return errAt(column, expectICMP, "%s says nothing without a type", name)
		case name == "id" && !isEcho(k.Proto, uint8(k.Selector>>8)):
			return errAt(column, "id=N only in echo-request and echo-reply, e.g. icmp 10.0.0.1 -> 10.0.0.2 echo-request id=7", "only echo messages have an identifier")
		}
	}
	if column, given := p.given["code"]; given && tellsCode(k.Proto, p.message.text) {
		return errAt(column, "a name or numbers, e.g. type=3 code=3", "%s tells the code already", p.message.text)
	}
	if _, given := p.given["icmp"]; icmp && !given {
		return errAt(p.end, expectICMP, "%s needs a message", p.proto.text)
	}
	return nil
}

// finishTCP gives a TCP packet its flags: a text without them is an opening one.
func (p *textParser) finishTCP() error {
	k := &p.key
	readable := k.HasPorts() && k.Proto == ProtoTCP
	column, given := p.given["flags"]
	switch {
	case given && !readable:
		return errAt(column, "flags=LETTERS only in a tcp packet whose ports can be read, e.g. tcp 10.0.0.5 -> 93.184.216.34:443 flags=SA", "this packet has no TCP flags")
	case readable && !given:
		k.TCPFlags = FlagSYN
	}
	return nil
}

// finishRest checks what depends on everything before it.
func (p *textParser) finishRest() error {
	k := &p.key
	if column, given := p.given["fragment-id"]; given && k.Fragment == NotFragment {
		return errAt(column, "fragment=first or fragment=later beside it, e.g. fragment=later fragment-id=7", "only a fragment has an identification")
	}
	complete := HaveSrc | HaveDst | HaveProto
	if k.Has(HaveProto) && (hasPorts(k.Proto) || isICMP(k.Proto)) && k.Fragment != LaterFragment {
		complete |= HaveTransport
	}
	if k.Problem != verdict.ReasonRule && k.Has(complete) {
		return errAt(p.given["problem"], "a * for what cannot be read, e.g. tcp 10.0.0.5 -> 93.184.216.34:* problem=truncated", "all of this packet is readable")
	}
	if _, given := p.given["ttl"]; !given {
		k.HopLimit = k.usualHopLimit()
	}
	return nil
}

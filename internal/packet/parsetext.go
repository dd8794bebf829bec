package packet

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"egate/internal/ipset"
	"egate/internal/verdict"
)

// Extras is what a packet's text may say that no packet carries: what the
// kernel would remember of earlier ones.
type Extras struct {
	Reply      bool // of a connection that the other side opened
	ReplyError bool // an ICMP error about such a connection

	// Names is what the destination was learned as from DNS answers, at most
	// MaxNames, in the form of package domain.
	Names []string
}

// MaxNames is how many names are remembered of an address.
const MaxNames = 8

// TextError is a mistake in a packet's text.
type TextError struct {
	Column   int    // in runes, from 1
	Problem  string // what is wrong there
	Expected string // what could stand there, with an example
}

func (e *TextError) Error() string {
	return fmt.Sprintf("read packet text: column %d: %s; expected %s", e.Column, e.Problem, e.Expected)
}

// ParseText reads a packet written by a person:
//
//	PROTOCOL SOURCE -> DESTINATION [WORD...]
//
//	tcp 10.0.0.5:40000 -> 93.184.216.34:443
//	udp [2001:db8::1]:5353 -> [2001:db8::2]:53 in
//	icmp 10.0.0.1 -> 10.0.0.2 echo-request
//	47 10.0.0.1 -> 10.0.0.2 fragment=later
//	arp
//
// A * stands for what cannot be read: a protocol, an address, a destination
// port, an ICMP type. A source port left out is 0. Words are in or out (out),
// an ICMP name or type=N code=N, id=N, flags=LETTERS of FSRPAUEC (S),
// fragment=first or later, fragment-id=N, ttl=N (64; what RFC 4861 and RFC 3810
// ask for in neighbour and listener messages), no-link, problem=REASON,
// name=NAME[,NAME...], which may come several times, reply, reply-error, and
// ipv4 or ipv6 where no address tells. A frame that is not IP is the name of a
// link-control protocol or non-ip [type=N] [control].
//
// Every error is a *TextError.
func ParseText(s string) (Key, Extras, error) {
	p := textParser{words: splitWords(s), given: map[string]int{}}
	p.end = len([]rune(s)) + 1
	if err := p.parse(); err != nil {
		return Key{}, Extras{}, err
	}
	return p.key, p.extras, nil
}

type word struct {
	text   string
	column int
}

func splitWords(s string) (words []word) {
	var text strings.Builder
	column := 0
	flush := func() {
		if n := text.Len(); n > 0 {
			words = append(words, word{text.String(), column - len([]rune(text.String()))})
			text.Reset()
		}
	}
	for _, r := range s {
		column++
		if unicode.IsSpace(r) {
			flush()
			continue
		}
		text.WriteRune(r)
	}
	column++
	flush()
	return words
}

// textParser takes words from the front. given has the column of every word
// behind the addresses that was met, by what it sets.
type textParser struct {
	words  []word
	end    int // the column behind the text
	key    Key
	extras Extras
	given  map[string]int

	proto, src, dst  word
	names            word   // the first that gives names
	message          word   // the ICMP name, empty where numbers tell
	srcPort, dstPort string // "" where absent
}

func (p *textParser) parse() error {
	first := p.next()
	if etherType, ok := controlEtherType(first.text); ok {
		p.key.EtherType, p.key.Control = etherType, true
		return p.parseWords(p.nonIPWord)
	}
	if first.text == nonIP {
		if err := p.parseWords(p.nonIPWord); err != nil {
			return err
		}
		return p.finishNonIP()
	}
	p.key.IP = true
	for _, step := range []func() error{
		func() error { return p.parseProto(first) },
		p.parseAddresses,
		func() error { return p.parseWords(p.ipWord) },
		p.finishFamily,
		p.finishPorts,
		p.finishICMP,
		p.finishTCP,
		p.finishRest,
		p.finishNames,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// next takes the next word; at the end it is empty.
func (p *textParser) next() word {
	if len(p.words) == 0 {
		return word{"", p.end}
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func errAt(column int, expected, problem string, args ...any) error {
	return &TextError{Column: column, Problem: fmt.Sprintf(problem, args...), Expected: expected}
}

// quote names a word in an error; the end of the text has no word.
func (w word) quote() string {
	if w.text == "" {
		return "the text ends"
	}
	return strconv.Quote(w.text)
}

const (
	expectProto   = "a protocol name or number, e.g. tcp 10.0.0.5:40000 -> 93.184.216.34:443"
	expectAddress = "ADDRESS or ADDRESS:PORT, e.g. 10.0.0.5:40000 or [2001:db8::1]:443"
	expectArrow   = "-> between source and destination, e.g. tcp 10.0.0.5 -> 93.184.216.34:443"
	expectPort    = "a destination port, e.g. 93.184.216.34:443, or :* for one that cannot be read"
	expectICMP    = "an ICMP name or numbers, e.g. echo-request or type=8 code=0, or type=* for one that cannot be read"
)

func (p *textParser) parseProto(w word) error {
	p.proto = w
	if w.text == unreadable {
		return nil
	}
	number, ok := ProtoNumber(w.text)
	if !ok {
		n, err := strconv.ParseUint(w.text, 10, 8)
		if err != nil {
			return errAt(w.column, expectProto, "%s is no protocol", w.quote())
		}
		number = uint8(n)
	}
	p.key.Proto = number
	p.key.Have |= HaveProto
	return nil
}

func (p *textParser) parseAddresses() error {
	var err error
	p.src = p.next()
	if p.key.Src, p.srcPort, err = p.parseEndpoint(p.src, HaveSrc); err != nil {
		return err
	}
	if w := p.next(); w.text != "->" {
		return errAt(w.column, expectArrow, "%s where the arrow should be", w.quote())
	}
	p.dst = p.next()
	p.key.Dst, p.dstPort, err = p.parseEndpoint(p.dst, HaveDst)
	return err
}

// parseEndpoint reads an address, or *, and sets its Have bit.
func (p *textParser) parseEndpoint(w word, have Have) (a ipset.Addr, port string, err error) {
	host := w.text
	if !isAddress(host) {
		if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
			host, port = host[:i], host[i+1:]
			if port == "" {
				return a, "", errAt(w.column, expectAddress, "%s has no port behind its colon", w.quote())
			}
		}
		if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' && strings.Contains(host, ":") {
			host = host[1 : n-1]
		}
	}
	if host == unreadable {
		return a, port, nil
	}
	parsed, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return a, "", errAt(w.column, expectAddress, "%s is no address", w.quote())
	case parsed.Zone() != "":
		return a, "", errAt(w.column, expectAddress, "%s has a zone, which packets do not carry", w.quote())
	case parsed.Is4In6():
		return a, "", errAt(w.column, expectAddress, "%s is IPv4 written as IPv6", w.quote())
	}
	p.key.Have |= have
	return ipset.FromNetip(parsed), port, nil
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// parseWords gives every word that is left to take, which tells what it sets.
func (p *textParser) parseWords(take func(name, value string, w word) (sets string, err error)) error {
	for len(p.words) > 0 {
		w := p.next()
		name, value, _ := strings.Cut(w.text, "=")
		sets, err := take(name, value, w)
		if err != nil {
			return err
		}
		if _, again := p.given[sets]; again {
			return errAt(w.column, "each word once, e.g. tcp 10.0.0.5 -> 93.184.216.34:443 in", "%s says again what an earlier word said", w.quote())
		}
		p.given[sets] = w.column
	}
	return nil
}

// number reads a word's value.
func number(value string, w word, bits int) (uint64, error) {
	n, err := strconv.ParseUint(value, 0, bits)
	if err != nil {
		name, _, _ := strings.Cut(w.text, "=")
		return 0, errAt(w.column, fmt.Sprintf("%s=N, a number up to %d, e.g. %s=7", name, uint64(1)<<bits-1, name), "%s has no such number", w.quote())
	}
	return n, nil
}

// direction takes the words that every packet has.
func (p *textParser) direction(w word) bool {
	switch w.text {
	case "in":
		p.key.Direction = verdict.Ingress
	case "out":
		p.key.Direction = verdict.Egress
	default:
		return false
	}
	return true
}

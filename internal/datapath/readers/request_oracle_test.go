package readers

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// The readers in C are held to two others: to twins in Go that say of every
// input what the answer must be, and to those of Go's library, which are
// servers that people use. Where a twin says "named", a server that accepts the
// bytes must see the same name; where it says "unreadable" although a server
// would see a name, a comment in the twin says why.

// sentNothingElse is a connection from which come bytes and then no more.
type sentNothingElse struct{ io.Reader }

func (sentNothingElse) Write(b []byte) (int, error)      { return len(b), nil }
func (sentNothingElse) Close() error                     { return nil }
func (sentNothingElse) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (sentNothingElse) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (sentNothingElse) SetDeadline(time.Time) error      { return nil }
func (sentNothingElse) SetReadDeadline(time.Time) error  { return nil }
func (sentNothingElse) SetWriteDeadline(time.Time) error { return nil }

// tlsServerSees is the server name that crypto/tls reads, if it accepts the
// ClientHello.
func tlsServerSees(b []byte) (name string, accepted bool) {
	seen := errors.New("seen")
	c := tls.Server(sentNothingElse{bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			name, accepted = i.ServerName, true
			return nil, seen
		},
	})
	if err := c.Handshake(); accepted && !errors.Is(err, seen) {
		panic("the handshake went on")
	}
	return name, accepted
}

// httpServerSees is the host, without a port if that can be one, that net/http reads, if it
// accepts the request.
func httpServerSees(b []byte) (name string, accepted bool) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return "", false
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || strings.Trim(port, "0123456789") != "" || len(port) > 5 {
		host = r.Host
	}
	return host, true
}

var (
	nameBytes = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	aNumber   = regexp.MustCompile(`(^|\.)[0-9]+$`)
)

// asName is a name in egate's form, if it is one that a host can have.
func asName(s string) (string, bool) {
	if !nameBytes.MatchString(s) {
		return "", false
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
	}
	return s, len(s) <= 253 && !aNumber.MatchString(s)
}

func namedOr(s string) requestAnswer {
	if name, ok := asName(s); ok {
		return requestAnswer{kind: requestNamed, name: name}
	}
	return requestAnswer{kind: requestNameless}
}

var (
	more       = requestAnswer{kind: requestMore}
	nameless   = requestAnswer{kind: requestNameless}
	unreadable = requestAnswer{kind: requestUnreadable}
)

// requestTwin is the twin of read_request.
func requestTwin(b []byte) requestAnswer {
	a := more
	if len(b) > 0 && b[0] == 22 {
		a = helloTwin(b)
	} else if len(b) > 0 {
		a = httpTwin(b)
	}
	if a == more && len(b) == requestRoomBytes {
		return unreadable
	}
	return a
}

// cutter takes parts off a ClientHello; bad once one was not there.
type cutter struct {
	rest []byte
	bad  bool
}

func (c *cutter) take(n int) []byte {
	if n > len(c.rest) {
		c.bad, c.rest = true, nil
		return make([]byte, n)
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cutter) u8() int        { return int(c.take(1)[0]) }
func (c *cutter) u16() int       { return int(binary.BigEndian.Uint16(c.take(2))) }
func (c *cutter) list8() []byte  { return c.take(c.u8()) }
func (c *cutter) list16() []byte { return c.take(c.u16()) }

func helloTwin(b []byte) requestAnswer {
	// What the first bytes can be, position by position. Go takes other major
	// versions than 3, which were never given.
	for i, byteOf := range []func(byte) bool{
		1: func(v byte) bool { return v == 3 },
		5: func(v byte) bool { return v == 1 },
		6: func(v byte) bool { return v == 0 },
		9: func(v byte) bool { return v == 3 },
	} {
		// The lengths come before what they are the lengths of.
		if i == 5 && len(b) >= 5 {
			n := int(binary.BigEndian.Uint16(b[3:]))
			// A record that the room does not hold; one that holds no ClientHello.
			if n < 39 || 5+n > requestRoomBytes {
				return unreadable
			}
		}
		// Go, as others, takes a ClientHello of several records, and reads what
		// stands behind one in the same record as a further message.
		if i == 9 && len(b) >= 9 && int(binary.BigEndian.Uint16(b[7:])) != int(binary.BigEndian.Uint16(b[3:]))-4 {
			return unreadable
		}
		if byteOf == nil || i >= len(b) {
			continue
		}
		if i == 6 && len(b) < 9 {
			continue
		}
		if !byteOf(b[i]) {
			return unreadable
		}
	}
	if len(b) < 5 || len(b) < 5+int(binary.BigEndian.Uint16(b[3:])) {
		return more
	}
	c := cutter{rest: b[9 : 5+int(binary.BigEndian.Uint16(b[3:]))]}
	c.take(2 + 32)
	session, suites := c.list8(), c.list16()
	compression := c.list8()
	// Go does not look at these; other servers do.
	if c.bad || len(session) > 32 || len(suites) == 0 || len(suites)%2 != 0 || len(compression) == 0 {
		return unreadable
	}
	if len(c.rest) == 0 {
		return nameless
	}
	extensions := cutter{rest: c.list16()}
	if c.bad || len(c.rest) > 0 {
		return unreadable
	}
	return extensionsTwin(extensions)
}

func extensionsTwin(c cutter) (a requestAnswer) {
	var names [][]byte
	for len(c.rest) > 0 {
		kind := c.u16()
		data := c.list16()
		if c.bad {
			return requestAnswer{kind: requestUnreadable, ech: a.ech}
		}
		if kind == extECH {
			a.ech = true
		}
		if kind == extServerName {
			names = append(names, data)
		}
		if len(names) == 2 {
			return requestAnswer{kind: requestUnreadable, ech: a.ech}
		}
	}
	ech := a.ech
	a = nameless
	if len(names) == 1 {
		a = serverNameTwin(names[0])
	}
	a.ech = ech
	return a
}

func serverNameTwin(data []byte) requestAnswer {
	c := cutter{rest: data}
	list := cutter{rest: c.list16()}
	kind := list.u8()
	name := list.list16()
	// Go goes over names of other types than 0 and takes the one that comes
	// behind; OpenSSL refuses them.
	if c.bad || list.bad || len(c.rest) > 0 || len(list.rest) > 0 || kind != 0 {
		return unreadable
	}
	return namedOr(string(name))
}

func httpTwin(b []byte) requestAnswer {
	b, a := requestLineTwin(b)
	if a != nameless {
		return a
	}
	var host *string
	for {
		line, rest, complete := bytes.Cut(b, []byte("\n"))
		// At the end a carriage return may still become a line's end.
		line = bytes.TrimSuffix(line, []byte("\r"))
		// Control characters, carriage returns that end no line among them: some
		// servers end a line at them. Go takes some.
		if bytes.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' }) {
			return unreadable
		}
		if !complete {
			return more
		}
		b = rest
		if len(line) == 0 {
			break
		}
		// Folded lines, which Go joins.
		if line[0] == ' ' || line[0] == '\t' {
			return unreadable
		}
		if len(line) < 4 || !strings.EqualFold(string(line[:4]), "host") {
			continue
		}
		if len(line) > 4 && nameBytes.Match(line[4:5]) {
			continue
		}
		if len(line) == 4 || line[4] != ':' || host != nil {
			return unreadable
		}
		value := string(line[5:])
		host = &value
	}
	if host == nil {
		return nameless
	}
	// More white space, which Go takes off, nobody sends.
	name := strings.TrimLeft(*host, " \t")
	if len(name) < len(*host)-32 || len(strings.TrimRight(name, " \t")) < len(name)-32 {
		return unreadable
	}
	name = strings.TrimRight(name, " \t")
	return namedOr(portCut.ReplaceAllString(name, ""))
}

// requestLineTwin takes the request line off, or says what else it is than
// nameless so far.
func requestLineTwin(b []byte) (rest []byte, a requestAnswer) {
	method := bytes.IndexFunc(b, func(c rune) bool { return c < 'A' || c > 'Z' })
	// Go takes longer ones, and some with other characters.
	if method == 0 || method > 32 || method < 0 && len(b) > 32 {
		return nil, unreadable
	}
	if method < 0 {
		return nil, more
	}
	target := b[method+1:]
	if b[method] != ' ' {
		return nil, unreadable
	}
	if len(target) == 0 {
		return nil, more
	}
	// Go takes a target in absolute form too, whose host comes before that of
	// Host, and host and port with CONNECT.
	if target[0] != '/' && target[0] != '*' {
		return nil, unreadable
	}
	end := bytes.IndexFunc(target, func(c rune) bool { return c <= ' ' })
	if end < 0 || target[end] == '\r' && end+1 == len(target) {
		return nil, more
	}
	if target[end] != ' ' {
		return nil, unreadable
	}
	const version = len("HTTP/1.x")
	if len(target) <= end+1+version {
		return nil, more
	}
	// Go takes further versions.
	line := string(target[end+1:][:version])
	if line != "HTTP/1.0" && line != "HTTP/1.1" || target[0] == '*' && end != 1 {
		return nil, unreadable
	}
	rest = target[end+1+version:]
	if string(rest) == "\r" {
		return nil, more
	}
	if rest[0] != '\n' && (rest[0] != '\r' || rest[1] != '\n') {
		return nil, unreadable
	}
	return rest[bytes.IndexByte(rest, '\n')+1:], nameless
}

// portCut is what is no part of the name. Go takes any number of digits.
var portCut = regexp.MustCompile(`:[0-9]{0,5}$`)

package readers

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// hello is a ClientHello in parts, from which tests make bytes.
type hello struct {
	recordVersion uint16
	version       uint16
	session       []byte
	suites        []uint16
	compression   []byte
	extensions    []extension
	bare          bool // without the list of extensions
}

type extension struct {
	kind uint16
	data []byte
}

const (
	extServerName       = 0
	extSupportedGroups  = 10
	extPointFormats     = 11
	extSignatures       = 13
	extALPN             = 16
	extSCT              = 18
	extPadding          = 21
	extExtendedMaster   = 23
	extCompressCert     = 27
	extRecordSizeLimit  = 28
	extDelegated        = 34
	extSessionTicket    = 35
	extVersions         = 43
	extPSKModes         = 45
	extKeyShare         = 51
	extApplicationOld   = 17513
	extApplication      = 17613
	extECH              = 0xfe0d
	extRenegotiation    = 0xff01
	extStatusRequest    = 5
	groupX25519MLKEM768 = 0x11ec
	groupX25519         = 29
	groupP256           = 23
	groupP384           = 24
)

// simpleHello is one that all readers accept.
func simpleHello(extensions ...extension) hello {
	return hello{
		recordVersion: 0x0301,
		version:       0x0303,
		session:       make([]byte, 32),
		suites:        []uint16{0x1301, 0x1302, 0xc02b},
		compression:   []byte{0},
		extensions:    extensions,
	}
}

// list8 and list16 put a length in front.
func list8(b ...byte) []byte { return append([]byte{byte(len(b))}, b...) }

func list16(b ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func words(values ...uint16) (b []byte) {
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

// serverName is the extension that names a host.
func serverName(name string) extension {
	return extension{extServerName, list16(append([]byte{0}, list16([]byte(name)...)...)...)}
}

// keyShare is the extension with a share of each group, of the right size.
func keyShare(groups ...uint16) extension {
	sizes := map[uint16]int{groupX25519MLKEM768: 1216, groupX25519: 32, groupP256: 65, groupP384: 97}
	var b []byte
	for _, g := range groups {
		share := make([]byte, max(1, sizes[g])) // 1: GREASE
		for i := range share {
			share[i] = byte(i*7) ^ byte(g)
		}
		b = append(append(b, words(g)...), list16(share...)...)
	}
	return extension{extKeyShare, list16(b...)}
}

// body is what follows the handshake header.
func (h hello) body() []byte {
	b := words(h.version)
	for i := range 32 {
		b = append(b, byte(0xa0+i))
	}
	b = append(b, list8(h.session...)...)
	b = append(b, list16(words(h.suites...)...)...)
	b = append(b, list8(h.compression...)...)
	if h.bare {
		return b
	}
	var e []byte
	for _, x := range h.extensions {
		e = append(append(e, words(x.kind)...), list16(x.data...)...)
	}
	return append(b, list16(e...)...)
}

// bytes is one record that holds the ClientHello.
func (h hello) bytes() []byte { return record(h.recordVersion, handshake(h.body())) }

// handshake puts a ClientHello's header in front.
func handshake(body []byte) []byte {
	return append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func record(version uint16, fragment []byte) []byte {
	return append(append([]byte{22}, words(version)...), list16(fragment...)...)
}

// grease is one of the values that RFC 8701 reserves for clients that try servers out.
func grease(r *rand.Rand) uint16 { return uint16(r.IntN(16))*0x1010 + 0x0a0a }

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// greaseECH is what a browser sends that has no key of the server: it looks
// like an encrypted ClientHello.
func greaseECH(r *rand.Rand) extension {
	b := append([]byte{0}, words(1, 1)...) // outer; HKDF-SHA256, AES-128-GCM
	b = append(b, byte(r.IntN(256)))
	b = append(b, list16(noise(r, 32)...)...)
	return extension{extECH, append(b, list16(noise(r, 144+32*r.IntN(4))...)...)}
}

// chromeHello has the shape of Chromium's: GREASE in front and behind, the
// rest of the extensions shuffled, a post-quantum key share.
func chromeHello(r *rand.Rand, name string, session bool) hello {
	g := grease(r)
	h := simpleHello()
	h.session = noise(r, 32)
	h.suites = []uint16{grease(r), 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x9c, 0x9d, 0x2f, 0x35}
	shares := keyShare(g, groupX25519MLKEM768, groupX25519)
	e := []extension{
		serverName(name),
		{extExtendedMaster, nil},
		{extRenegotiation, []byte{0}},
		{extSupportedGroups, list16(words(g, groupX25519MLKEM768, groupX25519, groupP256, groupP384)...)},
		{extPointFormats, list8(0)},
		{extSessionTicket, nil},
		{extALPN, list16(append(list8([]byte("h2")...), list8([]byte("http/1.1")...)...)...)},
		{extStatusRequest, []byte{1, 0, 0, 0, 0}},
		{extSignatures, list16(words(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)...)},
		{extSCT, nil},
		shares,
		{extPSKModes, list8(1)},
		{extVersions, list8(words(grease(r), 0x0304, 0x0303)...)},
		{extCompressCert, list8(words(2)...)},
		{extApplication, list16(list8([]byte("h2")...)...)},
		greaseECH(r),
	}
	if session {
		e[5].data = noise(r, 192)
	}
	r.Shuffle(len(e), func(i, j int) { e[i], e[j] = e[j], e[i] })
	// Two of one kind are not allowed, not even of these.
	first, last := grease(r), grease(r)
	for first == last {
		last = grease(r)
	}
	h.extensions = slices.Concat([]extension{{first, nil}}, e, []extension{{last, []byte{0}}})
	return h
}

// firefoxHello has the shape of Firefox's: a fixed order, three key shares.
func firefoxHello(r *rand.Rand, name string) hello {
	h := simpleHello(
		serverName(name),
		extension{extExtendedMaster, nil},
		extension{extRenegotiation, []byte{0}},
		extension{extSupportedGroups, list16(words(groupX25519MLKEM768, groupX25519, groupP256, groupP384, 25, 256, 257)...)},
		extension{extPointFormats, list8(0)},
		extension{extALPN, list16(append(list8([]byte("h2")...), list8([]byte("http/1.1")...)...)...)},
		extension{extStatusRequest, []byte{1, 0, 0, 0, 0}},
		extension{extDelegated, list16(words(0x0403, 0x0503, 0x0603, 0x0203)...)},
		extension{extSCT, nil},
		keyShare(groupX25519MLKEM768, groupX25519, groupP256),
		extension{extVersions, list8(words(0x0304, 0x0303)...)},
		extension{extSignatures, list16(words(0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401)...)},
		extension{extPSKModes, list8(1)},
		extension{extRecordSizeLimit, words(16385)},
		extension{extCompressCert, list8(words(1, 2, 3)...)},
		greaseECH(r),
	)
	h.session = noise(r, 32)
	return h
}

// paddedHello has the shape of older Chromium and of Safari: filled up to 512
// bytes, for servers that hang at some sizes below (RFC 7685).
func paddedHello(r *rand.Rand, name string) hello {
	h := simpleHello(
		extension{grease(r), nil},
		serverName(name),
		extension{extExtendedMaster, nil},
		extension{extSupportedGroups, list16(words(groupX25519, groupP256, groupP384)...)},
		extension{extPointFormats, list8(0)},
		extension{extALPN, list16(append(list8([]byte("h2")...), list8([]byte("http/1.1")...)...)...)},
		extension{extSignatures, list16(words(0x0403, 0x0804, 0x0401)...)},
		keyShare(groupX25519),
		extension{extPSKModes, list8(1)},
		extension{extVersions, list8(words(0x0304, 0x0303)...)},
		extension{extApplicationOld, list16(list8([]byte("h2")...)...)},
	)
	if short := 5 + 512 - len(h.bytes()) - 4; short > 0 {
		h.extensions = append(h.extensions, extension{extPadding, make([]byte, short)})
	}
	return h
}

package readers

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"egate/internal/testutil"
)

// What clients send, whole and cut at every length: Go's, those of OpenSSL,
// GnuTLS and curl if they are installed, and those that browsers send.

// checkNamed checks a request that names a host.
func (r *requestReader) checkNamed(t *testing.T, what string, b []byte, name string, ech bool) {
	t.Helper()
	want := requestAnswer{kind: requestNamed, name: name, ech: ech}
	if name == "" {
		want = requestAnswer{kind: requestNameless, ech: ech}
	}
	if got := r.check(t, b); got != want {
		t.Errorf("%s: %+v, want %+v: %s", what, got, want, show(b))
	}
	if b[0] != 22 {
		return
	}
	if seen, accepted := tlsServerSees(b); !accepted || strings.ToLower(seen) != name {
		t.Errorf("%s: crypto/tls sees %q (accepts: %v), want %q: %s", what, seen, accepted, name, show(b))
	}
}

// firstWrite is a connection that keeps what is written first and has no answer.
type firstWrite struct {
	sentNothingElse
	b []byte
}

func (c *firstWrite) Write(b []byte) (int, error) {
	if c.b == nil {
		c.b = slices.Clone(b)
	}
	return len(b), nil
}

// goHello is the ClientHello of crypto/tls.
func goHello(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	c := &firstWrite{sentNothingElse: sentNothingElse{strings.NewReader("")}}
	if err := tls.Client(c, config).Handshake(); !errors.Is(err, io.EOF) {
		t.Fatalf("handshake with nobody: %v", err)
	}
	return c.b
}

func TestHellosOfGo(t *testing.T) {
	r := newRequestReader(t)
	names := []string{"a.example", "WWW.Example.COM", strings.Repeat("abcdefg.", 30) + "example"}
	versions := map[string][2]uint16{
		"default": {}, "up to 1.2": {tls.VersionTLS10, tls.VersionTLS12}, "1.3": {tls.VersionTLS13, tls.VersionTLS13},
	}
	groups := [][]tls.CurveID{
		nil, {tls.X25519}, {tls.CurveP521, tls.CurveP256}, {tls.X25519MLKEM768, tls.X25519},
	}
	protocols := [][]string{nil, {"h2", "http/1.1"}, slices.Repeat([]string{strings.Repeat("p", 255)}, 8)}
	least, most, count := 1<<20, 0, 0
	for what, version := range versions {
		for _, group := range groups {
			for _, protocol := range protocols {
				for _, name := range names {
					b := goHello(t, &tls.Config{
						ServerName: name, MinVersion: version[0], MaxVersion: version[1],
						CurvePreferences: group, NextProtos: protocol,
					})
					least, most, count = min(least, len(b)), max(most, len(b)), count+1
					r.checkNamed(t, fmt.Sprint(what, group, len(protocol)), b, strings.ToLower(name), false)
				}
			}
		}
	}
	b := goHello(t, &tls.Config{InsecureSkipVerify: true})
	r.checkNamed(t, "no name", b, "", false)
	b = goHello(t, &tls.Config{ServerName: "192.0.2.1"})
	r.checkNamed(t, "an address", b, "", false) // Go does not send it
	t.Logf("%d of %d to %d bytes", count+2, least, most)
}

// testCertificate is one that nobody signed.
func testCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// meet lets a client and a server shake hands, and the server send its tickets.
func meet(t *testing.T, client, server *tls.Config) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			sent <- err
			return
		}
		_, err = c.Write([]byte("x")) // behind the tickets
		sent <- errors.Join(err, c.Close())
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	if err := errors.Join(err, <-sent, c.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestHellosOfGoThatResume(t *testing.T) {
	r := newRequestReader(t)
	const name = "resume.example"
	server := &tls.Config{Certificates: []tls.Certificate{testCertificate(t, name)}}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{
			ServerName: name, InsecureSkipVerify: true, MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		without := goHello(t, client)
		meet(t, client, server)
		with := goHello(t, client)
		if len(with) < len(without)+50 {
			t.Errorf("TLS %#x: the hello has no ticket: %d bytes, before %d", version, len(with), len(without))
		}
		r.checkNamed(t, "resumption", with, name, false)
	}
}

// TestHelloOfGoWithECH has a real encrypted ClientHello inside one that names
// another host: that is the name which is seen, and that there is more is said.
func TestHelloOfGoWithECH(t *testing.T) {
	r := newRequestReader(t)
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 9849, 4: ECHConfigList.
	contents := append([]byte{7}, words(0x0020)...) // id; X25519, HKDF-SHA256
	contents = append(contents, list16(key.PublicKey().Bytes()...)...)
	contents = append(contents, list16(words(1, 1)...)...) // HKDF-SHA256, AES-128-GCM
	contents = append(contents, 64)
	contents = append(contents, list8([]byte("public.example")...)...)
	contents = append(contents, 0, 0)
	list := list16(append(words(extECH), list16(contents...)...)...)
	b := goHello(t, &tls.Config{ServerName: "secret.example", EncryptedClientHelloConfigList: list})
	r.checkNamed(t, "ECH", b, "public.example", true)
}

func TestHellosOfBrowsers(t *testing.T) {
	reader := newRequestReader(t)
	r := mathrand.New(mathrand.NewPCG(1, 2)) // any: what varies is the order
	least, most := 1<<20, 0
	for i := range 25 {
		name := fmt.Sprintf("host-%d.%sexample.com", i, strings.Repeat("sub.", i))
		for what, h := range map[string]hello{
			"Chrome":             chromeHello(r, name, false),
			"Chrome, resumption": chromeHello(r, name, true),
			"Firefox":            firefoxHello(r, name),
		} {
			b := h.bytes()
			least, most = min(least, len(b)), max(most, len(b))
			reader.checkNamed(t, what, b, name, true)
		}
		b := paddedHello(r, name).bytes()
		if len(b) != 5+512 {
			t.Fatalf("padded to %d bytes, want 517", len(b))
		}
		reader.checkNamed(t, "padded", b, name, false)
	}
	t.Logf("%d to %d bytes", least, most)
}

// captureFirst gives what a client sends first to a local port.
func captureFirst(t *testing.T, command func(port string) []string) []byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan []byte, 1)
	go func() {
		defer close(sent)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 0, requestRoomBytes)
		for requestTwin(b) == more {
			n, err := c.Read(b[len(b):cap(b)])
			if err != nil {
				break
			}
			b = b[:len(b)+n]
		}
		sent <- b
	}()
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(20*time.Second))
	defer cancel()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	args := command(port)
	// That the connection ends without an answer is an error to it.
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	l.Close()
	b, ok := <-sent
	if !ok || ctx.Err() != nil {
		t.Fatalf("%q sent nothing (%v): %s", args, err, out)
	}
	return b
}

func requireTool(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("needs %s", tool)
	}
}

func TestHellosOfOpenSSL(t *testing.T) {
	requireTool(t, "openssl")
	r := newRequestReader(t)
	for _, options := range []string{
		"", "-tls1_2", "-tls1_3", "-alpn h2,http/1.1", "-groups P-521:P-384", "-groups X25519:X448",
		"-status", "-cipher ECDHE-RSA-AES128-GCM-SHA256 -tls1_2", "-no_ticket", "-nextprotoneg h2 -tls1_2",
		"-maxfraglen 512", "-sigalgs RSA+SHA256", "-noservername", "-legacy_renegotiation",
	} {
		name := "openssl.example"
		if options == "-noservername" {
			name = ""
		}
		b := captureFirst(t, func(port string) []string {
			args := append([]string{"openssl", "s_client", "-connect", "127.0.0.1:" + port}, strings.Fields(options)...)
			if name != "" {
				args = append(args, "-servername", name)
			}
			return args
		})
		r.checkNamed(t, "openssl s_client "+options, b, name, false)
	}
}

func TestHellosOfGnuTLS(t *testing.T) {
	requireTool(t, "gnutls-cli")
	r := newRequestReader(t)
	for _, options := range []string{
		"--priority=NORMAL", "--priority=NORMAL:-VERS-TLS1.3", "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3",
		"--priority=SECURE256", "--priority=PFS", "--alpn=h2", "--priority=NORMAL:%NO_EXTENSIONS",
		"--priority=NORMAL:-GROUP-ALL:+GROUP-SECP521R1", "--recordsize=4096", "--priority=NORMAL:%COMPAT",
	} {
		b := captureFirst(t, func(port string) []string {
			return []string{"gnutls-cli", "--insecure", "--sni-hostname=gnutls.example", options, "--port=" + port, "127.0.0.1"}
		})
		name := "gnutls.example"
		if strings.HasSuffix(options, "%NO_EXTENSIONS") {
			name = ""
		}
		r.checkNamed(t, "gnutls-cli "+options, b, name, false)
	}
}

func TestRequestsOfCurl(t *testing.T) {
	requireTool(t, "curl")
	r := newRequestReader(t)
	for _, c := range []struct{ scheme, options string }{
		{"https", ""}, {"https", "--http1.1"}, {"https", "--tls-max 1.2"}, {"https", "--tlsv1.3"},
		{"https", "--curves X25519"}, {"https", "--ciphers ECDHE-RSA-AES256-GCM-SHA384"}, {"https", "--no-alpn"},
		{"http", ""}, {"http", "--http1.0"}, {"http", "-d body"}, {"http", "-I"}, {"http", "-X OPTIONS --request-target *"},
		{"http", "-H Accept: -H User-Agent:"}, {"http", "--compressed -b a=b"},
	} {
		b := captureFirst(t, func(port string) []string {
			args := []string{"curl", "-s", "-k", "--noproxy", "*", "--resolve", "curl.example:" + port + ":127.0.0.1"}
			args = append(args, strings.Fields(c.options)...)
			return append(args, c.scheme+"://Curl.Example:"+port+"/x?y")
		})
		r.checkNamed(t, "curl "+c.scheme+" "+c.options, b, "curl.example", false)
	}
}

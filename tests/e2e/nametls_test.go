package e2e

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"egate/internal/testutil"
)

// authority is a certificate authority of the test's own.
type authority struct {
	file string // with its certificate, for programs
	pool *x509.CertPool
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), pool: x509.NewCertPool(), key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

// certificate is one for some names.
func (a *authority) certificate(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveHTTPS answers every request over TLS with "hello", whatever its name is.
func serveHTTPS(t *testing.T, in *testutil.Netns, port uint16, certificate tls.Certificate) {
	t.Helper()
	l := tls.NewListener(listenTCP(t, in, port), &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"},
	})
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello\n")) }),
		ErrorLog: discardLog(),
	}
	go server.Serve(l)
}

// inPieces is a connection that sends what is written to it in segments of so
// many bytes.
type inPieces struct {
	net.Conn
	size int
}

func (c inPieces) Write(b []byte) (int, error) {
	sent := 0
	for piece := range pieces(b, c.size) {
		n, err := c.Conn.Write(piece)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

func pieces(b []byte, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// echConfigs is a list of one configuration of encrypted ClientHellos (RFC 9849,
// 4), with this name in the outer one.
func echConfigs(t *testing.T, publicName string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var contents bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if err := binary.Write(&contents, binary.BigEndian, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	public := key.PublicKey().Bytes()
	put(uint8(7), uint16(0x20), uint16(len(public)), public) // id, DHKEM(X25519, HKDF-SHA256)
	put(uint16(4), uint16(1), uint16(1))                     // one suite: HKDF-SHA256, AES-128-GCM
	put(uint8(64), uint8(len(publicName)), []byte(publicName), uint16(0))
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(contents.Len()))
	config = append(config, contents.Bytes()...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

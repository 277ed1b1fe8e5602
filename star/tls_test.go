package star_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/socketio"
)

// a key and certificate, a PFX with and without a passphrase; what is
// incomplete fails the start.
func TestA_13_TLS(t *testing.T) {
	files := writeCertificate(t, t.TempDir(), "one")
	for name, o := range map[string]star.TLSOptions{
		"pair":               {Key: files.key, Cert: files.cert},
		"pfx":                {PFX: files.pfx, Passphrase: "secret"},
		"pfx, no passphrase": {PFX: files.pfxOpen},
	} {
		t.Run(name, func(t *testing.T) { joinWithTLS(t, o, files.pool) })
	}
	for name, o := range map[string]star.TLSOptions{
		"key alone": {Key: files.key}, "cert alone": {Cert: files.cert}, "no such file": {Key: "/nope", Cert: files.cert},
		"wrong passphrase": {PFX: files.pfx, Passphrase: "x"}, "pfx without its passphrase": {PFX: files.pfx}, "not a pfx": {PFX: files.cert},
		"both": {Key: files.key, Cert: files.cert, PFX: files.pfx}, "acme too": {Key: files.key, Cert: files.cert, ACME: []string{"x"}},
	} {
		if srv, err := star.New(star.Options{Host: "127.0.0.1", TLS: o}); err == nil {
			t.Errorf("%s: started at %s", name, srv.URI())
		}
	}
}

func joinWithTLS(t *testing.T, o star.TLSOptions, pool *x509.CertPool) {
	srv, err := star.New(star.Options{Host: "127.0.0.1", TLS: o, Drain: -1, OpenJoins: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "one"}}
	base, err := url.Parse(srv.URI())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{w: &world{t: t}, more: make(chan struct{}, 1), ended: make(chan error, 1), data: map[string][]byte{}}
	cl, err := socketio.Dial(ctx, base, socketio.DialOptions{Handler: p, HTTP: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- cl.Run(ctx) }()
	p.sock = cl.Socket()
	p.join(strict("QmcoXrnhUeMbnHmwkDVh4pbCBi6px4RbCQ6xg2qCjJeNEx"))
	cancel()
	<-ran
	if err := <-done; err != nil {
		t.Error(err)
	}
	tr.CloseIdleConnections()
}

type certFiles struct {
	key, cert, pfx, pfxOpen string
	pool                    *x509.CertPool
}

func writeCertificate(t *testing.T, dir, name string) certFiles {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(err)
	leaf, err := x509.ParseCertificate(der)
	check(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	check(err)
	sealed, err := pkcs12.Modern.Encode(key, leaf, nil, "secret")
	check(err)
	plain, err := pkcs12.Modern.Encode(key, leaf, nil, "")
	check(err)
	f := certFiles{key: filepath.Join(dir, "key.pem"), cert: filepath.Join(dir, "cert.pem"), pfx: filepath.Join(dir, "a.pfx"),
		pfxOpen: filepath.Join(dir, "b.pfx"), pool: x509.NewCertPool()}
	f.pool.AddCert(leaf)
	for path, content := range map[string][]byte{f.key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		f.cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), f.pfx: sealed, f.pfxOpen: plain} {
		check(os.WriteFile(path, content, 0o600))
	}
	return f
}

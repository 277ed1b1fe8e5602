package cluster_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// authority is a CA of a test's own, with files.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	dir  string
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of a test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	a.key = a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// issue makes a certificate for loopback and gives its files.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	own := a.newKey()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", raw)
}

// withTLS makes a NATS server speak TLS alone; own says that it asks for a
// certificate of the authority's.
func (a *authority) withTLS(own bool) func(*server.Options) {
	a.t.Helper()
	cert, key := a.issue("nats")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if own {
		cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		cfg.ClientCAs.AddCert(a.cert)
	}
	return func(o *server.Options) { o.TLSConfig, o.TLS, o.TLSVerify, o.TLSTimeout = cfg, true, own, 10 }
}

// text writes a file of a test's own.
func text(t *testing.T, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// user makes an nkey and gives its seed.
func user(t *testing.T) (kp nkeys.KeyPair, public string, seed []byte) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = kp.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = kp.Seed(); err != nil {
		t.Fatal(err)
	}
	return kp, public, seed
}

// operator is a NATS server's operator with one account for stars.
type operator struct {
	t       *testing.T
	account nkeys.KeyPair
	enable  func(*server.Options)
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	op, err := nkeys.CreateOperator()
	fail(err)
	opPub, err := op.PublicKey()
	fail(err)
	resolver := &server.MemAccResolver{}
	account := func(streams bool) (nkeys.KeyPair, string) {
		kp, err := nkeys.CreateAccount()
		fail(err)
		pub, err := kp.PublicKey()
		fail(err)
		claims := jwt.NewAccountClaims(pub)
		if streams {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := claims.Encode(op)
		fail(err)
		fail(resolver.Store(pub, token))
		return kp, pub
	}
	o := &operator{t: t}
	_, system := account(false)
	o.account, _ = account(true)
	claims := jwt.NewOperatorClaims(opPub)
	claims.SystemAccount = system
	o.enable = func(so *server.Options) {
		so.TrustedOperators, so.AccountResolver, so.SystemAccount = []*jwt.OperatorClaims{claims}, resolver, system
	}
	return o
}

// creds makes a user of an account and gives its file.
func (o *operator) creds(account nkeys.KeyPair) string {
	o.t.Helper()
	_, public, seed := user(o.t)
	token, err := jwt.NewUserClaims(public).Encode(account)
	if err != nil {
		o.t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		o.t.Fatal(err)
	}
	return text(o.t, file)
}

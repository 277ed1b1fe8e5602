package star

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/parley-p2p/parley/identity"
)

// TLSOptions say where the certificate comes from: a key and a certificate, a PFX
// file, or ACME. All empty: no TLS.
type TLSOptions struct {
	Key, Cert  string   // PEM files
	PFX        string   // PKCS#12 file
	Passphrase string   // of the PFX or the key's file; may be empty
	ACME       []string // host names to get certificates for
	ACMECache  string   // folder that keeps them; "" keeps none, so that each start asks anew
	Directory  string   // of the ACME server; "" is Let's Encrypt
}

// certificates gives the current certificate, and reads files again when they
// change.
type certificates struct {
	opts    TLSOptions
	manager *autocert.Manager // nil without ACME
	current atomic.Pointer[tls.Certificate]
	stamp   [sha256.Size]byte // of the files as they were last read, well or not; belongs to run
}

// load reads the material; nil where there is to be no TLS.
func (o TLSOptions) load() (*certificates, error) {
	pair, pfx, byACME := o.Key != "" || o.Cert != "", o.PFX != "", len(o.ACME) > 0
	switch {
	case !pair && !pfx && !byACME:
		return nil, nil
	case pair && pfx, pair && byACME, pfx && byACME:
		return nil, identity.Errorf(identity.CodeMalformed, "star: a key and certificate, a pfx, or acme: one of them")
	case pair && (o.Key == "" || o.Cert == ""):
		return nil, identity.Errorf(identity.CodeMalformed, "star: key and cert go together")
	}
	c := &certificates{opts: o}
	if byACME {
		c.manager = &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(o.ACME...)}
		if o.ACMECache != "" {
			c.manager.Cache = autocert.DirCache(o.ACMECache)
		}
		if o.Directory != "" {
			c.manager.Client = &acme.Client{DirectoryURL: o.Directory}
		}
		return c, nil
	}
	c.stamp = c.look()
	return c, c.read()
}

// read reads the files.
func (c *certificates) read() error {
	cert, err := c.fromPair, error(nil)
	if c.opts.PFX != "" {
		cert = c.fromPFX
	}
	got, err := cert()
	if err != nil {
		return identity.Errorf(identity.CodeMalformed, "star: read certificate: %w", err)
	}
	c.current.Store(&got)
	return nil
}

func (c *certificates) fromPair() (tls.Certificate, error) {
	key, err := os.ReadFile(c.opts.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := os.ReadFile(c.opts.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	if key, err = c.decrypt(key); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// decrypt opens a key's PEM where it is encrypted in the old way, which is the one
// that OpenSSL called traditional.
func (c *certificates) decrypt(key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || !x509.IsEncryptedPEMBlock(block) { //nolint:staticcheck // people have such files
		return key, nil
	}
	der, err := x509.DecryptPEMBlock(block, []byte(c.opts.Passphrase)) //nolint:staticcheck // as above
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
}

func (c *certificates) fromPFX() (tls.Certificate, error) {
	raw, err := os.ReadFile(c.opts.PFX)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, leaf, chain, err := pkcs12.DecodeChain(raw, c.opts.Passphrase)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for _, ca := range chain {
		cert.Certificate = append(cert.Certificate, ca.Raw)
	}
	return cert, nil
}

// config is what listeners take: TLS 1.2 and up, without HTTP/2, which WebSockets
// don't use.
func (c *certificates) config() *tls.Config {
	if c.manager != nil {
		cfg := c.manager.TLSConfig()
		cfg.MinVersion = tls.VersionTLS12
		cfg.NextProtos = []string{"http/1.1", "acme-tls/1"}
		return cfg
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil }}
}

// certLook is how often files are looked at.
const certLook = 10 * time.Second

// run reads the files again when they have changed, until ctx ends. Files that
// can't be read leave the old certificate in use.
func (c *certificates) run(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(certLook)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if c.manager != nil {
			continue
		}
		if stamp := c.look(); stamp != c.stamp {
			c.stamp = stamp
			if err := c.read(); err != nil {
				log.Error("the certificate has changed and can't be read; the old one stays", "error", err)
			} else {
				log.Info("the certificate has changed and was read again")
			}
		}
	}
}

// look tells one state of the files from another, by what is in them: times and
// links mislead where files are swapped.
func (c *certificates) look() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range []string{c.opts.Key, c.opts.Cert, c.opts.PFX} {
		content, err := os.ReadFile(name)
		_, _ = fmt.Fprintln(h, len(content), err != nil)
		_, _ = h.Write(content) // a hash takes everything
	}
	return [sha256.Size]byte(h.Sum(nil))
}

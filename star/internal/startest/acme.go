package startest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Certificate makes a key and a certificate for a name, signed by itself, as PEM.
func Certificate(t testing.TB, name string) (key, cert []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template(name), template(name), &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}
}

// ACME is a certificate authority (RFC 8555) that issues what is proven by
// tls-alpn-01 (RFC 8737). It believes every signature of a request.
type ACME struct {
	URL  string // of its directory
	Pool *x509.CertPool

	// Static after construction.
	t    testing.TB
	key  *ecdsa.PrivateKey
	root *x509.Certificate

	mu     sync.Mutex
	at     string // where names are proven
	name   string // of the order there is
	proven bool
	chain  []byte
	issued int
}

// NewACME starts one that ends with the test.
func NewACME(t testing.TB) *ACME {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := template("an authority for tests")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a := &ACME{t: t, key: key, root: root, Pool: x509.NewCertPool()}
	a.Pool.AddCert(root)
	hs := httptest.NewServer(a.routes())
	t.Cleanup(hs.Close)
	a.URL = hs.URL + "/directory"
	return a
}

// Prove says where the names are served that are asked for.
func (a *ACME) Prove(addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = addr
}

// Issued is how many certificates it gave out.
func (a *ACME) Issued() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued
}

func (a *ACME) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, h func(base string, payload []byte) (status int, location string, body any)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			base := "http://" + r.Host
			var jws struct{ Payload string }
			_ = json.NewDecoder(r.Body).Decode(&jws) // a GET has none
			payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
			if err != nil {
				a.t.Errorf("acme: %s: %v", path, err)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			status, location, body := h(base, payload)
			w.Header().Set("Replay-Nonce", rand.Text())
			if location != "" {
				w.Header().Set("Location", base+location)
			}
			if raw, ok := body.([]byte); ok {
				w.Header().Set("Content-Type", "application/pem-certificate-chain")
				w.WriteHeader(status)
				_, _ = w.Write(raw)
				return
			}
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(body)
		})
	}
	handle("/directory", func(base string, _ []byte) (int, string, any) {
		return 200, "", map[string]any{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/new-order", "revokeCert": base + "/revoke", "keyChange": base + "/change"}
	})
	handle("/nonce", func(string, []byte) (int, string, any) { return 200, "", nil })
	handle("/account", func(string, []byte) (int, string, any) { return 201, "/account/1", map[string]any{"status": "valid"} })
	handle("/new-order", a.newOrder)
	handle("/order", func(base string, _ []byte) (int, string, any) { return 200, "/order", a.order(base) })
	handle("/authz", func(base string, _ []byte) (int, string, any) { return 200, "", a.authz(base) })
	handle("/challenge", func(base string, _ []byte) (int, string, any) {
		a.prove()
		return 200, "", a.challenge(base)
	})
	handle("/finalize", a.finalize)
	handle("/cert", func(string, []byte) (int, string, any) { return 200, "", a.chain })
	return mux
}

func (a *ACME) newOrder(base string, payload []byte) (int, string, any) {
	var order struct{ Identifiers []struct{ Value string } }
	if err := json.Unmarshal(payload, &order); err != nil || len(order.Identifiers) != 1 {
		return 400, "", map[string]any{"type": "urn:ietf:params:acme:error:malformed"}
	}
	a.name, a.proven, a.chain = order.Identifiers[0].Value, false, nil
	return 201, "/order", a.order(base)
}

func (a *ACME) order(base string) any {
	status := map[bool]string{false: "pending", true: "ready"}[a.proven]
	if a.chain != nil {
		status = "valid"
	}
	return map[string]any{"status": status, "identifiers": a.identifiers(), "authorizations": []string{base + "/authz"},
		"finalize": base + "/finalize", "certificate": base + "/cert"}
}

func (a *ACME) identifiers() any { return []map[string]string{{"type": "dns", "value": a.name}} }

func (a *ACME) status() string { return map[bool]string{false: "pending", true: "valid"}[a.proven] }

func (a *ACME) authz(base string) any {
	return map[string]any{"status": a.status(), "identifier": map[string]string{"type": "dns", "value": a.name}, "challenges": []any{a.challenge(base)}}
}

func (a *ACME) challenge(base string) any {
	return map[string]any{"type": "tls-alpn-01", "url": base + "/challenge", "token": "token-of-this-test", "status": a.status()}
}

// prove asks the name's own server for the certificate of the challenge.
func (a *ACME) prove() {
	conn, err := tls.Dial("tcp", a.at, &tls.Config{ServerName: a.name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		a.t.Errorf("acme: %s at %s: %v", a.name, a.at, err)
		return
	}
	defer conn.Close()
	state := conn.ConnectionState()
	proof := slices.ContainsFunc(state.PeerCertificates[0].Extensions, func(e pkix.Extension) bool {
		return e.Critical && e.Id.String() == "1.3.6.1.5.5.7.1.31"
	})
	if a.proven = proof && state.NegotiatedProtocol == "acme-tls/1" && slices.Equal(state.PeerCertificates[0].DNSNames, []string{a.name}); !a.proven {
		a.t.Errorf("acme: %s proves nothing", a.name)
	}
}

func (a *ACME) finalize(base string, payload []byte) (int, string, any) {
	var req struct{ CSR string }
	var csr *x509.CertificateRequest
	err := json.Unmarshal(payload, &req)
	if err == nil {
		der, _ := base64.RawURLEncoding.DecodeString(req.CSR)
		csr, err = x509.ParseCertificateRequest(der)
	}
	if err != nil || !a.proven {
		return 403, "", map[string]any{"type": "urn:ietf:params:acme:error:orderNotReady", "detail": fmt.Sprint(err)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template(a.name), a.root, csr.PublicKey, a.key)
	if err != nil {
		a.t.Error(err)
	}
	for _, der := range [][]byte{der, a.root.Raw} {
		a.chain = append(a.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	a.issued++
	return 200, "/order", a.order(base)
}

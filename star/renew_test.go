package star

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/star/internal/startest"
)

// shown is the name in the certificate that a handshake gives.
func shown(t *testing.T, c *certificates) string {
	t.Helper()
	here, there := net.Pipe()
	server := tls.Server(there, c.config())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Handshake(); _, _ = io.Copy(io.Discard, server) }) // the client sees how it went
	defer wg.Wait()
	defer here.Close()
	client := tls.Client(here, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0].DNSNames[0]
}

// heard is what a log says.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

// take gives what was said since the last call.
func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.text.Reset()
	return h.text.String()
}

// A-13, §9.2: files are read again when they change, while the server runs; what
// can't be read leaves the old certificate in use.
func TestA_13_CertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	put := func(name string) {
		k, c := startest.Certificate(t, name)
		for file, content := range map[string][]byte{key: k, cert: c} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("one.test")
	c, err := TLSOptions{Key: key, Cert: cert}.load()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		said := &heard{}
		wg.Go(func() { _ = c.run(ctx, slog.New(slog.NewTextHandler(said, nil))) })
		for _, step := range []struct {
			do         func()
			want, says string
		}{
			{func() {}, "one.test", ""},
			{func() { put("two.test") }, "two.test", "was read again"},
			{func() { _ = os.WriteFile(cert, []byte("half a fi"), 0o600) }, "two.test", "the old one stays"},
			{func() { _ = os.Remove(key) }, "two.test", "the old one stays"},
			{func() { put("three.test") }, "three.test", "was read again"},
		} {
			step.do()
			time.Sleep(certLook + time.Second)
			synctest.Wait()
			if got := shown(t, c); got != step.want {
				t.Errorf("the certificate is for %s, want %s", got, step.want)
			}
			if got := said.take(); !strings.Contains(got, step.says) {
				t.Errorf("the log says %q, want %s", got, step.says)
			}
		}
		cancel()
		wg.Wait()
	})
}

// A certificate by ACME: asked for with the first handshake, proven on the star's
// own port, kept in the folder, and used from there at the next start.
func TestA_13_ACME(t *testing.T) {
	authority := startest.NewACME(t)
	cache := t.TempDir()
	o := Options{Host: "127.0.0.1", Drain: -1, TLS: TLSOptions{ACME: []string{"star.test"}, ACMECache: cache, Directory: authority.URL}}
	for _, want := range []int{1, 1} { // the second start asks nobody
		srv, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		authority.Prove(srv.Addr().String())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- srv.Run(ctx) }()
		for name, good := range map[string]bool{"star.test": true, "other.test": false} {
			conn, err := tls.Dial("tcp", srv.Addr().String(), &tls.Config{ServerName: name, RootCAs: authority.Pool, MinVersion: tls.VersionTLS12})
			if good != (err == nil) {
				t.Errorf("handshake for %s: %v", name, err)
			}
			if err == nil {
				conn.Close()
			}
		}
		if got := authority.Issued(); got != want {
			t.Errorf("%d certificates were issued, want %d", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	files, err := os.ReadDir(cache)
	if err != nil || len(files) == 0 {
		t.Errorf("the folder has %d files, %v", len(files), err)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is for others to read", f.Name())
		}
	}
}

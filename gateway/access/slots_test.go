package access_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway/access"
)

// serveSlots serves "in" with a bound on half-open connections.
func serveSlots(t *testing.T, slots *access.Slots, headerTimeout time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })}
	slots.Install(server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return l.Addr().String()
}

// halfOpen opens a connection and sends part of an upgrade.
func halfOpen(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgr")
	return c
}

func TestAbuse17_SlowUpgradeIsDropped(t *testing.T) {
	c := halfOpen(t, serveSlots(t, access.NewSlots(0), 50*time.Millisecond))
	// Where the system was slow it ended before the part of a request came: a reset.
	if answer, err := io.ReadAll(c); err != nil && isTimeout(err) || len(answer) > 200 {
		t.Errorf("%q, %v; want the end of the connection", answer, err)
	}
}

func TestAbuse18_HalfOpenUpgradesAreCapped(t *testing.T) {
	const limit, flood = 32, 400
	slots := access.NewSlots(limit)
	addr := serveSlots(t, slots, 20*time.Second)
	var conns []net.Conn
	for range flood {
		conns = append(conns, halfOpen(t, addr))
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		t.Fatalf("a whole request among half-open ones: %v", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if now, dropped := slots.Waiting(); now > limit || dropped < flood-limit {
		t.Errorf("%d are open, %d were dropped; want at most %d and at least %d", now, dropped, limit, flood-limit)
	}
	for i, c := range conns[:flood-limit] {
		if _, err := io.ReadAll(c); err != nil && isTimeout(err) {
			t.Fatalf("connection %d is still open", i)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

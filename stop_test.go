package parley

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/site"
)

// TestEndsWhenTheLastPageHasLeft: a node that isn't told to linger ends by itself,
// without an error, and not before the last of its pages has left, whichever it is.
func TestEndsWhenTheLastPageHasLeft(t *testing.T) {
	for _, oldLeavesFirst := range []bool{true, false} {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		cfg := loopbackConfig(t)
		cfg.Behavior.AutoExitTimeout = Duration(50 * time.Millisecond)
		cfg.Site = siteOf(t)
		n, ended := runUntilItEnds(t, cfg)
		s := serverOf(t, n)
		old, now := gatewaytest.Join1(t, s), gatewaytest.Join2(t, s, v2.HelloFrame{})
		stays := func() { now.Call("status", map[string]any{}) }
		first, last := old.WS, now.WS
		if !oldLeavesFirst {
			first, last = last, first
			stays = func() { old.Call("listpeers", `{"topic":"x"}`) }
		}
		_ = first.Close(websocket.StatusNormalClosure, "")
		late := time.After(500 * time.Millisecond) // far longer than the node stays
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for waiting := true; waiting; {
			select {
			case err := <-ended:
				t.Fatalf("ended with %v although a page is there", err)
			case <-late:
				waiting = false
			case <-tick.C:
				stays()
			}
		}
		_ = last.Close(websocket.StatusGoingAway, "")
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func siteOf(t *testing.T) *site.Site {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := site.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// runUntilItEnds runs a node that nobody tells to stop, unless the test fails.
func runUntilItEnds(t *testing.T, cfg Config) (*Node, <-chan error) {
	t.Helper()
	ready := make(chan struct{})
	cfg.Ready = func(Started) { close(ready) }
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		ended <- n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-over
	})
	<-ready
	return n, ended
}

// TestStays: a node that is told to linger, or has no site, stays when its last page
// has left.
func TestStays(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"linger":     func(c *Config) { c.Behavior.Linger = true },
		"no site":    func(c *Config) { c.Site = nil },
		"no timeout": func(c *Config) { c.Behavior.AutoExitTimeout = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
			cfg := loopbackConfig(t)
			cfg.Behavior.AutoExitTimeout = Duration(50 * time.Millisecond)
			cfg.Site = siteOf(t)
			set(&cfg)
			n, ended := runUntilItEnds(t, cfg)
			_ = gatewaytest.Join1(t, serverOf(t, n)).WS.Close(websocket.StatusNormalClosure, "")
			select {
			case err := <-ended:
				t.Errorf("ended with %v", err)
			case <-time.After(500 * time.Millisecond):
			}
		})
	}
}

// TestStop_IsNotHeldUpOverHTTP: connections that never ask, or never end asking, are
// cut, and are no fault.
func TestStop_IsNotHeldUpOverHTTP(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n, stop := startPatient(t, loopbackConfig(t), patience{time.Millisecond, time.Millisecond})
	for _, begin := range []string{"", "GET / HTTP/1.1\r\nHost: local"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(serverOf(t, n).URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(begin)); err != nil {
			t.Fatal(err)
		}
	}
	_ = gatewaytest.Join2(t, serverOf(t, n), v2.HelloFrame{}) // by now they have been accepted
	stop()
}

// TestStop_LosesNoAcceptedMessage: what a node took into its outbox, and told the
// page so, leaves before the node does, in order.
func TestStop_LosesNoAcceptedMessage(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	other := runNode(t, loopbackConfig(t))
	n, stop := startPatient(t, loopbackConfig(t), patience{time.Minute, time.Minute})
	to := gatewaytest.Join1(t, serverOf(t, other))
	to.Call("start", `{"protocol":"/last"}`)
	from := gatewaytest.Join2(t, serverOf(t, n), v2.HelloFrame{})
	const count = 200
	for i := range count {
		from.Send(to.ID, "/last", i, network.Queued, false)
	}
	for accepted := 0; accepted < count; {
		switch f := from.Next(); f.Kind {
		case v2.KindResult:
			accepted++
		case v2.KindEvent: // of the path to the other
		default:
			t.Fatalf("frame %d: %v", f.Kind, gatewaytest.Elements(t, f))
		}
	}
	told := make(chan websocket.StatusCode, 1)
	go func() {
		code, _ := from.Closed()
		told <- code
	}()
	stop()
	if code := <-told; code != websocket.StatusGoingAway {
		t.Errorf("closed with %d", code)
	}
	for i := range count {
		f := to.Next()
		var m struct{ Data int }
		if err := json.Unmarshal(f.Params, &m); f.Method != "peerData" || err != nil || m.Data != i {
			t.Fatalf("message %d: got %s %s", i, f.Method, f.Params)
		}
	}
}

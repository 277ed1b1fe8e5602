package socketio_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// A server that ends while sessions begin: its close frames are written behind the
// first packets, by nobody else (the race detector sees it otherwise).
func TestServerEndsWhileSessionsBegin(t *testing.T) {
	for range 60 {
		endWhileSessionsBegin(t)
	}
}

func endWhileSessionsBegin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var opened atomic.Int64
	srv := socketio.NewServer(socketio.Options{Handler: &giver{},
		Connect: func(*socketio.Socket, *http.Request) (json.RawMessage, error) {
			if opened.Add(1) == 4 {
				cancel()
			}
			return nil, nil
		}})
	var running, clients sync.WaitGroup
	running.Go(func() { _ = srv.Run(ctx) })
	hs := httptest.NewServer(srv)
	defer hs.Close()
	u, err := url.Parse(hs.URL + "/socket.io/?EIO=3&transport=websocket")
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		clients.Go(func() {
			c, err := ws.Dial(t.Context(), http.DefaultClient, u, nil, 1<<20, &ws.Memory{})
			if err != nil {
				return // too late
			}
			if m, err := c.Read(); err == nil && (m.Op != ws.Text || m.Data[0] != '0') {
				t.Errorf("the first message is %v %q", m.Op, m.Data)
			}
			_ = c.NetConn().Close()
			c.Release()
		})
	}
	clients.Wait()
	cancel()
	running.Wait()
}

package socketio_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio"
)

// farConn is the client's end of a connection whose server is a second away, as far
// as its end is concerned: what is written to a closed one seems to have been sent.
type farConn struct{ net.Conn }

const farAway = time.Second

func (c farConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		time.Sleep(farAway)
	}
	return n, err
}

func (c farConn) Write(b []byte) (int, error) {
	if n, err := c.Conn.Write(b); err == nil {
		return n, nil
	}
	return len(b), nil
}

// A session that polls does not end because a connection was idle for longer than
// its server waits: one between two POSTs that Node would close after 5 s, and one
// that was dialled but not needed, which never carried a request.
func TestPostsAvoidStaleConnections(t *testing.T) {
	const overtaken = 2 // the number of the connection whose dial takes long
	for name, c := range map[string]struct {
		idle, header time.Duration // what the server waits for the next request, and for a first one
		slow         time.Duration // how long that dial takes
		closes       time.Duration // when the server closes the idle connection
	}{
		"between two posts": {idle: 5 * time.Second, closes: 5500 * time.Millisecond},
		"overtaken dial":    {header: 10 * time.Second, slow: time.Second, closes: 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, session := startest.NewNet(), make(chan *socketio.Socket, 1)
				srv := socketio.NewServer(socketio.Options{Handler: newEcho(), Connect: func(s *socketio.Socket, _ *http.Request) (json.RawMessage, error) {
					session <- s
					return nil, nil
				}})
				hs := &http.Server{Handler: srv, IdleTimeout: c.idle, ReadHeaderTimeout: c.header}
				ctx, cancel := context.WithCancel(t.Context())
				var serving sync.WaitGroup
				serving.Go(func() { _ = srv.Run(ctx) })
				serving.Go(func() { _ = hs.Serve(n) })
				var dialled atomic.Int32
				tr := socketio.OwnTransport()
				tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if dialled.Add(1) == overtaken {
						time.Sleep(c.slow)
					}
					conn, err := n.Dial(ctx, network, addr)
					return farConn{conn}, err
				}
				col := newCollector()
				cl, err := socketio.Dial(ctx, &url.URL{Scheme: "http", Host: "star.test"},
					socketio.DialOptions{Transport: socketio.Polling, Handler: col, HTTP: &http.Client{Transport: tr}})
				if err != nil {
					t.Fatal(err)
				}
				run, stop := context.WithCancel(ctx)
				done := make(chan error, 1)
				go func() { done <- cl.Run(run) }()

				start := time.Now()
				synctest.Wait()                                 // the first GET waits at the server
				_ = cl.Socket().Send(flow.Bulk, event("first")) // a dial for its POST begins
				time.Sleep(500 * time.Millisecond)
				_ = (<-session).Send(flow.Bulk, event("news")) // the GET's connection is free before that
				time.Sleep(time.Until(start.Add(c.closes + farAway/2)))
				_ = cl.Socket().Send(flow.Bulk, event("second")) // the server has closed it, the client not seen that
				time.Sleep(5 * time.Second)
				if err := cl.Socket().Err(); err != nil {
					t.Errorf("the session has ended: %v", err)
				}
				stop()
				<-done
				cancel()
				tr.CloseIdleConnections()
				_ = hs.Shutdown(context.Background())
				serving.Wait()
				time.Sleep(2 * farAway) // until the client has seen it all
			})
		})
	}
}

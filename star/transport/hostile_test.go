package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
	"github.com/parley-p2p/parley/star/transport"
)

// liar is a star that answers as a test wants.
type liar struct {
	nonce  string // asked for at a join; "" is none at all
	silent bool   // answers no join
	list   string // JSON, ends a join
	after  func(s *socketio.Socket)
}

func (l *liar) Event(s *socketio.Socket, e *socketio.Event) error {
	if e.Name != "ss-join" || l.silent {
		return nil // dials are never answered
	}
	var b wire.Builder
	b.Ack(nil, e.AckID()).Raw("null")
	if data, _ := e.Text(1); strings.HasPrefix(data, "0801") { // a key, not a signature
		b.Str(l.nonce)
	} else {
		b.Raw("null").Raw(l.list)
	}
	_ = s.Send(flow.Control, socketio.Msg{Text: b.Done()})
	if data, _ := e.Text(1); l.after != nil && !strings.HasPrefix(data, "0801") {
		l.after(s)
	}
	return nil
}
func (*liar) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }
func (*liar) Disconnected(*socketio.Socket, error)                   {}

const goodNonce = "0b1f4c52-6a52-4a3e-9a0e-1f2d3c4b5a690b1f4c52-6a52-4a3e-9a0e-1f2d3c4b5a69"

// lie puts a liar where the star is.
func (w *world) lie(l *liar) {
	srv := socketio.NewServer(socketio.Options{Handler: l})
	w.serve("star.test:80", srv)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Run(ctx) }()
	w.atEnd(func() { cancel(); <-done })
}

// A star that wants another signature than for its own challenge gets none.
func TestS_10_ForeignNonceIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.lie(&liar{nonce: "parley-star/1 /dns4/bank.test/tcp/80/ws/p2p-websocket-star/ipfs/x " + strings.Repeat("a", 43), list: "[]"})
		n := w.node(transport.Options{}).listen(w, where)
		if st := n.state(where, transport.Refused); !strings.Contains(st.Error.Error(), "no challenge") {
			t.Errorf("refused for %v", st.Error)
		}
	})
}

// A star that never answers a join is given up after 10 s, and tried again.
func TestAbuse39_JoinNeverAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.lie(&liar{silent: true})
		began := time.Now()
		n := w.node(transport.Options{}).listen(w, where)
		for n.Status()[0].Error == nil { // the state is over after a random time
			pause(10 * time.Millisecond)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}

// A callee that never answers ends the dial with its own error after 15 s.
func TestAbuse39_DialNeverAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.lie(&liar{nonce: goodNonce, list: "[]"})
		n, other := w.node(transport.Options{}).listen(w, where), w.node(transport.Options{})
		n.state(where, transport.Joined)
		began := time.Now()
		_, err := n.Dial(t.Context(), ma.StringCast(where), other.id)
		if took := time.Since(began); !errors.Is(err, transport.ErrDialTimedOut) || took != 15*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A star that invents members is believed for so many, on its own host alone.
func TestAbuse39_StarInventsMembers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		flood := func(s *socketio.Socket) {
			for i := range 300 {
				id := w.node(transport.Options{}).id
				host := "star.test"
				if i%3 == 0 {
					host = "victim.test"
				}
				var b wire.Builder
				b.Event(nil, wire.NoAck, "ws-peer").Str(fmt.Sprintf("/dns4/%s/tcp/80/ws/p2p-websocket-star/ipfs/%s", host, id))
				_ = s.Send(flow.Control, socketio.Msg{Text: b.Done()})
			}
		}
		w.lie(&liar{nonce: goodNonce, list: `["/ip4/1.2.3.4/tcp/1",7,{},"x"]`, after: flood})
		n := w.node(transport.Options{Limits: transport.Limits{Discovered: 50}}).listen(w, where)
		n.state(where, transport.Joined)
		pause(5 * time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.found) != 50 || n.Status()[0].Members != 50 {
			t.Errorf("%d found, %d members", len(n.found), n.Status()[0].Members)
		}
	})
}

// What speaks no Socket.IO is no star.
func TestSomethingElseAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.serve("star.test:80", http.NotFoundHandler())
		n := w.node(transport.Options{}).listen(w, where)
		if st := n.state(where, transport.Waiting); st.Error == nil {
			t.Error("not there, without a reason")
		}
	})
}

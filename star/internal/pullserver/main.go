// Package main is the server that the tests of socket.io-pull-stream want (star.md
// §15, A-3), on star/socketio alone: it greets clients and joins streams of two of
// them.
//
//	hello ▶                    world (own id) ◀
//	createProxy (stream, id, ack) ▶     ack (ack) ◀ at the other client, then the answer
//
// It listens on the port of its argument and ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

func main() {
	if err := run(os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, "pullserver:", err)
		os.Exit(2)
	}
}

func run(port string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		return err
	}
	r := &relay{streams: make(map[string]*stream), sockets: make(map[string]*socketio.Socket)}
	srv := socketio.NewServer(socketio.Options{Handler: r})
	ctx, stop := context.WithCancel(context.Background())
	go func() { // ends with the program
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
		_ = listener.Close()
	}()
	_, _ = fmt.Fprintln(os.Stdout, "Listening on:", "http://"+listener.Addr().String()) // who started it reads it
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Run(ctx) })
	err = http.Serve(listener, srv) //nolint:gosec // for tests on loopback
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// relay has the streams, each from one socket to another.
type relay struct {
	mu      sync.Mutex
	sockets map[string]*socketio.Socket
	streams map[string]*stream
}

type stream struct {
	to       *socketio.Socket
	accepted bool
	waiting  []socketio.Msg
}

// Event serves one event.
func (r *relay) Event(s *socketio.Socket, e *socketio.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b wire.Builder
	switch {
	case e.Name == "hello":
		r.sockets[s.ID()] = s
		return s.Send(flow.Control, socketio.Msg{Text: b.Event(nil, wire.NoAck, "world").Str(s.ID()).Done()})
	case e.Name == "createProxy":
		return r.join(s, e)
	}
	if id, ok := strings.CutPrefix(e.Name, proxy.Accept); ok {
		r.accept(id)
	} else if id, ok := strings.CutPrefix(e.Name, proxy.Queue); ok {
		if data, ok := e.Bytes(0); ok {
			r.pass(id, socketio.Msg{Text: b.Binary(nil, 1, e.Name).Placeholder(0).Done(), Bin: append([]byte{4}, data...)})
		}
	} else if id, ok := strings.CutPrefix(e.Name, proxy.Error); ok && len(e.Args) > 0 {
		r.pass(id, socketio.Msg{Text: b.Event(nil, wire.NoAck, e.Name).Raw(string(e.Args[0])).Done()})
	}
	return nil
}

// join makes a stream from s to another; the caller holds mu.
func (r *relay) join(s *socketio.Socket, e *socketio.Event) error {
	id, _ := e.Text(0)
	other, _ := e.Text(1)
	to := r.sockets[other]
	if to == nil {
		return fmt.Errorf("no socket %s", other)
	}
	r.streams[id] = &stream{to: to}
	answer := e.AckID()
	there := to.Expect(func(socketio.Answer) {
		var b wire.Builder
		_ = s.Send(flow.Control, socketio.Msg{Text: b.Ack(nil, answer).Done()}) // one that ends needs none
	})
	var b1, b2 wire.Builder
	_ = s.Send(flow.Control, socketio.Msg{Text: b1.Event(nil, wire.NoAck, proxy.Accept+id).Done()}) // likewise
	return to.Send(flow.Control, socketio.Msg{Text: b2.Event(nil, there, "ack").Done()})
}

func (r *relay) accept(id string) {
	st := r.streams[id]
	if st == nil {
		return
	}
	st.accepted = true
	for _, m := range st.waiting {
		_ = st.to.Send(flow.Bulk, m) // one that ends needs none
	}
	st.waiting = nil
}

func (r *relay) pass(id string, m socketio.Msg) {
	switch st := r.streams[id]; {
	case st == nil:
	case st.accepted:
		_ = st.to.Send(flow.Bulk, m) // one that ends needs none
	default:
		st.waiting = append(st.waiting, m)
	}
}

// Binary leaves all to Event.
func (r *relay) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }

// Disconnected forgets a socket.
func (r *relay) Disconnected(s *socketio.Socket, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sockets, s.ID())
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The words of streams (docs/spec/star.md §5).
const (
	acceptWord = "socket.io-pull-stream.accept."
	queueWord  = "socket.io-pull-stream.queue."
	errorWord  = "socket.io-pull-stream.error."
)

// client is one connection to a star, without extensions, as an old one.
type client struct {
	sock *socketio.Socket
	done chan error
	stop context.CancelFunc

	// onChunk, where set, is given the length of each chunk; it is set before the
	// first dial.
	onChunk func(c *client, text []byte, n int)

	mu       sync.Mutex
	accepted map[string]chan struct{} // streams that may be written to
	ended    map[string]chan struct{} // streams that have ended
}

// web is the way to all servers; keep-alive is no use to WebSockets.
var web = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

var memory ws.Memory

// connect makes a client of s.
func (s *server) connect(ctx context.Context) (*client, error) {
	c := &client{done: make(chan error, 1), accepted: make(map[string]chan struct{}), ended: make(map[string]chan struct{})}
	to, err := socketio.Dial(ctx, s.base, socketio.DialOptions{Handler: c, HTTP: web, Memory: &memory, Limits: socketio.Limits{Message: 16 << 20}})
	if err != nil {
		return nil, err
	}
	c.sock = to.Socket()
	ctx, c.stop = context.WithCancel(context.Background())
	go func() { c.done <- to.Run(ctx) }()
	return c, nil
}

// joined makes a client that holds an address of an open star.
func (s *server) joined(ctx context.Context, addr string) (*client, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.join(ctx, addr, ""); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// two gives members 1 and 2, who are to dial each other, and what closes both.
func (s *server) two(ctx context.Context) (from, to *client, end func(), err error) {
	if from, err = s.joined(ctx, address(1)); err != nil {
		return nil, nil, nil, err
	}
	if to, err = s.joined(ctx, address(2)); err != nil {
		from.close()
		return nil, nil, nil, err
	}
	return from, to, func() { to.close(); from.close() }, nil
}

// close ends the connection and waits for that.
func (c *client) close() {
	c.stop()
	<-c.done
}

// address is the n-th address of a made-up peer.
func address(n int) string {
	return fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/9090/ws/p2p-websocket-star/ipfs/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSooo3a", n>>16&255, n>>8&255, n&255)
}

// call emits an event of strings and gives the answer's arguments.
func (c *client) call(ctx context.Context, name string, args ...string) ([]json.RawMessage, error) {
	answers := make(chan socketio.Answer, 1)
	id := c.sock.Expect(func(a socketio.Answer) {
		for i, arg := range a.Args { // they are valid for now alone
			a.Args[i] = append([]byte(nil), arg...)
		}
		a.Args = append([][]byte(nil), a.Args...)
		answers <- a
	})
	if err := c.emit(id, name, args...); err != nil {
		return nil, err
	}
	select {
	case a := <-answers:
		list := make([]json.RawMessage, len(a.Args))
		for i, arg := range a.Args {
			list[i] = arg
		}
		return list, a.Err
	case <-time.After(60 * time.Second):
		return nil, fmt.Errorf("no answer to %s", name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *client) emit(ack int64, name string, args ...string) error {
	var b wire.Builder
	b.Event(nil, ack, name)
	for _, a := range args {
		if a == "true" {
			b.Raw(a)
		} else {
			b.Str(a)
		}
	}
	return c.sock.Send(flow.Bulk, socketio.Msg{Text: b.Done()})
}

// join is one step of a join, the last.
func (c *client) join(ctx context.Context, addr, data string) error {
	args, err := c.call(ctx, "ss-join", addr, data)
	if err != nil {
		return err
	}
	if len(args) == 0 || string(args[0]) != "null" {
		return fmt.Errorf("join: %s", args)
	}
	return nil
}

// waiter is a channel of a table that is closed once.
func (c *client) waiter(table map[string]chan struct{}, id string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := table[id]
	if ch == nil {
		ch = make(chan struct{})
		table[id] = ch
	}
	return ch
}

// dial dials and waits until the stream may be written to.
func (c *client) dial(ctx context.Context, from, to, id string) error {
	may := c.waiter(c.accepted, id+".dialer")
	args, err := c.call(ctx, "ss-dial", from, to, id)
	if err != nil {
		return err
	}
	if len(args) > 0 && string(args[0]) != "null" {
		return fmt.Errorf("dial: %s", args)
	}
	if err := c.emit(wire.NoAck, acceptWord+id+".listener"); err != nil {
		return err
	}
	select {
	case <-may:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("no accept")
	}
}

// forget drops what is known of a stream.
func (c *client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.accepted, id)
	delete(c.ended, id)
}

// chunkText is the event of a chunk.
func chunkText(stream string) []byte {
	var b wire.Builder
	return b.Binary(nil, 1, queueWord+stream).Placeholder(0).Done()
}

// Event serves what comes, but for chunks.
func (c *client) Event(_ *socketio.Socket, e *socketio.Event) error {
	switch {
	case e.Name == "ss-incomming":
		id, _ := e.Text(0)
		var b wire.Builder
		_ = c.emit(wire.NoAck, acceptWord+id+".dialer")
		return c.sock.Send(flow.Bulk, socketio.Msg{Text: b.Ack(nil, e.AckID()).Done()})
	case strings.HasPrefix(e.Name, acceptWord):
		close(c.waiter(c.accepted, e.Name[len(acceptWord):]))
	case strings.HasPrefix(e.Name, errorWord):
		id := e.Name[len(errorWord):]
		close(c.waiter(c.ended, id))
		if dial, ok := strings.CutSuffix(id, ".dialer"); ok { // a callee ends when the dialer has
			_ = c.emit(wire.NoAck, errorWord+dial+".listener", "true")
			c.forget(id)
			c.forget(dial + ".listener")
		}
	}
	return nil
}

// Binary counts chunks.
func (c *client) Binary(_ *socketio.Socket, text, data []byte, _ **ws.Buf) bool {
	if c.onChunk == nil {
		return true
	}
	c.onChunk(c, text, len(data)-1)
	return true
}

// Disconnected has nothing to do.
func (c *client) Disconnected(*socketio.Socket, error) {}

// Package page is a page written in Go: a small client of protocol v2
// (client/PROTOCOL.md) that costs as little as it can, so that a measurement is
// of the node and not of its driver.
package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Frame kinds of client/PROTOCOL.md.
const (
	kindHello       = 0
	kindWelcome     = 1
	kindReceived    = 2
	kindPing        = 3
	kindPong        = 4
	kindBye         = 5
	kindRequest     = 16
	kindResult      = 17
	kindError       = 18
	kindSend        = 20
	kindMessage     = 24
	kindHandled     = 25
	kindPublication = 28
	kindLost        = 30
)

// Options of Dial.
type Options struct {
	Token    string // bearer token; empty for none
	Identity string // "" is a fresh key
}

// Page is one session. Its handlers run in the reading goroutine.
type Page struct {
	conn *Socket
	peer string
	done chan struct{} // closed when both goroutines have ended
	stop context.CancelFunc

	mu       sync.Mutex
	out      [][]byte // frames that wait for the writer, one WebSocket message each
	other    [][]byte // the memory of out, while it is written
	writing  bool     // somebody writes what was in out
	spare    [][]byte // written messages, used again
	wake     chan struct{}
	nextID   uint64
	pending  map[uint64]func(result []byte, err error)
	handlers map[string]func(from string, data []byte)
	topics   map[string]func(from string, data []byte)
	lost     uint64
	err      error

	arrived uint64 // owned by the reader: numbered frames so far
}

// Dial opens a session at a WebSocket address.
func Dial(ctx context.Context, url string, opts Options) (*Page, error) {
	header := http.Header{}
	if opts.Token != "" {
		header.Set("Authorization", "Bearer "+opts.Token)
	}
	conn, err := DialSocket(ctx, url, header, "parley.v2")
	if err != nil {
		return nil, err
	}
	p := &Page{conn: conn, done: make(chan struct{}), wake: make(chan struct{}, 1),
		pending:  make(map[uint64]func([]byte, error)),
		handlers: make(map[string]func(string, []byte)), topics: make(map[string]func(string, []byte))}
	if err := p.hello(opts); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	run, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go p.live(run)
	return p, nil
}

func (p *Page) hello(opts Options) error {
	frame := appendUint(appendArray(nil, 2), kindHello)
	frame = appendHead(frame, majorMap, 2)
	frame = appendUint(appendText(frame, "v"), 2)
	frame = appendText(appendText(frame, "identity"), opts.Identity)
	if err := p.conn.Write(frame); err != nil {
		return err
	}
	msg, err := p.conn.Read(nil)
	if err != nil {
		return err
	}
	s := scanner{rest: msg}
	s.head()
	if kind := s.uint(); kind != kindWelcome {
		return fmt.Errorf("hello was answered with kind %d: %q", kind, msg)
	}
	_, pairs := s.head()
	for ; pairs > 0 && s.err == nil; pairs-- {
		if key := s.string(); string(key) == "peer" {
			p.peer = string(s.string())
		} else {
			s.skip()
		}
	}
	return s.err
}

// live runs the two goroutines of the session.
func (p *Page) live(ctx context.Context) {
	defer close(p.done)
	var writer sync.WaitGroup
	writer.Go(func() { p.write(ctx) })
	err := p.read()
	p.stop()
	writer.Wait()
	p.fail(err)
}

// Peer is the page's id.
func (p *Page) Peer() string { return p.peer }

// Lost is how many publications the node dropped because this page was slow.
func (p *Page) Lost() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Start listens to a protocol.
func (p *Page) Start(ctx context.Context, protocol string, h func(from string, data []byte)) error {
	p.mu.Lock()
	p.handlers[protocol] = h
	p.mu.Unlock()
	return p.request(ctx, "start", "protocol", protocol)
}

// Subscribe listens to a topic.
func (p *Page) Subscribe(ctx context.Context, topic string, h func(from string, data []byte)) error {
	p.mu.Lock()
	p.topics[topic] = h
	p.mu.Unlock()
	return p.request(ctx, "subscribe", "topic", topic)
}

func (p *Page) request(ctx context.Context, method, name, value string) error {
	result := make(chan error, 1)
	p.call(func(dst []byte, id uint64) []byte {
		dst = appendUint(appendUint(appendArray(dst, 4), kindRequest), id)
		dst = appendHead(appendText(dst, method), majorMap, 1)
		return appendText(appendText(dst, name), value)
	}, func(_ []byte, err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Send sends bytes to wait for level handled; done is called once, by the
// reading goroutine.
func (p *Page) Send(to, protocol string, data []byte, done func(error)) {
	p.call(func(dst []byte, id uint64) []byte {
		dst = appendUint(appendUint(appendArray(dst, 7), kindSend), id)
		dst = appendText(appendText(dst, to), protocol)
		return appendUint(appendUint(appendBytes(dst, data), 2), 0)
	}, func(_ []byte, err error) { done(err) })
}

// Publish publishes a text; done is called once, by the reading goroutine.
func (p *Page) Publish(topic, text string, done func(error)) {
	p.call(func(dst []byte, id uint64) []byte {
		dst = appendUint(appendUint(appendArray(dst, 4), kindRequest), id)
		dst = appendHead(appendText(dst, "publish"), majorMap, 2)
		dst = appendText(appendText(dst, "topic"), topic)
		return appendText(appendText(dst, "data"), text)
	}, func(_ []byte, err error) { done(err) })
}

// Close ends the session in order and waits for its goroutines.
func (p *Page) Close() {
	p.push(appendText(appendText(appendUint(appendArray(nil, 3), kindBye), "closed"), "the page closes"))
	select {
	case <-p.flushed():
	case <-p.done:
	}
	_ = p.conn.Goodbye()
	_ = p.conn.conn.SetReadDeadline(time.Now().Add(time.Second)) // for the node's own
	<-p.done
	_ = p.conn.Close()
}

func (p *Page) call(encode func(dst []byte, id uint64) []byte, done func([]byte, error)) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		done(nil, p.err)
		return
	}
	p.nextID++
	p.pending[p.nextID] = done
	before, last := p.room(), p.tail()
	p.out = append(before, encode(last, p.nextID))
	p.leave(len(p.pending) == 1)
}

func (p *Page) push(frame []byte) {
	p.mu.Lock()
	before, last := p.room(), p.tail()
	p.out = append(before, append(last, frame...))
	p.leave(len(p.pending) == 0)
}

// leave lets go of mu and has what waits written: at once where it is all there
// is, and together with what comes next otherwise.
func (p *Page) leave(alone bool) {
	if alone && !p.writing {
		err := p.drain() // an error shows when reading too
		p.mu.Unlock()
		if err == nil {
			return
		}
		p.mu.Lock()
	}
	p.mu.Unlock()
	p.signal()
}

func (p *Page) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Page) fail(err error) {
	if err == nil {
		err = errors.New("session ended")
	}
	p.mu.Lock()
	p.err = err
	pending := p.pending
	p.pending = nil
	p.mu.Unlock()
	for _, done := range pending {
		done(nil, err)
	}
}

const maxBatch = 128 << 10 // bytes that are still added to

// tail is the message that the next frame is added to, room what stands before
// it.
func (p *Page) tail() []byte {
	if n := len(p.out); n > 0 && len(p.out[n-1]) < maxBatch {
		return p.out[n-1]
	}
	if n := len(p.spare); n > 0 {
		b := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return b[:0]
	}
	return nil
}

func (p *Page) room() [][]byte {
	if n := len(p.out); n > 0 && len(p.out[n-1]) < maxBatch {
		return p.out[:n-1]
	}
	return p.out
}

// write sends what waits, as few WebSocket messages as it fits in.
func (p *Page) write(ctx context.Context) {
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		err := p.drain()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// drain writes what waits, unless somebody else does. It is called with mu and
// lets go of it meanwhile.
func (p *Page) drain() error {
	if p.writing {
		return nil
	}
	p.writing = true
	defer func() { p.writing = false }()
	for len(p.out) > 0 {
		batches := p.out
		p.out = p.other[:0]
		p.mu.Unlock()
		var err error
		for _, b := range batches {
			if err == nil {
				err = p.conn.Write(b)
			}
		}
		p.mu.Lock()
		if err != nil {
			return err
		}
		if len(p.spare) < 64 {
			p.spare = append(p.spare, batches...)
		}
		p.other = batches
	}
	return nil
}

// flushed is closed when nothing waits any more.
func (p *Page) flushed() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p.mu.Lock(); len(p.out) > 0 || p.writing; p.mu.Lock() {
			p.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		p.mu.Unlock()
	}()
	return done
}

package conn

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// raw is a peer written by hand: it sends what a test says and keeps what comes.
type raw struct {
	t    *testing.T
	conn net.Conn
	enc  wire.Encoding
	in   chan mux.Message // what came; closed when the connection is
	c    *Conn            // the connection under test
	h    *acceptAll
	done chan error // what Run returned
}

// against starts a connection whose other end is a raw peer, inside a bubble.
// The connection under test is the acceptor unless change says otherwise.
func against(t *testing.T, change func(*Config)) *raw {
	t.Helper()
	a, b := net.Pipe()
	cfg := newConfig(false, Limits{})
	if change != nil {
		change(&cfg)
	}
	r := &raw{t: t, conn: a, enc: cfg.Encoding, in: make(chan mux.Message, 100_000), h: newAcceptAll(), done: make(chan error, 1)}
	r.c = New(b, cfg, r.h)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() { r.done <- r.c.Run(ctx) }()
	go r.read()
	t.Cleanup(func() {
		cancel()
		a.Close()
		synctest.Wait()
		<-r.c.written
	})
	return r
}

func (r *raw) read() {
	defer close(r.in)
	rd := wire.NewReader(r.conn, 4096)
	for {
		if _, err := rd.Size(); err != nil {
			return
		}
		rec, err := rd.Record()
		if err != nil {
			return
		}
		plain, err := mux.Unpacked(r.enc, rec, nil)
		if err != nil {
			r.t.Error(err)
			return
		}
		var m mux.Message
		if err := mux.Decode(slices.Clone(plain), &m); err != nil {
			r.t.Error(err)
			return
		}
		r.in <- m
	}
}

// send writes messages, one by one, and lets everything settle after each: what
// answers them comes in a fixed order.
func (r *raw) send(messages ...mux.Message) {
	r.t.Helper()
	for _, m := range messages {
		r.write(mux.AppendRecord(nil, r.enc, &m))
	}
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	r.conn.Write(b) // may fail: the connection may end meanwhile
	synctest.Wait()
}

// got takes everything that came by now.
func (r *raw) got() (messages []mux.Message, open bool) {
	synctest.Wait()
	for {
		select {
		case m, ok := <-r.in:
			if !ok {
				return messages, false
			}
			messages = append(messages, m)
		default:
			return messages, true
		}
	}
}

// expect compares what came since the last time with kinds of messages.
func (r *raw) expect(what string, want ...mux.Message) {
	r.t.Helper()
	got, open := r.got()
	r.compare(what, got, want)
	if !open {
		r.t.Errorf("%s: the connection ended: %v", what, r.c.Err())
	}
}

// expectEnd is expect for a connection that then ends.
func (r *raw) expectEnd(what string, want ...mux.Message) {
	r.t.Helper()
	got, open := r.got()
	r.compare(what, got, want)
	if open {
		r.t.Errorf("%s: the connection did not end", what)
	}
}

func (r *raw) compare(what string, got, want []mux.Message) {
	r.t.Helper()
	if len(got) != len(want) {
		r.t.Fatalf("%s: got %d messages %+v; want %d", what, len(got), brief(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Kind != w.Kind || g.Channel != w.Channel || g.Code != w.Code || w.Kind == mux.Window && g.Window != w.Window ||
			w.Kind == mux.Content && string(g.Content) != string(w.Content) {
			r.t.Fatalf("%s: message %d is %+v, want %+v", what, i, brief(got[i:i+1]), brief(want[i:i+1]))
		}
	}
}

func brief(ms []mux.Message) (out []mux.Message) {
	for _, m := range ms {
		m.Hello, m.Proof = mux.Parameters{}, nil
		out = append(out, m)
	}
	return out[:min(len(out), 5)]
}

func hello() mux.Message {
	return mux.Message{Kind: mux.Hello, Hello: mux.Parameters{Nonce: make([]byte, 32), Features: 3}}
}

func create(id uint32) mux.Message {
	return mux.Message{Kind: mux.Create, Channel: id, SpaceHash: []byte("space"), To: []byte("bob"), From: []byte("alice")}
}

func content(id uint32, n int) mux.Message {
	return mux.Message{Kind: mux.Content, Channel: id, Content: make([]byte, n)}
}

func window(id, add uint32) mux.Message {
	return mux.Message{Kind: mux.Window, Channel: id, Window: add}
}

func fault(id uint32, code Code) mux.Message {
	return mux.Message{Kind: mux.Error, Channel: id, Code: code.wire()}
}

func closing(id uint32) mux.Message { return mux.Message{Kind: mux.Close, Channel: id} }

// connected has exchanged hellos.
func connected(t *testing.T, change func(*Config)) *raw {
	t.Helper()
	r := against(t, change)
	r.expect("hello", hello())
	r.send(hello())
	return r
}

// accepted has one channel open, which the raw peer created.
func accepted(t *testing.T, change func(*Config)) (*raw, *Stream) {
	t.Helper()
	r := connected(t, change)
	r.send(create(1))
	r.expect("accept", window(1, 0))
	return r, <-r.h.accepted
}

package transport

import (
	"context"
	"encoding/json"
	"net/url"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// session is one connection to a star.
type session struct {
	// Static after construction.
	star   *star
	client *socketio.Client
	sock   *socketio.Socket
	ext    bool // the star speaks the extensions (star.md §8)
	window int  // first credit of a stream, with extensions
	chunk  int  // the most bytes of one chunk
	policy policy
	ctx    context.Context // of its own, so that an old one outlives the next
	cancel context.CancelFunc

	done    chan struct{} // closed when it has ended
	moved   chan struct{} // closed when it is not to be used any more
	emptied chan struct{} // capacity 1: the last connection has gone

	mu       sync.Mutex
	dialled  map[string]*Conn
	accepted map[string]*Conn
	lastEnd  time.Time // when a connection last went
	ended    error
	movedFor error // why it moved; nil: it did not
	retired  bool  // it ends with its last connection
}

// policy is what a star says of its limits of a dial.
type policy struct {
	Bytes   int64 `json:"bytes"`   // each way
	Seconds int64 `json:"seconds"` // of life
	Rate    int64 `json:"rate"`    // bytes a second
}

// hello is what a parley star says in its open packet.
type hello struct {
	Version int    `json:"v"`
	Window  int    `json:"window"`
	Policy  policy `json:"policy"`
}

// What a star may set the window to; others are no parley star.
const (
	minWindow = 16 << 10
	maxWindow = 16 << 20
	fullChunk = 64 << 10 // what this side puts into one chunk
)

// maxPacket is how much a star may send at once: a list of some ten thousand
// members.
const maxPacket = 4 << 20

// openSession connects, without joining.
func openSession(ctx context.Context, s *star) (*session, error) {
	query := url.Values{"parley": {"1"}}
	if since := s.book.version(); since != "" {
		query.Set("since", since)
	}
	sess := &session{star: s, chunk: fullChunk, done: make(chan struct{}), moved: make(chan struct{}), emptied: make(chan struct{}, 1),
		dialled: make(map[string]*Conn), accepted: make(map[string]*Conn)}
	client, err := socketio.Dial(ctx, s.at.URL(), socketio.DialOptions{Handler: sess, Query: query, HTTP: s.http,
		Memory: s.t.mem, Limits: socketio.Limits{Message: maxPacket, LongEvents: eventPeers}, Linger: time.Second})
	if err != nil {
		return nil, err
	}
	sess.client, sess.sock = client, client.Socket()
	sess.read(client.Extension())
	sess.ctx, sess.cancel = context.WithCancel(s.t.ctx)
	return sess, nil
}

// read takes what a parley star says of itself; everything else is none.
func (s *session) read(extension json.RawMessage) {
	var h hello
	if len(extension) == 0 || len(extension) > 4<<10 || json.Unmarshal(extension, &h) != nil ||
		h.Version != 1 || h.Window < minWindow || h.Window > maxWindow {
		return
	}
	s.ext, s.window = true, h.Window
	s.chunk = min(fullChunk, h.Window/4)
	s.policy = h.Policy
}

// run drives the connection until it ends. The transport waits for it.
func (s *session) run() {
	err := s.client.Run(s.ctx)
	s.cancel()
	if err == nil {
		err = errConnClosed
	}
	s.mu.Lock()
	s.ended = err
	s.mu.Unlock()
	close(s.done)
}

// why is the reason of the end, or of the move.
func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.movedFor != nil:
		return s.movedFor
	case s.ended != nil:
		return identity.Errorf(identity.CodeClosed, "the connection to the star was lost: %w", s.ended)
	}
	return errConnClosed
}

// Disconnected ends all connections: the star is gone.
func (s *session) Disconnected(_ *socketio.Socket, reason error) {
	s.mu.Lock()
	if s.ended == nil {
		s.ended = reason
	}
	all := s.all()
	s.mu.Unlock()
	for _, c := range all {
		c.fail(ErrServerLost, "")
	}
}

// all lists the connections. The caller holds mu.
func (s *session) all() []*Conn {
	all := make([]*Conn, 0, len(s.dialled)+len(s.accepted))
	for _, c := range s.dialled {
		all = append(all, c)
	}
	for _, c := range s.accepted {
		all = append(all, c)
	}
	return all
}

// count says how many connections there are, and when one last ended.
func (s *session) count() (n int, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dialled) + len(s.accepted), s.lastEnd
}

// move says that the session is not to be used for anything new.
func (s *session) move(err error) {
	s.mu.Lock()
	first := s.movedFor == nil
	if first {
		s.movedFor = err
	}
	s.mu.Unlock()
	if first {
		close(s.moved)
	}
}

// retire makes the session end with its last connection.
func (s *session) retire() {
	s.mu.Lock()
	s.retired = true
	empty := len(s.dialled)+len(s.accepted) == 0
	s.mu.Unlock()
	if empty {
		s.cancel()
	}
}

// leave gives the address up and ends the session.
func (s *session) leave() {
	s.emit(flow.Control, eventLeave, s.star.own)
	s.cancel()
}

// forget takes a connection out of the table.
func (s *session) forget(c *Conn) {
	s.mu.Lock()
	table := s.accepted
	if c.dialled {
		table = s.dialled
	}
	if table[c.id] == c {
		delete(table, c.id)
	}
	s.lastEnd = time.Now()
	empty := len(s.dialled)+len(s.accepted) == 0
	end := empty && s.retired
	s.mu.Unlock()
	if empty {
		signal(s.emptied)
		signal(s.star.look)
	}
	if end {
		s.cancel()
	}
}

// enter puts a connection into its table.
func (s *session) enter(c *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.accepted
	if c.dialled {
		table = s.dialled
	}
	switch {
	case s.ended != nil:
		return ErrServerLost
	case s.movedFor != nil:
		return s.movedFor
	case table[c.id] != nil:
		return ErrDialIDInUse
	case len(table) >= s.star.t.opts.Limits.Dials:
		return ErrTooManyDials
	}
	table[c.id] = c
	return nil
}

// find gives the connection that a stream is of. A stream's kind says who writes
// it: reads means that this side is its reader.
func (s *session) find(id string, kind proxy.Kind, reads bool) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (kind == proxy.Dialer) == reads {
		return s.accepted[id]
	}
	return s.dialled[id]
}

// emit sends an event of strings.
func (s *session) emit(class flow.Class, name string, args ...string) {
	var b wire.Builder
	b.Event(nil, wire.NoAck, name)
	for _, a := range args {
		b.Str(a)
	}
	_ = s.sock.Send(class, socketio.Msg{Text: b.Done()}) // an ended socket is noticed elsewhere
}

// ask sends an event of strings and waits for its answer, whose arguments are
// copied.
func (s *session) ask(ctx context.Context, name string, args ...string) ([][]byte, error) {
	type answer struct {
		args [][]byte
		err  error
	}
	came := make(chan answer, 1)
	began := time.Now()
	id := s.sock.Expect(func(a socketio.Answer) {
		got := answer{err: a.Err}
		for _, arg := range a.Args {
			got.args = append(got.args, append([]byte(nil), arg...))
		}
		came <- got
	})
	var b wire.Builder
	b.Event(nil, id, name)
	for _, a := range args {
		b.Str(a)
	}
	if err := s.sock.Send(flow.Control, socketio.Msg{Text: b.Done()}); err != nil {
		s.sock.Forget(id)
		return nil, ErrServerLost
	}
	select {
	case a := <-came:
		if a.err != nil {
			return nil, ErrServerLost
		}
		s.star.rtt.Store(int64(time.Since(began)))
		return a.args, nil
	case <-ctx.Done():
		s.sock.Forget(id)
		return nil, context.Cause(ctx)
	case <-s.done:
		s.sock.Forget(id)
		return nil, ErrServerLost
	}
}

// dial asks for a peer.
func (s *session) dial(ctx context.Context, to peer.ID) (*Conn, error) {
	c := newConn(s, newDialID(), true, to)
	if err := s.enter(c); err != nil {
		return nil, err
	}
	args, err := s.ask(ctx, eventDial, s.star.own, s.star.at.With(to.String()).String(), c.id)
	if err == nil && len(args) > 0 && wire.Truthy(args[0]) {
		err = refusal(args[0])
	}
	if err != nil {
		c.fail(err, "dial given up")
		return nil, asError(err)
	}
	s.event(c, proxy.Accept, proxy.Listener)
	return c, nil
}

// asError makes an error of ours of those of contexts.
func asError(err error) error {
	switch {
	case identity.CodeOf(err) != identity.CodeInternal:
		return err
	case err == context.DeadlineExceeded:
		return ErrDialTimedOut
	}
	return identity.Errorf(identity.CodeCancelled, "dial over a star: %w", err)
}

func (s *session) event(c *Conn, verb string, kind proxy.Kind) { c.event(flow.Control, verb, kind, "") }

// Binary takes the chunks.
func (s *session) Binary(_ *socketio.Socket, text, data []byte, buf **ws.Buf) bool {
	id, kind, ok := proxy.Route(text)
	if !ok {
		return false
	}
	if c := s.find(string(id), kind, true); c != nil {
		c.in.push(data[1:], buf)
	}
	return true
}

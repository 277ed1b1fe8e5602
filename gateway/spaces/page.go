package spaces

import (
	"context"
	"strconv"
	"sync"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
)

// Out takes what goes to the page. It is called by any goroutine, and never
// with a lock held.
type Out interface {
	// Content puts a content into the page's queue and waits for room. It owns it.
	Content(ctx context.Context, channel uint64, content []byte) error
	// Credit, Incoming and End never block.
	Credit(channel, n uint64)
	Incoming(channel uint64, space string, window int64, info Info)
	End(channel uint64, e End)
	// Channels is told of a channel that there is (1) or no longer is (-1).
	Channels(delta int)
}

// End says how a channel ended.
type End struct {
	Code identity.Code // "" for a close in order
	Text string
	More bool // contents are still to come, and the last End behind them
}

// Page is one page's part in spaces. Its methods may be called by any goroutine;
// those that a reader of frames calls never block: Begin, Leave, Listen, Unlisten,
// Content, Credit, End and Info. Close it.
type Page struct {
	// static after New
	join   func(ctx context.Context, name string) (Room, error)
	out    Out
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	incoming *flow.Window // how many channels of others more there may be

	mu       sync.Mutex // guards all below, and what lines and listenings say it does
	closed   bool
	rooms    map[string]*membership
	listened int
	opened   int
	lines    map[uint64]*line
	windows  int64  // sum of what lines have
	last     uint64 // id of the last channel that came in
}

// membership is a space that the page has joined; room is nil until it has.
type membership struct {
	room      Room
	listening map[string]*listening // by protocol
}

// New makes the part of a page that joins spaces by join.
func New(join func(ctx context.Context, name string) (Room, error), out Out) *Page {
	p := &Page{join: join, out: out, incoming: flow.NewWindow(maxIncoming),
		rooms: make(map[string]*membership), lines: make(map[uint64]*line)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

var errClosed = &identity.Error{Code: identity.CodeClosed, Text: "peer closed"}

// Join joins a space. Errors: CodeAlreadyStarted, CodeLimit, the node's, the
// context's.
func (p *Page) Join(ctx context.Context, name string) error {
	m := &membership{listening: make(map[string]*listening)}
	p.mu.Lock()
	err := p.mayJoin(name)
	if err == nil {
		p.rooms[name] = m
		p.work.Add(1)
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	defer p.work.Done()
	room, err := p.join(ctx, name)
	p.mu.Lock()
	closed := p.closed
	switch {
	case err != nil:
		delete(p.rooms, name)
	case !closed:
		m.room = room
	}
	p.mu.Unlock()
	if err == nil && closed {
		room.Leave()
		return errClosed
	}
	return err
}

// mayJoin is called with mu.
func (p *Page) mayJoin(name string) error {
	switch {
	case p.closed:
		return errClosed
	case p.rooms[name] != nil:
		return identity.Errorf(identity.CodeAlreadyStarted, "this page has joined the space already: %s", name)
	case len(p.rooms) >= maxSpaces:
		return tooMany("spaces", maxSpaces)
	}
	return nil
}

func tooMany(what string, limit int) error {
	return &identity.Error{Code: identity.CodeLimit, Text: "too many " + what + ", limit " + strconv.Itoa(limit) + " a page"}
}

// joined gives the membership of a space. Called with mu. Error: CodeNotJoined.
func (p *Page) joined(name string) (*membership, error) {
	if m := p.rooms[name]; m != nil && m.room != nil && !p.closed {
		return m, nil
	}
	return nil, identity.Errorf(identity.CodeNotJoined, "this page has not joined the space: %s", name)
}

// Leave leaves a space: its channels end in order. Error: CodeNotJoined.
func (p *Page) Leave(name string) error {
	p.mu.Lock()
	m, err := p.joined(name)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	delete(p.rooms, name)
	p.listened -= len(m.listening)
	var there []*line
	for _, l := range p.lines {
		if l.space == name {
			there = append(there, l)
		}
	}
	p.mu.Unlock()
	for _, l := range there {
		l.close()
	}
	m.leave()
	return nil
}

// leave ends the listening of a membership that the page has no longer, and the
// room.
func (m *membership) leave() {
	for _, l := range m.listening {
		l.cancel()
		l.listener.Close()
	}
	if m.room != nil {
		m.room.Leave()
	}
}

// Close leaves everything. Channels that are open end with an error at the other
// end. It waits until nothing of the page runs any more; what Out waits for must
// have been closed before.
func (p *Page) Close() {
	p.mu.Lock()
	p.closed = true
	rooms := p.rooms
	p.rooms = nil
	lines := make([]*line, 0, len(p.lines))
	for _, l := range p.lines {
		lines = append(lines, l)
	}
	p.mu.Unlock()
	for _, l := range lines {
		l.abandon()
	}
	p.cancel()
	for _, m := range rooms {
		m.leave()
	}
	p.work.Wait()
}

// Count is the number of channels now, those that are being opened included.
func (p *Page) Count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

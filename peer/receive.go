package peer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// What happens to a stream that a remote opened, in order:
//
//	1. serveOwn  may the remote open one now?
//	2. greet     its hello; the older stream of the same outbox ends first
//	3. read      message by message to the members; this is one goroutine
//	4. acks.go   what was taken and settled goes back; this is the other

// inStream is a stream of our own framing that a remote opened.
type inStream struct {
	// Static.
	peer   *Peer
	key    currentKey
	stream network.Stream
	ctx    context.Context // ends with the stream
	cancel context.CancelFunc
	kick   chan struct{} // capacity 1: there is something to write
	read   chan struct{} // closed when nothing more will be taken

	// Guarded by the peer's mu.
	in          *inbox // nil before the hello
	memory      time.Duration
	welcomed    bool // the welcome has been written
	more        bool // more of what the remote wrote is here already
	flush       bool // tell now
	news        int  // messages that reached a level since it was told
	newsBytes   int
	toldTaken   uint64
	toldFinal   uint64
	toldAnswers int
	window      int
	toldWindow  int
	throughput  int       // bytes settled since the window was last turned over
	turned      time.Time // when that was
	told        time.Time
	timer       *time.Timer
	armed       bool
	dueAt       time.Time
	ending      bool
	reason      byeReason
	text        string
	finished    bool   // nothing more is written after this
	broken      bool   // it ends by a reset
	held        bool   // who holds mu tells it himself
	writing     bool   // somebody writes: the writer, or who settled (now.go)
	buf         []byte // of the latter
	left        []byte // what is left of it
	failed      error  // why he couldn't write
}

// helloWithin is how long an opener may take to say hello.
const helloWithin = 10 * time.Second

// serveOwn serves a stream that a remote opened for protocol.
func (p *Peer) serveOwn(ctx context.Context, s network.Stream, protocol network.Protocol) {
	remote := s.Remote()
	if !p.admit(remote) {
		p.node.count.refusedStreams.Add(1)
		_ = s.Reset()
		return
	}
	defer p.dismiss(remote)
	p.node.reached(remote)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := &inStream{peer: p, key: currentKey{remote, protocol}, stream: s, ctx: ctx, cancel: cancel,
		kick: make(chan struct{}, 1), read: make(chan struct{}), window: p.cfg.Window, turned: time.Now()}
	stop := context.AfterFunc(p.ctx, func() {
		cancel()
		_ = s.SetReadDeadline(longAgo)
	})
	defer stop()

	r := newFrameReader(s, max(p.cfg.MaxMessage, firstWindow))
	err := st.greet(r)
	if err != nil {
		close(st.read)
		st.detach()
		st.blame(err)
		_ = s.Reset()
		return
	}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		st.write()
	}()
	err = st.receive(r)
	close(st.read)
	st.blame(err)
	st.detach()
	st.wind(err)
	<-wrote
}

// admit counts a stream in, unless the remote has too many, opens them too fast
// or is refused.
func (p *Peer) admit(remote identity.PeerID) bool {
	if !p.node.guard.admit(remote, time.Now()) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.streams >= p.cfg.MaxStreams || p.remoteStreams[remote] >= p.cfg.MaxRemoteStreams {
		return false
	}
	p.wg.Add(1)
	p.streams++
	p.remoteStreams[remote]++
	return true
}

func (p *Peer) dismiss(remote identity.PeerID) {
	p.mu.Lock()
	p.streams--
	if p.remoteStreams[remote]--; p.remoteStreams[remote] == 0 {
		delete(p.remoteStreams, remote)
	}
	p.mu.Unlock()
	p.wg.Done()
}

// greet reads the hello and takes the outbox over from an older stream.
func (st *inStream) greet(r *frameReader) error {
	p := st.peer
	_ = st.stream.SetReadDeadline(time.Now().Add(helloWithin))
	var f frame
	if err := r.next(&f); err != nil {
		return err
	}
	_ = st.stream.SetReadDeadline(time.Time{})
	if f.kind != kindHello || f.seq == 0 || f.seq > 1<<62 || f.settled >= f.seq {
		return badFrame("no hello")
	}

	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errPeerClosed
	}
	key := inboxKey{st.key, f.epoch}
	if in := p.inboxes[key]; in != nil && in.taken >= f.seq {
		p.mu.Unlock()
		return errStale // a stream of long ago, come late
	}
	older := p.current[st.key]
	p.current[st.key] = st
	if older != nil {
		older.end(byeReplaced, "")
	}
	p.mu.Unlock()
	if older != nil {
		select {
		case <-older.read:
		case <-st.ctx.Done():
			return st.ctx.Err()
		}
	}
	return st.attach(key, &f)
}

var (
	errStale   = errors.New("stream is older than one that was served")
	errNoRoom  = errors.New("no room for another epoch")
	errEnding  = errors.New("stream ends")
	errStopped = errors.New("nobody listens to the protocol")
)

// attach joins the stream to the inbox of its epoch and prepares the welcome.
func (st *inStream) attach(key inboxKey, hello *frame) error {
	p := st.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if st.ending {
		return errEnding
	}
	if hello.version < 1 || hello.version > protocolVersion {
		st.end(byeUnsupported, "this peer speaks version 1")
		return nil
	}
	st.memory = p.remembers(time.Now())
	in := p.findInbox(key, hello.seq)
	if in == nil {
		p.node.count.refusedStreams.Add(1)
		return errNoRoom
	}
	in.stream = st
	st.in = in
	st.toldTaken = in.taken
	st.toldFinal = hello.settled
	in.confirm(hello.settled)
	st.flush = true
	st.signal()
	return nil
}

// receive takes messages until the stream ends. A nil error means that the
// opener ended it.
func (st *inStream) receive(r *frameReader) error {
	p := st.peer
	route := &route{peer: p, protocol: st.key.protocol, ctx: st.ctx}
	defer route.close()
	if st.in == nil {
		return errEnding
	}
	var f frame
	for {
		if err := r.next(&f); err != nil {
			return err
		}
		switch f.kind {
		case kindData:
			if err := st.take(route, &f, r.more()); err != nil {
				return err
			}
		case kindSettled:
			p.mu.Lock()
			if f.seq > st.in.final {
				p.mu.Unlock()
				return badFrame("settled what was not")
			}
			st.toldAnswers -= st.in.confirm(f.seq)
			p.mu.Unlock()
		case kindBye:
			p.mu.Lock()
			if f.reason == byeDone && st.in.pending.len() == 0 {
				delete(p.inboxes, st.in.key)
			}
			p.mu.Unlock()
			return nil
		case kindHello, kindWelcome, kindAck, kindRefuse, kindWindow, kindReply:
			return badFrame("not for a handler")
		}
	}
}

// take offers one message to the members.
func (st *inStream) take(r *route, f *frame, more bool) error {
	p, in := st.peer, st.in
	d := &delivery{peer: p, from: st.key.remote, protocol: st.key.protocol, content: f.content,
		flags: f.flags, cost: len(f.content.Data) + messageCost, in: in, seq: f.seq}
	p.mu.Lock()
	st.more = more
	tooLarge := len(f.content.Data) > p.cfg.MaxMessage
	err := st.check(d)
	if err == nil && !tooLarge && !r.share(d) {
		err = errStopped
	}
	if err == nil {
		in.pending.push(d)
		in.unsettled += d.cost
	}
	if err == nil && tooLarge {
		d.settled, d.verdict = true, refusedBy(errTooLarge(len(f.content.Data), p.cfg.MaxMessage))
		in.taken = d.seq
		in.deliverySettled(d)
	}
	p.mu.Unlock()
	if errors.Is(err, errDuplicate) {
		p.node.count.duplicates.Add(1)
		return nil
	}
	if err != nil || tooLarge {
		return err
	}
	if err = r.offer(d); err == nil {
		return nil
	}
	return st.declined(d, err)
}

var errDuplicate = errors.New("taken before")

// check says whether d is the next message and fits. The caller holds mu.
func (st *inStream) check(d *delivery) error {
	in := st.in
	switch {
	case st.ending:
		return errEnding
	case d.seq <= in.taken:
		return errDuplicate
	case d.seq != in.taken+1:
		return badFrame("numbers have a gap")
	case in.pending.len() > 0 && in.unsettled+d.cost > max(st.window, firstWindow):
		return badFrame("more than the window")
	case in.kept > 2*in.peer.cfg.Outbox:
		return badFrame("answers are not read")
	}
	return nil
}

// declined handles a message that no session took: for good, or for now.
func (st *inStream) declined(d *delivery, err error) error {
	p, in := st.peer, st.in
	p.mu.Lock()
	defer p.mu.Unlock()
	if notTaken(err) {
		in.pending.popBack()
		in.unsettled -= d.cost
		return errStopped
	}
	d.settled, d.verdict = true, refusedBy(err)
	in.taken = d.seq
	in.deliverySettled(d)
	return nil
}

// blame counts what was the remote's fault.
func (st *inStream) blame(err error) {
	if errors.Is(err, errBadFrame) {
		st.peer.node.offence(st.key.remote)
	}
}

// detach ends the stream's part in the tables.
func (st *inStream) detach() {
	p := st.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current[st.key] == st {
		delete(p.current, st.key)
	}
	if st.in != nil {
		st.in.touched = time.Now()
	}
}

// wind lets the writer say its last words and end.
func (st *inStream) wind(err error) {
	p := st.peer
	p.mu.Lock()
	switch {
	case st.ending: // the reason given first holds
	case err == nil, errors.Is(err, io.EOF):
		st.end(byeLater, "")
	case errors.Is(err, errStopped):
		st.end(byeNotStarted, "")
	default:
		st.finished, st.broken = true, true
	}
	broken := st.broken
	p.mu.Unlock()
	if broken {
		_ = st.stream.Reset() // also ends a Write that runs
	}
	st.signal()
}

// end makes the stream end in order: nothing more is taken, and the writer says
// why. The first reason holds. The caller holds mu.
func (st *inStream) end(reason byeReason, text string) {
	if st.ending {
		return
	}
	st.ending, st.reason, st.text = true, reason, text
	st.cancel()
	_ = st.stream.SetReadDeadline(longAgo)
	_ = st.stream.SetWriteDeadline(time.Now().Add(farewell)) // the other side may not be reading
	st.signal()
}

// longAgo as a deadline ends a Read that runs.
var longAgo = time.Unix(1, 0)

// endStreams ends those of a protocol that nobody listens to any more. The
// caller holds mu.
func (p *Peer) endStreams(protocol network.Protocol) {
	for key, st := range p.current {
		if key.protocol == protocol {
			st.end(byeNotStarted, "")
		}
	}
}

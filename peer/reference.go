package peer

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/network"
)

// The reference's framing (gateway.md §5.2, §5.3). A stream is used both ways,
// whoever opened it; of several the newest is written to, and all are read to
// their end. What was written and isn't acknowledged goes again when its stream
// is lost: at least once.

// refStream is one stream of the reference's framing. Two goroutines serve it:
// read, and write, which is the only one that writes.
type refStream struct {
	// Static.
	peer   *Peer
	key    currentKey
	lane   *refLane
	stream network.Stream
	ctx    context.Context // ends with the stream
	cancel context.CancelFunc
	out    *flow.Queue[[]byte]

	// Guarded by the peer's mu.
	traffic time.Time
}

// refLane is what the streams of one remote and protocol share.
type refLane struct {
	streams []*refStream  // oldest first
	turn    chan struct{} // capacity 1: held while a message is offered, so that order and duplicates hold over streams
	credit  *flow.Window  // bytes that sessions may have unsettled
}

const (
	refInFlight = 32        // messages without an ack
	refQueue    = 256 << 10 // bytes that wait for a stream's writer
)

// serveReference serves a stream that a remote opened with the plain protocol id.
func (p *Peer) serveReference(ctx context.Context, s network.Stream, protocol network.Protocol) {
	remote := s.Remote()
	if !p.admit(remote) {
		p.node.count.refusedStreams.Add(1)
		_ = s.Reset()
		return
	}
	defer p.dismiss(remote)
	st := p.addReference(ctx, s, currentKey{remote, protocol})
	p.node.reached(remote)
	st.run()
}

// addReference takes a stream into its lane.
func (p *Peer) addReference(ctx context.Context, s network.Stream, key currentKey) *refStream {
	ctx, cancel := context.WithCancel(ctx)
	st := &refStream{peer: p, key: key, stream: s, ctx: ctx, cancel: cancel,
		out: flow.NewQueue[[]byte](refQueue), traffic: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	lane := p.references[key]
	if lane == nil {
		lane = &refLane{turn: make(chan struct{}, 1), credit: flow.NewWindow(int64(p.cfg.MaxWindow))}
		p.references[key] = lane
	}
	st.lane = lane
	lane.streams = append(lane.streams, st)
	return st
}

// run serves the stream until it ends, and then takes it out of its lane.
func (st *refStream) run() {
	p := st.peer
	stop := context.AfterFunc(p.ctx, func() { st.lose() })
	defer stop()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		st.write()
	}()
	err := st.read()
	switch {
	case errors.Is(err, errBadFrame):
		p.node.offence(st.key.remote)
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded): // in order: what is queued still goes
		_ = st.stream.SetWriteDeadline(time.Now().Add(farewell))
		st.out.Close(errStreamLost)
		<-wrote
		_ = st.stream.Close()
	}
	st.lose()
	<-wrote
	p.dropReference(st)
}

// lose ends the stream. It may be called more than once.
func (st *refStream) lose() {
	st.cancel()
	st.out.Close(errStreamLost)
	_ = st.stream.Reset()
}

// dropReference takes a stream that ended out, and lets what it had on the way
// go again.
func (p *Peer) dropReference(st *refStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lane := p.references[st.key]
	kept := lane.streams[:0]
	for _, other := range lane.streams {
		if other != st {
			kept = append(kept, other)
		}
	}
	clear(lane.streams[len(kept):])
	lane.streams = kept
	if len(kept) == 0 {
		delete(p.references, st.key)
	}
	c := p.conversations[conversationKey{st.key.remote, st.key.protocol}]
	if c != nil && c.ref == st {
		c.ref = nil
		c.returnReference()
		c.signal()
	}
}

// hasReference reports whether a stream of the reference's framing is there for
// c to write to.
func (p *Peer) hasReference(key currentKey, c *conversation) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.ref != nil || p.newestReference(key) != nil
}

// newestReference is the stream to write to, nil when none is open. The caller
// holds mu.
func (p *Peer) newestReference(key currentKey) *refStream {
	lane := p.references[key]
	if lane == nil {
		return nil
	}
	for i := len(lane.streams) - 1; i >= 0; i-- {
		if st := lane.streams[i]; st.ctx.Err() == nil {
			return st
		}
	}
	return nil
}

// write writes what is queued, as much in one write as there is.
func (st *refStream) write() {
	var batch [][]byte
	var buf []byte
	for {
		var err error
		batch, err = st.out.Pop(st.ctx, batchBytes, batch[:0])
		if err != nil {
			return
		}
		buf = buf[:0]
		for _, frame := range batch {
			buf = append(buf, frame...)
		}
		clear(batch)
		if _, err := st.stream.Write(buf); err != nil {
			st.lose()
			return
		}
		st.touch()
		if cap(buf) > 4*batchBytes {
			buf = nil
		}
	}
}

func (st *refStream) touch() {
	st.peer.mu.Lock()
	defer st.peer.mu.Unlock()
	st.traffic = time.Now()
}

// read takes frames until the stream ends or has been idle for long.
func (st *refStream) read() error {
	p := st.peer
	r := &route{peer: p, protocol: st.key.protocol, ctx: st.ctx}
	defer r.close()
	br := newRefReader(st.stream, refLimit(p.cfg.MaxMessage))
	turn := false
	defer func() {
		if turn {
			<-st.lane.turn
		}
	}()
	for {
		if turn && !br.here() { // what an older stream has brought goes before a newer one's
			<-st.lane.turn
			turn = false
		}
		if err := st.await(br); err != nil {
			return err
		}
		f, err := br.read()
		if err != nil {
			return err
		}
		st.touch()
		if f.Type == refAck {
			p.referenceAcked(st.key, f.ID)
			continue
		}
		if !turn {
			select {
			case st.lane.turn <- struct{}{}:
				turn = true
			case <-st.ctx.Done():
				return st.ctx.Err()
			}
		}
		if err := st.take(r, &f); err != nil {
			return err
		}
	}
}

// await waits for the next frame's first byte, and no longer than the stream may
// be idle.
func (st *refStream) await(br *refReader) error {
	for {
		st.peer.mu.Lock()
		limit := st.traffic.Add(st.peer.cfg.IdleStream)
		st.peer.mu.Unlock()
		if !time.Now().Before(limit) {
			return os.ErrDeadlineExceeded
		}
		_ = st.stream.SetReadDeadline(limit)
		err := br.await()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			_ = st.stream.SetReadDeadline(time.Now().Add(st.peer.cfg.IdleStream)) // for the rest of it
			return err
		}
	}
}

// take offers one message, unless it was taken before, and acknowledges it. The
// caller has the lane's turn.
func (st *refStream) take(r *route, f *refFrame) error {
	p := st.peer
	p.mu.Lock()
	again := p.seen.has(st.key.remote, f.ID, time.Now())
	p.mu.Unlock()
	if again {
		p.node.count.duplicates.Add(1)
		return st.ack(f.ID)
	}
	d := &delivery{peer: p, from: st.key.remote, protocol: st.key.protocol,
		content: network.FromJSON(f.Data), lane: st.lane}
	d.cost = min(len(f.Data)+messageCost, p.cfg.MaxWindow)
	if err := st.lane.credit.Take(st.ctx, int64(d.cost)); err != nil {
		return err
	}
	p.mu.Lock()
	listened := !p.closed && r.share(d)
	p.mu.Unlock()
	var err error = errStopped
	if listened {
		err = r.offer(d)
	}
	if err != nil {
		st.lane.credit.Give(int64(d.cost), int64(p.cfg.MaxWindow))
		if notTaken(err) || errors.Is(err, errStopped) {
			return err
		}
		p.node.count.refused.Add(1) // this framing has no way to say so
		return nil
	}
	p.mu.Lock()
	p.seen.add(st.key.remote, f.ID, time.Now())
	p.armSweeper()
	p.mu.Unlock()
	return st.ack(f.ID)
}

func (st *refStream) ack(id string) error {
	frame := appendRefAck(nil, id)
	return st.out.Push(st.ctx, flow.Control, frame, len(frame))
}

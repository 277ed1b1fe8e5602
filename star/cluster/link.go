package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// The way of a piece between two servers:
//
//	1. the dial gives it to its link, within the credit of the other server
//	2. it waits in the cluster's queue; one writer numbers and publishes it, and
//	   then its buffer is free again
//	3. one reader of the other server takes it from the subscription, checks that
//	   nothing is missing, and gives it to the dial there
//
// What is lost last is noticed by the checks: every 2 s a server tells the others
// how much it sent for each dial.

// linkKey names a dial between two servers, as one of them sees it.
type linkKey struct {
	peer   string
	number uint64
	mine   bool // this server has the dialer, and gave the number
}

// link is the wire of one dial.
type link struct {
	// Static after construction.
	c      *Cluster
	key    linkKey
	target star.Target
	far    *proxy.Far // set by Open, before it is in the table

	sent uint64 // owned by the writer
	got  uint64 // owned by the reader
}

// outgoing is a message that waits for the writer.
type outgoing struct {
	link *link // nil for those of no dial
	to   string
	m    message
	data socketio.Msg
}

// queueSize is what a message without data weighs in the queue.
const queueSize = 128

// Wire leads to the server of a member, for one dial.
func (c *Cluster) Wire(t star.Target) proxy.Wire {
	return &link{c: c, key: linkKey{peer: t.Server, number: c.dials.Add(1), mine: true}, target: t}
}

// The link as a proxy.Wire.

// Open puts the link into the table.
func (l *link) Open(f *proxy.Far) {
	l.far = f
	l.c.linkMu.Lock()
	l.c.links[l.key] = l
	l.c.linkMu.Unlock()
}

// Close takes it out.
func (l *link) Close() {
	l.c.linkMu.Lock()
	delete(l.c.links, l.key)
	l.c.linkMu.Unlock()
}

func (l *link) send(class flow.Class, m message, data socketio.Msg) {
	m.dialer, m.dial = l.key.mine, l.key.number
	if l.c.out.PushAlways(class, outgoing{link: l, to: l.key.peer, m: m, data: data}, queueSize+data.Size()) != nil {
		settle(data, false)
	}
}

// Ask asks for a dial.
func (l *link) Ask(r proxy.Request, credit int64) {
	l.send(flow.Bulk, message{kind: kindAsk, epoch: l.target.Epoch, dialerEpoch: l.target.FromEpoch, credit: credit,
		to: r.To, dialerAt: r.From, id: r.ID}, socketio.Msg{})
}

// Answer answers one.
func (l *link) Answer(reason string, credit int64) {
	l.send(flow.Bulk, message{kind: kindAnswer, text: reason, credit: max(0, min(credit, proxy.Window))}, socketio.Msg{})
}

// Data sends a piece.
func (l *link) Data(k proxy.Kind, m socketio.Msg) {
	l.send(flow.Bulk, message{kind: kindData, stream: k, data: m.Bin[1:]}, m)
}

// End ends a stream.
func (l *link) End(k proxy.Kind, end string) {
	l.send(flow.Bulk, message{kind: kindEnd, stream: k, text: end}, socketio.Msg{})
}

// Credit gives credit.
func (l *link) Credit(k proxy.Kind, n int64) {
	l.send(flow.Control, message{kind: kindCredit, stream: k, credit: n}, socketio.Msg{})
}

// Stop stops a stream's writer.
func (l *link) Stop(k proxy.Kind, reason string) {
	l.send(flow.Bulk, message{kind: kindStop, stream: k, text: reason}, socketio.Msg{})
}

// Reset ends the dial.
func (l *link) Reset(r proxy.Reason) {
	l.send(flow.Bulk, message{kind: kindReset, text: r.Text, vanished: r.Vanish}, socketio.Msg{})
}

// settle frees a piece and tells its receipt.
func settle(m socketio.Msg, left bool) {
	size := m.Size()
	for _, b := range m.Bufs {
		b.Free()
	}
	if m.Receipt != nil {
		m.Receipt.Sent(size, m.Note, left)
	}
}

// write publishes what waits until the queue is closed and empty.
func (c *Cluster) write(ctx context.Context) error {
	ticker := time.NewTicker(c.opts.Times.Check)
	defer ticker.Stop()
	var batch []outgoing
	var scratch []byte
	for {
		var err error
		batch, err = c.out.TryPop(1<<20, batch[:0])
		for i := range batch {
			scratch = c.publish(&batch[i], scratch)
		}
		clear(batch)
		switch {
		case len(batch) > 0:
			continue
		case err != nil:
			_ = c.nc.FlushTimeout(time.Second) // the last words
			return nil
		}
		select {
		case <-c.out.Ready():
		case <-ticker.C:
			c.check()
		case <-ctx.Done():
			return nil
		}
	}
}

// publish sends one message; a dial whose message can't be sent is over.
func (c *Cluster) publish(o *outgoing, scratch []byte) []byte {
	o.m.from = c.name
	if o.link != nil && o.m.kind != kindAsk {
		o.link.sent++
		o.m.number = o.link.sent
	}
	scratch = o.m.appendTo(scratch[:0])
	err := c.nc.Publish(c.opts.subject(o.to), scratch)
	c.bytes.Add(int64(len(o.m.data)))
	settle(o.data, err == nil)
	if err != nil && o.link != nil && o.link.far != nil {
		o.link.far.Lost()
	}
	return scratch
}

// check tells every server how much was sent for each dial with it.
func (c *Cluster) check() {
	c.linkMu.Lock()
	links := make([]*link, 0, len(c.links))
	for _, l := range c.links {
		links = append(links, l)
	}
	c.linkMu.Unlock()
	marks := map[string][]mark{}
	for _, l := range links {
		if !l.far.Running() {
			continue
		}
		to := l.key.peer
		if marks[to] = append(marks[to], mark{dialer: l.key.mine, dial: l.key.number, number: l.sent}); len(marks[to]) == maxMarks {
			c.publish(&outgoing{to: to, m: message{kind: kindCheck, marks: marks[to]}}, nil)
			delete(marks, to)
		}
	}
	for to, list := range marks {
		c.publish(&outgoing{to: to, m: message{kind: kindCheck, marks: list}}, nil)
	}
}

// read takes what other servers send until ctx ends.
func (c *Cluster) read(ctx context.Context, sub *nats.Subscription) error {
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrSlowConsumer):
			c.log.Warn("messages of other servers were lost: this one is too slow")
		case err != nil:
			return err
		default:
			c.receive(msg.Data)
		}
	}
}

// receive takes one message. What can't be read is dropped: the gap is noticed.
func (c *Cluster) receive(b []byte) {
	m, err := decode(b)
	if err != nil || m.from == c.name || !validName(m.from) {
		c.log.Debug("a message that can't be read", "bytes", len(b))
		return
	}
	switch m.kind {
	case kindAsk:
		c.onAsk(&m)
		return
	case kindCheck:
		c.onCheck(&m)
		return
	case kindUnknown:
		for _, k := range m.marks {
			if l := c.find(m.from, k); l != nil {
				l.far.Unknown()
			}
		}
		return
	}
	l := c.find(m.from, mark{dialer: m.dialer, dial: m.dial})
	if l == nil {
		return // it ended meanwhile; a check tells the other where that is news
	}
	if l.got++; m.number != l.got {
		l.far.Broken()
		return
	}
	c.bytes.Add(int64(len(m.data)))
	l.take(&m)
}

// take gives a message of a dial to it.
func (l *link) take(m *message) {
	switch m.kind {
	case kindAnswer:
		l.far.Answered(m.text, m.credit)
	case kindData:
		l.far.Data(m.stream, m.data)
	case kindEnd:
		if raw := []byte(m.text); len(raw) == 0 || !json.Valid(raw) || !wire.Truthy(raw) {
			l.far.Broken()
			return
		}
		l.far.Ended(m.stream, m.text)
	case kindCredit:
		l.far.Credit(m.stream, m.credit)
	case kindStop:
		l.far.Stopped(m.stream, m.text)
	case kindReset:
		l.far.Reset(proxy.Reason{Text: m.text, Vanish: m.vanished})
	}
}

// find gives the link that another server means by a mark.
func (c *Cluster) find(peer string, k mark) *link {
	c.linkMu.Lock()
	defer c.linkMu.Unlock()
	return c.links[linkKey{peer: peer, number: k.dial, mine: !k.dialer}]
}

// onAsk is a dial to a member of this server.
func (c *Cluster) onAsk(m *message) {
	if !m.dialer || c.find(m.from, mark{dialer: true, dial: m.dial}) != nil {
		return
	}
	c.mu.Lock()
	c.leases.mentioned(m.from, time.Now()) // where it isn't alive, that is noticed
	c.mu.Unlock()
	l := &link{c: c, key: linkKey{peer: m.from, number: m.dial}}
	t := star.Target{Server: m.from, Epoch: m.epoch, FromEpoch: m.dialerEpoch}
	if refused := c.local.Dialled(t, proxy.Request{From: m.dialerAt, To: m.to, ID: m.id}, m.credit, l); refused != "" {
		l.Answer(refused, 0)
	}
}

// onCheck compares what another server sent with what came.
func (c *Cluster) onCheck(m *message) {
	var unknown []mark
	for _, k := range m.marks {
		switch l := c.find(m.from, k); {
		case l == nil:
			unknown = append(unknown, mark{dialer: !k.dialer, dial: k.dial})
		case l.got != k.number:
			l.far.Broken()
		}
	}
	if len(unknown) > 0 {
		_ = c.out.PushAlways(flow.Bulk, outgoing{to: m.from, m: message{kind: kindUnknown, marks: unknown}}, queueSize+markSize*len(unknown))
	}
}

// lose ends the dials of some links: the other server is gone.
func (c *Cluster) lose(which func(linkKey) bool) {
	c.linkMu.Lock()
	var lost []*link
	for key, l := range c.links {
		if which(key) {
			lost = append(lost, l)
		}
	}
	c.linkMu.Unlock()
	for _, l := range lost {
		l.far.Lost()
	}
}

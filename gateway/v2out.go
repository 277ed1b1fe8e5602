package gateway

import (
	"time"

	"github.com/parley-p2p/parley/gateway/lend"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// v2Outlet writes the frames of a v2 page, all that wait in one message.
//
//  1. sort out what the page no longer listens to; number the deliveries
//  2. encode: received, then the numbered frames
//  3. keep the numbered ones until the page confirms them
//  4. write
type v2Outlet struct {
	*v2Session
	l *link.Link

	// owned by who writes: it holds the Writer's pen
	batch v2.Batch
	parts [][]byte
}

// open is false while the page confirms nothing.
func (o *v2Outlet) Open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.replay.Bytes() < o.g.replayLimit()
}

// due says when the page must be told what has arrived.
func (o *v2Outlet) Due() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch n := o.received - o.acked; {
	case o.pongDue:
		return 0
	case n == 0:
		return -1
	case n >= ackFrames || o.ackBytes >= ackBytes:
		return 0
	}
	return max(0, ackDelay-time.Since(o.ackSince))
}

func (o *v2Outlet) Flush(items []item) error {
	o.mu.Lock()
	items, unwanted := o.current(items)
	lost := o.lost
	o.lost = nil
	first := o.number(items)
	ack, must := o.received, o.received > o.acked
	o.acked, o.ackBytes = o.received, 0
	pong, ponging := o.pong, o.pongDue
	o.pongDue = false
	o.mu.Unlock()

	if len(unwanted) > 0 {
		o.work.Go(func() { o.refuse(unwanted) })
	}
	b := &o.batch
	b.Reset(lend.Get(o.size(items) + 16 + len(lost)*maxName))
	if must {
		b.Buf = v2.AppendCount(b.Buf, v2.KindReceived, ack)
	}
	if ponging {
		b.Buf = v2.AppendCount(b.Buf, v2.KindPong, pong)
	}
	start, ends := b.Len(), make([]uint32, 0, len(items)+len(lost))
	for topic, n := range lost {
		b.Buf = v2.AppendLost(b.Buf, topic, n)
		ends = append(ends, uint32(b.Len()-start))
	}
	for i := range items {
		o.encode(b, &items[i], &first)
		ends = append(ends, uint32(b.Len()-start))
	}
	o.giveContents(items)
	return o.write(start, ends)
}

// refuse refuses what the page has stopped listening to. The writer does not wait
// for it: a sender whose connection takes nothing hears of it late.
func (o *v2Outlet) refuse(unwanted []network.Delivery) {
	for _, d := range unwanted {
		d.Refuse(notStarted(d.Protocol()))
		o.giveRoom(d)
	}
}

// write writes the batch, of which the replay is the owner from then on if there
// are numbered frames in it.
func (o *v2Outlet) write(start int, ends []uint32) error {
	o.parts = o.batch.Parts(o.parts[:0])
	defer func() {
		clear(o.parts)
		o.batch.Reset(nil)
	}()
	if len(ends) == 0 {
		buf := o.batch.Buf
		defer lend.Put(buf)
		if len(buf) == 0 {
			return nil
		}
		return o.l.WriteParts(socket.Binary, o.parts)
	}
	o.mu.Lock()
	o.replay.Add(&o.batch, start, ends)
	o.mu.Unlock()
	err := o.l.WriteParts(socket.Binary, o.parts)
	o.mu.Lock()
	o.replay.Written()
	o.mu.Unlock()
	return err
}

// giveContents makes room for more contents of channels: these are in the frame.
func (o *v2Outlet) giveContents(items []item) {
	var n int64
	for i := range items {
		if items[i].kind == itemContent {
			n += o.contentSize(items[i].data)
		}
	}
	if n > 0 {
		o.contents.Give(n, o.contentRoom())
	}
}

// number gives the messages their delivery numbers and remembers them until the
// page settles them; it returns the first. Called with mu.
func (o *v2Outlet) number(items []item) uint64 {
	first := o.delivered + 1
	for i := range items {
		if items[i].kind == itemMessage && !o.ended {
			if o.unsettled == nil {
				o.unsettled = make(map[uint64]network.Delivery)
			}
			o.delivered++
			o.unsettled[o.delivered] = items[i].ref.(network.Delivery)
		}
	}
	return first
}

// size is about what items take when encoded.
func (o *v2Outlet) size(items []item) int {
	n := 0
	for i := range items {
		it := &items[i]
		switch it.kind {
		case itemMessage:
			d := it.ref.(network.Delivery)
			n += 80 + len(d.Protocol()) + copied(d.Content())
		case itemPublication:
			p := it.ref.(*network.Publication)
			n += 80 + len(p.Topic) + copied(p.Content)
		case itemReply:
			n += 32 + copied(it.ref.(network.Content))
		case itemPresence:
			n += 80 + len(it.text) + len(it.ref.(network.Member).State)
		case itemIncoming:
			n += 320
		case itemEnd:
			n += 64 + len(it.ref.(string))
		case itemError:
			n += 64 + len(it.ref.(*identity.Error).Text)
		default:
			n += 32 + len(it.data)
		}
	}
	return n
}

// copied is how much of a content gets into the buffer.
func copied(c network.Content) int {
	if v2.Apart(len(c.Data)) {
		return 16
	}
	return len(c.Data)
}

func (o *v2Outlet) encode(b *v2.Batch, it *item, delivery *uint64) {
	switch it.kind {
	case itemMessage:
		d := it.ref.(network.Delivery)
		b.Message(*delivery, o.pairText(d), d.Content(), d.WantsReply())
		*delivery++
	case itemReply:
		b.ResultContent(uint64(it.id), it.ref.(network.Content))
	case itemPublication:
		p := it.ref.(*network.Publication)
		b.Publication(p.Topic, p.From.String(), p.Content)
	default:
		b.Buf = o.encodeSmall(b.Buf, it)
	}
}

// encodeSmall appends the frame of an item without content of others.
func (o *v2Outlet) encodeSmall(dst []byte, it *item) []byte {
	switch it.kind {
	case itemLevel:
		return v2.AppendResultLevel(dst, uint64(it.id), network.Level(it.n))
	case itemError:
		return v2.AppendError(dst, uint64(it.id), it.ref.(*identity.Error))
	case itemPresence:
		m := it.ref.(network.Member)
		return v2.AppendPresence(dst, it.text, m.Peer.String(), it.flag, m.State)
	case itemEvent:
		return v2.AppendEvent(dst, it.text, it.data)
	case itemContent:
		return v2.AppendChannelContent(dst, uint64(it.id), it.data)
	case itemCredit:
		return v2.AppendCredit(dst, uint64(it.id), uint64(it.n))
	case itemIncoming:
		info := it.ref.(ChannelInfo)
		return v2.AppendIncoming(dst, uint64(it.id), it.text, info.Protocol, uint64(it.n), infoText(info))
	case itemEnd:
		return v2.AppendEnd(dst, uint64(it.id), it.text, it.ref.(string), it.flag)
	}
	if len(it.data) == 0 {
		return v2.AppendResultNull(dst, uint64(it.id))
	}
	return v2.AppendResult(dst, uint64(it.id), it.data)
}

// pairText gives sender and protocol of a delivery as they are written.
func (o *v2Outlet) pairText(d network.Delivery) []byte {
	key := pair{d.From(), d.Protocol()}
	text, ok := o.texts[key]
	if !ok {
		text = v2.AppendPair(nil, key.peer.String(), string(key.protocol))
		if o.texts == nil || len(o.texts) >= maxPairs {
			o.texts = make(map[pair][]byte)
		}
		o.texts[key] = text
	}
	return text
}

func (o *v2Outlet) Farewell(bye *identity.Error) error {
	return o.l.Write(socket.Binary, v2.AppendBye(nil, bye))
}

package gateway

import (
	"time"

	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	v1 "github.com/parley-p2p/parley/gateway/v1"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// v1Outlet writes the frames of a v1 page, one text message each. Its fields
// belong to the writer.
type v1Outlet struct {
	*session
	l      *link.Link
	pushes int64 // counts up in the requestid of each push
	buf    []byte
	ends   []int
}

func (o *v1Outlet) Open() bool                         { return true }
func (o *v1Outlet) Due() time.Duration                 { return -1 }
func (o *v1Outlet) Farewell(bye *identity.Error) error { return nil }

func (o *v1Outlet) Flush(items []item) error {
	o.buf, o.ends = o.buf[:0], o.ends[:0]
	o.mu.Lock()
	items, _ = o.current(items)
	clear(o.lost) // v1 pages are not told
	o.mu.Unlock()
	for i := range items {
		o.encode(&items[i])
	}
	msgs, start := make([][]byte, len(o.ends)), 0
	for i, end := range o.ends {
		msgs[i], start = o.buf[start:end], end
	}
	err := o.l.Write(socket.Text, msgs...)
	if cap(o.buf) > keepBuffer {
		o.buf, o.ends = nil, nil // a burst must not keep its memory
	}
	return err
}

// current sorts out what the page has stopped listening to; the messages among
// that are to be refused without mu. Called with mu.
func (s *session) current(items []item) (kept []item, unwanted []network.Delivery) {
	kept = items[:0]
	for _, it := range items {
		switch it.kind {
		case itemMessage:
			if d := it.ref.(network.Delivery); s.protocols[d.Protocol()] == nil {
				s.g.stats.Unwanted.Add(1)
				unwanted = append(unwanted, d)
				continue
			}
		case itemPublication:
			if s.topics[it.ref.(*network.Publication).Topic] != it.gate {
				continue
			}
		case itemPresence:
			if s.topics[it.text] != it.gate {
				continue
			}
		}
		kept = append(kept, it)
	}
	clear(items[len(kept):])
	return kept, unwanted
}

func (o *v1Outlet) encode(it *item) {
	switch it.kind {
	case itemResult:
		o.buf = v1.AppendResult(o.buf, it.id, it.data)
	case itemError:
		o.buf = v1.AppendError(o.buf, it.id, v1.CodeOther, it.ref.(*identity.Error).Error())
	case itemFailure:
		o.buf = v1.AppendError(o.buf, it.id, int(it.n), it.text)
	case itemAck:
		o.buf = v1.AppendAck(o.buf, o.next(), it.n)
		o.cut()
		o.buf = v1.AppendResult(o.buf, it.id, nil)
	case itemMessage:
		d := it.ref.(network.Delivery)
		o.buf = v1.AppendPeerData(o.buf, o.next(), d.From().String(), string(d.Protocol()), it.data)
	case itemPublication:
		p := it.ref.(*network.Publication)
		o.buf = v1.AppendTopicData(o.buf, o.next(), p.Topic, p.From.String(), it.data)
	case itemPresence:
		o.buf = v1.AppendPeerChange(o.buf, o.next(), it.text, it.ref.(network.Member).Peer.String(), it.flag)
	case itemNoFiles:
		o.buf = v1.AppendNoFiles(o.buf, o.next(), it.text)
	case itemNoFile:
		o.buf = v1.AppendNoFile(o.buf, o.next(), it.text, it.ref.(*identity.Error).Error())
	default:
		return
	}
	o.cut()
}

// cut ends a frame.
func (o *v1Outlet) cut() { o.ends = append(o.ends, len(o.buf)) }

// next numbers a push.
func (o *v1Outlet) next() int64 {
	o.pushes++
	return o.pushes - 1
}

package socketio

import (
	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// The way out: Send ▶ queue of two classes ▶ a writer, which lives only while
// something waits and puts what is there into one write; or, while polling, the
// next poll. A message and its attachment are one item, so nothing comes between.
// Who sends much keeps a Flusher, and writes itself, once a socket.

// Msg is one message to send, or several that were encoded beforehand.
type Msg struct {
	Text []byte // the packet, with its leading 4
	Bin  []byte // its attachment, with its leading 0x04; nil for none

	// Frames are whole messages that many sockets share, framed for a WebSocket of
	// a server; Texts are the same as packets, for polling. They stand instead of
	// Text.
	Frames []byte
	Texts  [][]byte

	// Bufs hold Text and Bin where they are pooled; they are freed when the
	// message was sent or dropped, also when Send fails.
	Bufs [2]*ws.Buf

	// By, if not nil, is flushed by the caller, or by the receive path whose it is:
	// the message may wait until then.
	By *Flusher

	// Receipt, if not nil, is told when the message has left or was dropped, with
	// Note, which is the sender's.
	Receipt Receipt
	Note    int
}

// Receipt is told what became of a message. Sent is called once a message, from
// the writer or from within Send, and must not block. size is the message's Size.
type Receipt interface {
	Sent(size, note int, left bool)
}

// Size is what the message weighs while it waits, in bytes.
func (m *Msg) Size() int {
	if m.Bufs[0] == nil && m.Bufs[1] == nil {
		return len(m.Text) + len(m.Bin) + len(m.Frames)
	}
	n := 0
	for _, b := range m.Bufs {
		if b != nil {
			n += b.Size()
		}
	}
	return n
}

// item is a message in the queue.
type item struct {
	Msg
	size   int
	class  flow.Class
	op     ws.Opcode // of Text; 0 is a text frame
	unsent int       // bytes of its frames that the connection has not taken
}

// Send puts m into the queue: Control before Bulk, each in order. It never blocks
// and has no bound; receipts, or the requests that are answered, must bound it.
// Once the socket ends, the error is the reason.
func (s *Socket) Send(class flow.Class, m Msg) error {
	it, _ := s.core.items.Get().(*item)
	if it == nil {
		it = &item{}
	}
	*it = item{Msg: m, size: m.Size(), class: class}
	return s.push(it)
}

func (s *Socket) push(it *item) error {
	class, by, size := it.class, it.By, it.size // the item is the writer's, once it is in the queue
	if class == flow.Control {
		s.control.Add(int64(it.size))
	}
	if s.waiting.Add(1) == 1 {
		s.progress.Store(s.core.clock.Load()) // from now on something waits
	}
	if err := s.out.PushAlways(class, it, it.size); err != nil {
		s.settle(it, false)
		return err
	}
	if by != nil {
		by.add(s, size)
	} else {
		s.startWriter()
	}
	return nil
}

// packetText sends a packet that is encoded already.
func (s *Socket) packetText(text []byte) {
	_ = s.Send(flow.Control, Msg{Text: text}) // an ending socket needs no packets
}

// settle frees what it held and tells its receipt.
func (s *Socket) settle(it *item, left bool) {
	s.waiting.Add(-1)
	if it.class == flow.Control {
		n := s.control.Add(-int64(it.size))
		if relieved := s.relieved.Load(); relieved != nil && n <= int64(s.core.limits.Control)/2 {
			select {
			case *relieved <- struct{}{}:
			default:
			}
		}
	}
	for _, b := range it.Bufs {
		b.Free()
	}
	if it.Receipt != nil {
		it.Receipt.Sent(it.size, it.Note, left)
	}
	*it = item{}
	s.core.items.Put(it)
}

// Waiting is how many bytes wait to be sent, and how many of them are Control.
func (s *Socket) Waiting() (all, control int) { return s.out.Bytes(), int(s.control.Load()) }

// drop settles everything that still waits.
func (s *Socket) drop() {
	for {
		items, _ := s.out.TryPop(1<<20, nil)
		if len(items) == 0 {
			return
		}
		for _, it := range items {
			s.settle(it, false)
		}
	}
}

// frame adds an item to a batch and returns how many bytes it takes there.
func (s *Socket) frame(b *ws.Batch, it *item) int {
	if it.op != 0 {
		return b.Add(it.op, it.Text)
	}
	if it.Frames != nil && !s.client {
		b.AddRaw(it.Frames)
		return len(it.Frames)
	}
	n := 0
	for _, text := range it.Texts {
		n += b.Add(ws.Text, text)
	}
	if it.Text != nil {
		n += b.Add(ws.Text, it.Text)
	}
	if it.Bin == nil {
		return n
	}
	if s.noBinary.Load() {
		return n + b.Add(ws.Text, wire.AppendBase64(nil, it.Bin[1:]))
	}
	return n + b.Add(ws.Binary, it.Bin)
}

// Copy lends a buffer with the parts from the memory of this socket's end.
func (s *Socket) Copy(parts ...[]byte) *ws.Buf { return s.core.mem.Copy(parts...) }

package v2

import "github.com/parley-p2p/parley/network"

// Batch is the frames of one WebSocket message while they are put together.
// Large contents are not copied: they stay where they are, which is why nobody
// may change them, and the message is written from several parts.
//
//	Buf   …frames…[24, 7, bob, "chat", h'────────', 0]…frames…
//	                                     ▲ cut: the content's bytes stand elsewhere
type Batch struct {
	Buf   []byte // frames are appended here, but for those that Message, Publication and Reply append
	cuts  []cut
	apart int // bytes of all cuts
}

// cut is a place in Buf where bytes from elsewhere come in.
type cut struct {
	at   int
	data []byte
}

// aparts is the size from which a content is not copied: below it a copy costs
// less than a further part to write.
const aparts = 16 << 10

// Apart reports whether a content of size bytes is left where it is.
func Apart(size int) bool { return size >= aparts }

// Len is the length of the message so far.
func (b *Batch) Len() int { return len(b.Buf) + b.apart }

// Reset begins a message in buf.
func (b *Batch) Reset(buf []byte) {
	clear(b.cuts)
	b.Buf, b.cuts, b.apart = buf, b.cuts[:0], 0
}

// Message appends a message frame; pair is what AppendPair made.
func (b *Batch) Message(delivery uint64, pair []byte, c network.Content, reply bool) {
	b.Buf = append(AppendUint(open(b.Buf, 6, KindMessage), delivery), pair...)
	b.content(c)
	b.Buf = AppendUint(b.Buf, flags(reply))
}

// Publication appends a publication frame.
func (b *Batch) Publication(topic, peer string, c network.Content) {
	b.Buf = AppendText(AppendText(open(b.Buf, 4, KindPublication), topic), peer)
	b.content(c)
}

// ResultContent appends a result that is data.
func (b *Batch) ResultContent(id uint64, c network.Content) {
	b.Buf = AppendUint(open(b.Buf, 3, KindResult), id)
	b.content(c)
}

func (b *Batch) content(c network.Content) {
	if !Apart(len(c.Data)) {
		b.Buf = AppendContent(b.Buf, c)
		return
	}
	b.Buf = appendContentHead(b.Buf, c)
	b.cuts = append(b.cuts, cut{len(b.Buf), c.Data})
	b.apart += len(c.Data)
}

// Parts appends what the message is made of, in order, to into. The parts are
// good as long as Buf and the contents are.
func (b *Batch) Parts(into [][]byte) [][]byte {
	from := 0
	for _, c := range b.cuts {
		if c.at > from {
			into = append(into, b.Buf[from:c.at])
		}
		into = append(into, c.data)
		from = c.at
	}
	if len(b.Buf) > from {
		into = append(into, b.Buf[from:])
	}
	return into
}

// appendContentHead appends all of a content but its bytes, which follow.
func appendContentHead(dst []byte, c network.Content) []byte {
	switch c.Type {
	case network.Bytes:
		return appendHead(dst, majorBytes, uint64(len(c.Data)))
	case network.CBOR:
		return dst
	}
	return appendHead(appendHead(dst, majorTag, TagJSON), majorBytes, uint64(len(c.Data)))
}

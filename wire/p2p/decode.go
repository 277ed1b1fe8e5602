package p2p

import (
	"fmt"
	"unsafe"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/capr"
	"github.com/parley-p2p/parley/wire/internal/p2pcap"
)

// Decode reads an unpacked message. Slices in it are parts of raw. Errors are
// wire.ErrMalformed. Unknown kinds and null structs give *Other and no error.
func Decode(raw []byte) (Message, error) {
	if m := DecodePing(raw); m != nil {
		return m, nil
	}
	return decodeAny(raw)
}

// decodeAny reads every layout.
func decodeAny(raw []byte) (Message, error) {
	r, root, err := capr.Open(raw)
	if err != nil {
		return nil, err
	}
	kind := Kind(p2pcap.P2pMessage(root).Which())
	if !kind.Known() {
		return &Other{Tag: kind}, nil
	}
	s, ok, err := r.Sub(root, 0)
	if err != nil {
		return nil, err
	}
	if !ok {
		return &Other{Tag: kind, Missing: true}, nil
	}
	d := decoder{Reader: r, s: s}
	m := d.message(kind)
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// decoder reads the fields of one struct and keeps the first error.
type decoder struct {
	capr.Reader
	s   capr.Struct
	err error
}

func (d *decoder) message(k Kind) Message {
	switch k {
	case KindError:
		return &Error{Text: d.text(0)}
	case KindHandshake:
		s := p2pcap.MsgHandshake(d.s)
		return &Handshake{StoreRadius: s.StoreArcRadius(), QueryRadius: s.QueryArcRadius(), Features: s.Features()}
	case KindArcRequest, KindArcResponse:
		return &GspArc{Response: k == KindArcResponse, Arc: d.arc(0), Time: d.limit(1), Count: d.limit(2), Hashes: d.groups(3)}
	case KindAspectDataRequest:
		return &AspectDataRequest{Hashes: d.groups(0)}
	case KindAspectDataResponse, KindAspectBroadcast:
		return &AspectData{Broadcast: k == KindAspectBroadcast, Records: d.groups(0)}
	case KindDirectRequest, KindDirectResponse:
		return &Direct{Response: k == KindDirectResponse, RequestID: d.text(0), Data: d.data(1)}
	case KindQueryRequest, KindQueryResponse:
		return &Query{Response: k == KindQueryResponse, RequestID: d.text(0), Entry: d.data(1), Data: d.data(2)}
	case KindPing:
		return &Ping{SentMs: p2pcap.MsgPing(d.s).SendEpochMs()}
	case KindPong:
		s := p2pcap.MsgPong(d.s)
		return &Pong{PingSentMs: s.PingSendEpochMs(), ReceivedMs: s.PingReceivedEpochMs()}
	}
	return d.reconcile(k)
}

func (d *decoder) reconcile(k Kind) Message {
	switch k {
	case KindRecRoot:
		s := p2pcap.MsgRecRoot(d.s)
		return &RecRoot{
			Round: s.Round(), State: s.State(), RootLo: s.RootLo(), RootHi: s.RootHi(), Count: s.Count(),
			Salt: d.data(0), Pieces: d.pieces(1),
		}
	case KindRecSketch:
		s := p2pcap.MsgRecSketch(d.s)
		return &RecSketch{
			Round: s.Round(), Hour: s.Hour(), First: s.First(), Count: s.Count(),
			RootLo: s.RootLo(), RootHi: s.RootHi(), Cells: d.data(0),
		}
	case KindRecWant:
		s := p2pcap.MsgRecWant(d.s)
		return &RecWant{
			Round: s.Round(), CellsTo: s.CellsTo(), Want: d.data(0), Have: d.data(1), List: d.data(2),
			ListArc: d.arc(3), Bits: d.data(4), ListAfter: d.data(5), ListMore: s.ListMore(),
		}
	case KindRecBusy:
		s := p2pcap.MsgRecBusy(d.s)
		return &RecBusy{Round: s.Round(), RetryMs: s.RetryMs(), Reason: s.Reason()}
	case KindRecBookmark:
		s := p2pcap.MsgRecBookmark(d.s)
		return &RecBookmark{
			Round: s.Round(), Reply: s.Reply(), Epoch: s.Epoch(), From: s.From(), Next: s.Next(),
			AckEpoch: s.AckEpoch(), AckNext: s.AckNext(), Hashes: d.data(0),
		}
	}
	return nil
}

func (d *decoder) data(i uint16) []byte {
	if d.err != nil {
		return nil
	}
	var b []byte
	b, d.err = d.Data(d.s, i)
	return b
}

func (d *decoder) text(i uint16) string {
	if d.err != nil {
		return ""
	}
	var t string
	t, d.err = d.Text(d.s, i)
	return t
}

func (d *decoder) sub(i uint16) (capr.Struct, bool) {
	if d.err != nil {
		return capr.Struct{}, false
	}
	var s capr.Struct
	var ok bool
	s, ok, d.err = d.Sub(d.s, i)
	return s, ok
}

func (d *decoder) arc(i uint16) *Arc {
	s, ok := d.sub(i)
	if !ok {
		return nil
	}
	a := arcOf(s)
	return &a
}

func (d *decoder) limit(i uint16) *uint64 {
	s, ok := d.sub(i)
	if !ok {
		return nil
	}
	v := s.Uint64(0)
	return &v
}

func arcOf(s capr.Struct) Arc {
	c := p2pcap.AspectConstraintArc(s)
	return Arc{Start: c.ArcStart(), End: c.ArcEnd()}
}

func (d *decoder) pieces(i uint16) []Arc {
	if d.err != nil {
		return nil
	}
	l, n, err := d.List(d.s, i, int(unsafe.Sizeof(Arc{})))
	if err != nil || !l.IsValid() {
		d.err = err
		return nil
	}
	out := make([]Arc, n)
	for k := range out {
		out[k] = arcOf(l.Struct(k))
	}
	return out
}

func (d *decoder) groups(i uint16) []Group {
	if d.err != nil {
		return nil
	}
	l, n, err := d.List(d.s, i, int(unsafe.Sizeof(Group{})))
	if err != nil || !l.IsValid() {
		d.err = err
		return nil
	}
	out := make([]Group, n)
	for k := range out {
		s := l.Struct(k)
		if out[k].Entry, err = d.Data(s, 0); err == nil {
			out[k].Items, err = d.Bytes(s, 1)
		}
		if err != nil {
			d.err = fmt.Errorf("group %d: %w", k, err)
			return nil
		}
	}
	return out
}

// Unpacked gives the unpacked form of a content of a connection with encoding
// e, in scratch where it has to be unpacked and that is large enough.
func Unpacked(e wire.Encoding, content, scratch []byte) ([]byte, error) {
	if e == wire.Packed {
		return wire.Unpack(scratch, content)
	}
	return content, nil
}

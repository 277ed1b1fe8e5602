package p2p

import (
	"fmt"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/capw"
)

// Append appends m as an unpacked message in canonical form. It fails for
// *Other alone.
func Append(dst []byte, m Message) ([]byte, error) {
	w := writer{capw.Begin(dst)}
	if !w.message(m) {
		return dst, fmt.Errorf("%w: a message of kind %d can't be written", wire.ErrMalformed, m.Kind())
	}
	return w.Finish(), nil
}

type writer struct{ capw.Writer }

func (w *writer) message(m Message) bool {
	root := w.Struct(0, 1, capw.Trim(uint64(m.Kind()))...)
	switch m := m.(type) {
	case *Error:
		w.Text(w.pointers(root, m.Text != ""), m.Text)
	case *Handshake:
		w.Struct(root, 0, capw.Trim(pair(m.StoreRadius, m.QueryRadius), m.Features)...)
	case *GspArc:
		w.gspArc(root, m)
	case *AspectDataRequest:
		w.groups(w.pointers(root, m.Hashes != nil), m.Hashes)
	case *AspectData:
		w.groups(w.pointers(root, m.Records != nil), m.Records)
	case *Direct:
		p := w.pointers(root, m.RequestID != "", m.Data != nil)
		w.Text(p, m.RequestID)
		w.Data(p+1, m.Data)
	case *Query:
		p := w.pointers(root, m.RequestID != "", m.Entry != nil, m.Data != nil)
		w.Text(p, m.RequestID)
		w.Data(p+1, m.Entry)
		w.Data(p+2, m.Data)
	case *Ping:
		w.Struct(root, 0, capw.Trim(m.SentMs)...)
	case *Pong:
		w.Struct(root, 0, capw.Trim(m.PingSentMs, m.ReceivedMs)...)
	default:
		return w.reconcile(root, m)
	}
	return true
}

func (w *writer) reconcile(root int, m Message) bool {
	switch m := m.(type) {
	case *RecRoot:
		data := capw.Trim(uint64(m.Round)|uint64(m.State)<<32, m.RootLo, m.RootHi, m.Count)
		p := w.Struct(root, used(m.Salt != nil, m.Pieces != nil), data...)
		w.Data(p, m.Salt)
		w.pieces(p+1, m.Pieces)
	case *RecSketch:
		data := capw.Trim(pair(m.Round, m.Hour), uint64(m.First), m.Count, m.RootLo, m.RootHi)
		w.Data(w.Struct(root, used(m.Cells != nil), data...), m.Cells)
	case *RecWant:
		w.want(root, m)
	case *RecBusy:
		w.Struct(root, 0, capw.Trim(pair(m.Round, m.RetryMs), uint64(m.Reason))...)
	case *RecBookmark:
		data := capw.Trim(uint64(m.Round)|bit(m.Reply)<<32, m.Epoch, m.From, m.Next, m.AckEpoch, m.AckNext)
		w.Data(w.Struct(root, used(m.Hashes != nil), data...), m.Hashes)
	default:
		return false
	}
	return true
}

func (w *writer) gspArc(root int, m *GspArc) {
	p := w.pointers(root, m.Arc != nil, m.Time != nil, m.Count != nil, m.Hashes != nil)
	w.arc(p, m.Arc)
	if m.Time != nil {
		w.Struct(p+1, 0, capw.Trim(*m.Time)...)
	}
	if m.Count != nil {
		w.Struct(p+2, 0, capw.Trim(*m.Count)...)
	}
	w.groups(p+3, m.Hashes)
}

func (w *writer) want(root int, m *RecWant) {
	n := used(m.Want != nil, m.Have != nil, m.List != nil, m.ListArc != nil, m.Bits != nil, m.ListAfter != nil)
	p := w.Struct(root, n, capw.Trim(pair(m.Round, m.CellsTo), bit(m.ListMore))...)
	w.Data(p, m.Want)
	w.Data(p+1, m.Have)
	w.Data(p+2, m.List)
	w.arc(p+3, m.ListArc)
	w.Data(p+4, m.Bits)
	w.Data(p+5, m.ListAfter)
}

func (w *writer) arc(from int, a *Arc) {
	if a != nil {
		w.Struct(from, 0, capw.Trim(pair(a.Start, a.End))...)
	}
}

func (w *writer) pieces(from int, pieces []Arc) {
	if pieces == nil {
		return
	}
	data := 0
	for _, a := range pieces {
		data = max(data, len(capw.Trim(pair(a.Start, a.End))))
	}
	at := w.Structs(from, len(pieces), data, 0)
	for i, a := range pieces {
		if data > 0 {
			w.Word(at+i, pair(a.Start, a.End))
		}
	}
}

func (w *writer) groups(from int, groups []Group) {
	if groups == nil {
		return
	}
	size := 0 // pointers an element, the most any needs
	for _, g := range groups {
		size = max(size, used(g.Entry != nil, g.Items != nil))
	}
	at := w.Structs(from, len(groups), 0, size)
	for i, g := range groups {
		p := at + i*size
		w.Data(p, g.Entry)
		if g.Items == nil {
			continue
		}
		first := w.Pointers(p+1, len(g.Items))
		for k, item := range g.Items {
			w.Data(first+k, item)
		}
	}
}

// pointers writes a struct of pointers alone, as many as are needed for those
// that are set.
func (w *writer) pointers(from int, set ...bool) int { return w.Struct(from, used(set...)) }

// used is the number of pointers up to the last that is set.
func used(set ...bool) int {
	n := len(set)
	for n > 0 && !set[n-1] {
		n--
	}
	return n
}

func pair(low, high uint32) uint64 { return uint64(low) | uint64(high)<<32 }

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

package mux

import (
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/internal/capr"
	"github.com/parley-p2p/parley/wire/internal/muxcap"
)

// Decode reads an unpacked message into m, whose old values are gone. Slices in
// m are parts of raw. Errors are wire.ErrMalformed. An unknown kind is no error:
// the receiver answers it (docs/spec/channels.md §3).
func Decode(raw []byte, m *Message) error {
	*m = Message{}
	if decodeFixed(raw, m) {
		return nil
	}
	return decodeAny(raw, m)
}

// decodeAny reads every layout.
func decodeAny(raw []byte, m *Message) error {
	r, root, err := capr.Open(raw)
	if err != nil {
		return err
	}
	m.Kind = Kind(muxcap.MultiplexMessage(root).Which())
	if m.Kind == Close {
		m.Channel = root.Uint32(4)
		return nil
	}
	if !m.Kind.needsStruct() {
		return nil
	}
	s, ok, err := r.Sub(root, 0)
	if err != nil {
		return err
	}
	m.Missing = !ok
	d := decoder{Reader: r, s: s}
	d.body(m)
	return d.err
}

// decoder reads the fields of one struct and keeps the first error.
type decoder struct {
	capr.Reader
	s   capr.Struct
	err error
}

func (d *decoder) body(m *Message) {
	switch m.Kind {
	case Error:
		s := muxcap.MsgError(d.s)
		m.Channel = s.ChannelId()
		m.Code = codeOf(uint16(s.ErrorCode()))
		m.Text = d.text(0)
	case Create:
		s := muxcap.MsgChannelCreate(d.s)
		m.Channel, m.Window, m.Hops = s.ChannelId(), s.Window(), s.Hops()
		m.SpaceHash, m.To, m.From, m.Proof = d.data(0), d.data(1), d.data(2), d.data(3)
	case Content:
		m.Channel = muxcap.MsgChannelMessage(d.s).ChannelId()
		m.Content = d.data(0)
	case Window:
		s := muxcap.MsgChannelWindow(d.s)
		m.Channel, m.Window = s.ChannelId(), s.Add()
		m.Proof = d.data(0)
	case RelayTerms:
		s := muxcap.MsgRelayTerms(d.s)
		m.Terms = Terms{ExpireMs: s.ExpireMs(), MaxCircuits: s.MaxCircuits(), MaxBytes: s.MaxBytes(), MaxMs: s.MaxMs()}
	case Hello:
		s := muxcap.MsgHello(d.s)
		m.Hello = Parameters{
			Features: s.Features(), InitialWindow: s.InitialWindow(),
			MaxContent: s.MaxContent(), MaxChannels: s.MaxChannels(), Nonce: d.data(0),
		}
	}
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

// codeOf maps a number of a newer schema to Unknown.
func codeOf(n uint16) Code {
	if int(n) >= len(codeNames) {
		return Unknown
	}
	return Code(n)
}

// Unpacked gives the unpacked form of a record of a connection with encoding e,
// in scratch where it has to be unpacked and that is large enough.
func Unpacked(e wire.Encoding, record, scratch []byte) ([]byte, error) {
	if e == wire.Packed {
		return wire.Unpack(scratch, record)
	}
	return record, nil
}

package conn

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
	"github.com/parley-p2p/parley/wire/p2p"
)

// testTime is any time.
var testTime = time.Unix(1_600_000_000, 0)

// feed is a carrier that gives what a fuzzer made and takes everything.
type feed struct{ io.Reader }

func (feed) Write(p []byte) (int, error) { return len(p), nil }
func (feed) Close() error                { return nil }

// FuzzConn: whatever a peer sends, the connection ends in order, keeps within
// its limits and leaves nothing behind.
func FuzzConn(f *testing.F) {
	script := func(ms ...mux.Message) {
		for _, e := range []wire.Encoding{wire.Unpacked, wire.Packed} {
			var out []byte
			for _, m := range ms {
				out = mux.AppendRecord(out, e, &m)
			}
			f.Add(e == wire.Packed, out)
		}
	}
	ping, _ := p2p.Append(nil, &p2p.Ping{SentMs: 1})
	script(hello(), create(1), content(1, 5), window(1, 9), closing(1), content(1, 5))
	script(hello(), create(1), create(3), mux.Message{Kind: mux.Content, Channel: 1, Content: ping}, fault(1, Limit))
	script(create(7), content(7, 3000), create(7), closing(7))
	script(hello(), mux.Message{Kind: mux.RelayRequest}, mux.Message{Kind: mux.RelayTerms}, hello())
	f.Fuzz(func(t *testing.T, packed bool, in []byte) {
		cfg := newConfig(false, Limits{Unread: 1 << 20, UnreadSoft: 1 << 19})
		if packed {
			cfg.Encoding = wire.Packed
		}
		h := newAcceptAll()
		h.accept = func(m *mux.Message) (Accepting, *Error) {
			switch m.Channel % 3 {
			case 0:
				return Accepting{}, &Error{Code: BadTo, Text: "no"}
			case 1:
				return Accepting{System: true}, nil
			}
			return Accepting{Window: 1 << 20}, nil
		}
		c := New(feed{bytes.NewReader(in)}, cfg, h)
		if err := c.Run(t.Context()); err == nil {
			t.Error("the connection ended without a reason")
		}
		if c.unread > 1<<20 || c.unread < 0 || len(c.streams) != 0 {
			t.Errorf("left %d bytes unread, %d streams", c.unread, len(c.streams))
		}
		close(h.accepted)
		for s := range h.accepted {
			for { // what was received can be read, then there is an end
				if _, err := s.Receive(t.Context()); err != nil {
					break
				}
			}
			s.Close()
		}
		if c.unread != 0 || cfg.Metrics.Unread.Load() != 0 || cfg.Metrics.Channels.Load() != 0 {
			t.Errorf("books: %d unread, %d, %d channels", c.unread, cfg.Metrics.Unread.Load(), cfg.Metrics.Channels.Load())
		}
	})
}

// FuzzFifo: what goes in comes out, in order, and the books are kept.
func FuzzFifo(f *testing.F) {
	f.Add([]byte{1, 2, 3, 255, 0, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		p := &Buffers{}
		var q fifo
		var want [][]byte
		for i, b := range script {
			if b < 100 && len(want) > 0 {
				item, large := q.peek()
				if !bytes.Equal(item, want[0]) {
					t.Fatalf("step %d: got %d bytes, want %d", i, len(item), len(want[0]))
				}
				q.drop(p)
				if large {
					p.put(item)
				}
				want = want[1:]
				continue
			}
			item := bytes.Repeat([]byte{byte(i)}, int(b)*int(b)/8)
			want = append(want, item)
			if len(item) > smallItem {
				q.push(p, append(p.get(len(item))[:0], item...))
			} else if b%2 == 0 {
				copy(q.reserve(p, len(item)), item)
			} else {
				q.push(p, item)
			}
		}
		sum := 0
		for _, w := range want {
			sum += len(w)
		}
		if q.len != len(want) || q.bytes != sum {
			t.Fatalf("books: %d items, %d bytes; want %d, %d", q.len, q.bytes, len(want), sum)
		}
		q.clear(p)
	})
}

func FuzzEndedIDs(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		var e endedIDs
		now := testTime
		seen := map[uint32]bool{}
		for ; len(in) >= 2; in = in[2:] {
			id := uint32(in[0]) | uint32(in[1])<<8
			if e.has(id, now) != seen[id] {
				t.Fatalf("id %d: %v", id, e.has(id, now))
			}
			e.add(id, now)
			seen[id] = true
		}
		for id := range seen {
			if !e.has(id, now.Add(endedFor)) || e.has(id, now.Add(endedFor+1)) {
				t.Fatalf("id %d is not known for just 30 s", id)
			}
		}
	})
}

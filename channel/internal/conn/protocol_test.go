package conn

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
	"github.com/parley-p2p/parley/wire/p2p"
)

// bubble runs f in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestHello(t *testing.T) {
	short := hello()
	short.Hello.Nonce = make([]byte, 31)
	mine := hello()
	mine.Hello.Nonce = append([]byte{1}, make([]byte, 31)...)
	tests := []struct {
		name   string
		change func(*Config)
		send   []mux.Message
	}{
		{"a second hello", nil, []mux.Message{hello(), hello()}},
		{"a nonce of 31 bytes", nil, []mux.Message{short}},
		{"our own hello", nil, []mux.Message{mine}},
		{"the same peer", func(c *Config) { c.Local, c.Remote = "x", "x" }, []mux.Message{hello()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := against(t, tt.change)
				r.expect("hello", hello())
				r.send(tt.send...)
				r.expectEnd("error", fault(mux.WholeConnection, Unknown))
			})
		})
	}
}

func TestUnknownTag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		unknown := append(wire.AppendSize(nil, 32), 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		r.write(unknown)
		r.write(unknown)
		r.expect("once", fault(mux.WholeConnection, Unknown))
		<-time.After(time.Second)
		r.write(unknown)
		r.expect("again after a second", fault(mux.WholeConnection, Unknown))
	})
}

func TestDocumentOnlyByFirstRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := against(t, func(c *Config) { c.Encoding = wire.Packed })
		r.expect("hello", hello())
		r.send(create(7), content(7, 5)) // any id, and no window answers it
		s := <-r.h.accepted
		if !r.c.DocumentOnly() {
			t.Error("not taken for a document-only peer")
		}
		if got, err := s.Receive(t.Context()); len(got) != 5 || err != nil {
			t.Errorf("received %d bytes, %v", len(got), err)
		}
		if err := s.Send(t.Context(), make([]byte, 65_536)); err != nil {
			t.Fatal(err)
		}
		r.expect("content without credit", content(7, 65_536))
		r.send(create(7))
		r.expect("the id is in use", fault(7, BadChannelID))
		r.send(create(2))
		<-r.h.accepted
		r.expect("even ids too")
	})
}

func TestDocumentOnlyAfterFiveSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := against(t, func(c *Config) { c.Dialer = true })
		r.expect("hello", hello())
		<-time.After(4 * time.Second)
		if r.c.known() {
			t.Error("decided after 4 s")
		}
		<-time.After(2 * time.Second)
		if !r.c.DocumentOnly() {
			t.Error("not decided after 6 s")
		}
		s, err := r.c.Open(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitAccepted(t.Context()); err != nil {
			t.Errorf("silence is no consent: %v", err)
		}
		r.expect("create", create(1))
	})
}

// TestDocumentOnlySameID: both sides chose the same id at once.
func TestDocumentOnlySameID(t *testing.T) {
	open := func(t *testing.T, dialer bool, id uint32) (*raw, *Stream) {
		r := against(t, func(c *Config) { c.Dialer = dialer })
		r.expect("hello", hello())
		r.send(create(100), closing(100)) // shows what it is
		<-r.h.accepted
		r.expect("closed", closing(100))
		s, err := r.c.Open(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		r.expect("our create", create(id))
		r.send(create(id))
		return r, s
	}
	t.Run("we accepted the connection", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r, s := open(t, false, 2)
			if err := s.Err(); !errors.Is(err, &Error{Code: BadChannelID}) {
				t.Errorf("ours ended with %v", err)
			}
			<-r.h.accepted
		})
	})
	t.Run("we dialled", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r, s := open(t, true, 1)
			r.expect("theirs is refused", fault(1, BadChannelID))
			if s.Err() != nil {
				t.Errorf("ours ended with %v", s.Err())
			}
		})
	})
}

// TestDocumentOnlyQueue: the node stops reading the connection when a channel of
// such a peer holds 256 KiB.
func TestDocumentOnlyQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := against(t, nil)
		r.expect("hello", hello())
		r.send(create(1))
		s := <-r.h.accepted
		sent := make(chan int, 20)
		go func() {
			for i := range 20 {
				r.conn.Write(mux.AppendRecord(nil, wire.Unpacked, &mux.Message{Kind: mux.Content, Channel: 1, Content: make([]byte, 65_536)}))
				sent <- i
			}
		}()
		synctest.Wait()
		if n := len(sent); n < 4 || n > 6 {
			t.Errorf("took %d contents of 64 KiB unread", n)
		}
		for range 20 {
			if _, err := s.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestDocumentOnlyCodes: codes 5 to 7 go as 0 with the name in the text.
func TestDocumentOnlyCodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := against(t, func(c *Config) { c.Limits.Channels = 1 })
		r.expect("hello", hello())
		r.send(create(1), create(2))
		got, _ := r.got()
		if len(got) != 1 || got[0].Code != mux.Unknown || !strings.HasPrefix(got[0].Text, "limit: ") {
			t.Errorf("got %+v", brief(got))
		}
	})
}

func TestChannelIDs(t *testing.T) {
	tests := []struct {
		name string
		send []mux.Message
		want []mux.Message
	}{
		{"0 is reserved", []mux.Message{create(0)}, []mux.Message{fault(0, BadChannelID)}},
		{"0xffffffff is reserved", []mux.Message{create(0xffffffff)}, []mux.Message{fault(0xffffffff, BadChannelID)}},
		{"wrong parity", []mux.Message{create(2)}, []mux.Message{fault(2, BadChannelID)}},
		{"not above the last", []mux.Message{create(5), create(3)}, []mux.Message{window(5, 0), fault(3, BadChannelID)}},
		{"twice", []mux.Message{create(5), create(5)}, []mux.Message{window(5, 0), fault(5, BadChannelID)}},
		{"reused", []mux.Message{create(5), closing(5), create(5)}, []mux.Message{window(5, 0), closing(5), fault(5, BadChannelID)}},
		{"the largest", []mux.Message{create(0xfffffffd)}, []mux.Message{window(0xfffffffd, 0)}},
		{"content never created", []mux.Message{content(9, 3)}, []mux.Message{fault(9, BadChannelID)}},
		{"large content never created", []mux.Message{content(9, 30_000)}, []mux.Message{fault(9, BadChannelID)}},
		{"window never created", []mux.Message{window(9, 3)}, []mux.Message{fault(9, BadChannelID)}},
		{"close never created", []mux.Message{closing(9)}, []mux.Message{fault(9, BadChannelID)}},
		{"an error is not answered", []mux.Message{fault(9, Unknown)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := connected(t, nil)
				r.send(tt.send...)
				r.expect(tt.name, tt.want...)
			})
		})
	}
}

// TestAbuse38_ChannelIDReuse: an id that was used is refused, and what comes on
// it reaches no channel.
func TestAbuse38_ChannelIDReuse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, first := accepted(t, nil)
		r.send(create(3), closing(1))
		r.expect("two channels, one closed", window(3, 0), closing(1))
		second := <-r.h.accepted
		r.send(create(1), content(1, 9))
		r.expect("refused", fault(1, BadChannelID))
		r.send(content(3, 5))
		if got, err := second.Receive(t.Context()); len(got) != 5 || err != nil {
			t.Errorf("the other channel received %d bytes, %v", len(got), err)
		}
		if got, err := first.Receive(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("the closed channel received %d bytes, %v", len(got), err)
		}
	})
}

// TestRefusedChannel: what is under way on it is dropped for 30 s, unanswered.
func TestRefusedChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		r.h.accept = func(*mux.Message) (Accepting, *Error) { return Accepting{}, &Error{Code: BadTo, Text: "no"} }
		r.send(create(1), content(1, 3), content(1, 30_000), window(1, 5), closing(1))
		r.expect("refused", fault(1, BadTo))
		<-time.After(endedFor)
		r.send(content(1, 3), closing(1))
		r.expect("still dropped")
		<-time.After(time.Second)
		r.send(content(1, 3))
		r.expect("then answered", fault(1, BadChannelID))
		if n := r.c.cfg.Metrics.Dropped.Load(); n != 3 {
			t.Errorf("counted %d dropped contents, want 3", n)
		}
	})
}

func TestIDSizes(t *testing.T) {
	long := make([]byte, 1025)
	tests := []struct {
		name   string
		change func(*mux.Message)
		code   Code
	}{
		{"space null", func(m *mux.Message) { m.SpaceHash = nil }, BadSpace},
		{"space empty", func(m *mux.Message) { m.SpaceHash = []byte{} }, BadSpace},
		{"space long", func(m *mux.Message) { m.SpaceHash = long }, BadSpace},
		{"to null", func(m *mux.Message) { m.To = nil }, BadTo},
		{"to long", func(m *mux.Message) { m.To = long }, BadTo},
		{"from empty", func(m *mux.Message) { m.From = []byte{} }, BadFrom},
		{"from long", func(m *mux.Message) { m.From = long }, BadFrom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := connected(t, nil)
				m := create(1)
				tt.change(&m)
				r.send(m)
				r.expect(tt.name, fault(1, tt.code))
				if n := r.c.cfg.Metrics.Refused[RefusedIDs].Load(); n != 1 {
					t.Errorf("counted %d", n)
				}
			})
		})
	}
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		m := create(1)
		m.From = long[:1024]
		r.send(m)
		r.expect("1,024 bytes are fine", window(1, 0))
	})
}

func TestCloseIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		r.send(content(1, 3), closing(1))
		r.expect("answer", closing(1))
		if got, err := s.Receive(t.Context()); len(got) != 3 || err != nil {
			t.Errorf("what came before the close: %d bytes, %v", len(got), err)
		}
		if _, err := s.Receive(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("then %v", err)
		}
		s.Close()
		r.send(closing(1))
		r.expect("only once")
	})
}

func TestCloseSendsWhatIsQueued(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		for range 3 {
			if err := s.Send(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		x := content(1, 1)
		x.Content = []byte("x")
		r.expect("in order", x, x, x, closing(1))
		if err := s.Send(t.Context(), nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		r.send(content(1, 5), closing(1))
		r.expect("dropped")
	})
}

func TestErrorEndsChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		r.send(content(1, 3), mux.Message{Kind: mux.Error, Channel: 1, Code: mux.Limit, Text: "enough"})
		r.expect("no answer")
		if got, err := s.Receive(t.Context()); len(got) != 3 || err != nil {
			t.Errorf("what came before: %d bytes, %v", len(got), err)
		}
		_, err := s.Receive(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Code != Limit || !e.Remote || e.Text != "enough" {
			t.Errorf("then %v", err)
		}
	})
}

func TestOpenTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, func(c *Config) { c.Dialer = true })
		s, err := r.c.Open(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		r.expect("create", create(1))
		start := time.Now()
		if err := s.WaitAccepted(t.Context()); !errors.Is(err, &Error{Code: Timeout}) {
			t.Errorf("error %v, want a timeout", err)
		}
		if d := time.Since(start); d != OpenTimeout {
			t.Errorf("after %v", d)
		}
		r.expect("the id is closed", closing(1))
		r.send(window(1, 0))
		r.expect("a late answer is ignored")
	})
}

func TestKeepalive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		r.h.accept = func(*mux.Message) (Accepting, *Error) { return Accepting{System: true}, nil }
		r.send(create(1))
		r.expect("accept", window(1, 0))
		ping := func() *p2p.Ping {
			t.Helper()
			<-time.After(15 * time.Second)
			got, _ := r.got()
			if len(got) != 1 || got[0].Kind != mux.Content {
				t.Fatalf("after 15 s got %+v", brief(got))
			}
			m, ok := p2p.DecodePing(got[0].Content).(*p2p.Ping)
			if !ok {
				t.Fatalf("got %x", got[0].Content)
			}
			return m
		}
		m := ping()
		<-time.After(20 * time.Millisecond)
		pong, _ := p2p.Append(nil, &p2p.Pong{PingSentMs: m.SentMs, ReceivedMs: 7})
		r.send(mux.Message{Kind: mux.Content, Channel: 1, Content: pong})
		if rtt := r.c.RTT(); rtt != 20*time.Millisecond {
			t.Errorf("round trip %v, want 20 ms", rtt)
		}
		<-time.After(5 * time.Second) // the tick that sees the pong as traffic
		ping()
		ping()
		ping()
		<-time.After(15 * time.Second)
		r.expectEnd("three unanswered pings")
		if err := r.c.Err(); !errors.Is(err, &Error{Code: Lost}) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestPingIsAnswered(t *testing.T) {
	for _, enc := range []wire.Encoding{wire.Unpacked, wire.Packed} {
		bubble(t, func(t *testing.T) {
			r := connected(t, func(c *Config) { c.Encoding = enc })
			r.h.accept = func(*mux.Message) (Accepting, *Error) { return Accepting{System: true}, nil }
			r.send(create(1))
			r.expect("accept", window(1, 0))
			ping, _ := p2p.Append(nil, &p2p.Ping{SentMs: 42})
			if enc == wire.Packed {
				ping = wire.Pack(nil, ping)
			}
			r.send(mux.Message{Kind: mux.Content, Channel: 1, Content: ping})
			got, _ := r.got()
			if len(got) != 1 {
				t.Fatalf("got %+v", brief(got))
			}
			plain, err := p2p.Unpacked(enc, got[0].Content, nil)
			if err != nil {
				t.Fatal(err)
			}
			if m, ok := p2p.DecodePing(plain).(*p2p.Pong); !ok || m.PingSentMs != 42 {
				t.Errorf("got %x", plain)
			}
		})
	}
}

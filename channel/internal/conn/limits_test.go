package conn

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

func TestLimitChannels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, func(c *Config) { c.Limits.Channels = 3 })
		r.send(create(1), create(3), create(5), create(7))
		r.expect("the fourth", window(1, 0), window(3, 0), window(5, 0), fault(7, Limit))
		r.send(closing(1), create(9))
		r.expect("one closed, one more", closing(1), window(9, 0))
		if n := r.c.cfg.Metrics.Refused[RefusedChannels].Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestLimitChannelsDefault(t *testing.T) {
	if l := (Limits{}).WithDefaults(); l.Channels != 1024 || l.CreateRate != 100 || l.CreateBurst != 200 || l.ErrorRate != 64 ||
		l.Unread != 16<<20 || l.OnlyHello != 30*time.Second || l.NoChannels != 5*time.Minute || l.Keepalive != 15*time.Second {
		t.Errorf("defaults %+v", l)
	}
}

func TestAbuse47_CreatesWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		id := uint32(1)
		burst := func(n int) (ok, refused int) {
			for range n {
				r.send(create(id))
				id += 2
			}
			got, _ := r.got()
			for _, m := range got {
				if m.Kind == mux.Window {
					ok++
				} else if m.Code == mux.Limit {
					refused++
				}
			}
			return ok, refused
		}
		if ok, refused := burst(210); ok != 200 || refused != 10 {
			t.Errorf("of 210 at once %d accepted, %d refused", ok, refused)
		}
		<-time.After(time.Second)
		if ok, refused := burst(110); ok != 100 || refused != 10 {
			t.Errorf("of 110 a second later %d accepted, %d refused", ok, refused)
		}
		if n := r.c.cfg.Metrics.Refused[RefusedCreates].Load(); n != 20 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestLimitRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		r.write([]byte{0x81, 0x80, 0x40}) // 1 MiB and a byte
		r.expectEnd("oversize record", fault(mux.WholeConnection, Unknown))
		if n := r.c.cfg.Metrics.Refused[RefusedRecord].Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestAbuse47_ErrorsWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		var bad []mux.Message
		for i := range uint32(64) {
			bad = append(bad, content(1001+2*i, 1))
		}
		r.send(bad...)
		got, open := r.got()
		if len(got) != 64 || !open {
			t.Fatalf("64 errors: %d answers, open %v", len(got), open)
		}
		r.send(content(3001, 1))
		r.expectEnd("the 65th", fault(3001, BadChannelID), fault(mux.WholeConnection, Limit))
		if n := r.c.cfg.Metrics.Refused[RefusedErrors].Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestLimitOnlyHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, nil)
		<-time.After(29 * time.Second)
		r.expect("29 s")
		<-time.After(6 * time.Second)
		r.expectEnd("35 s")
		if n := r.c.cfg.Metrics.Refused[RefusedHello].Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestLimitNoChannels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := accepted(t, nil)
		r.send(closing(1))
		r.expect("closed", closing(1))
		<-time.After(5*time.Minute - time.Second)
		r.expect("just before 5 min")
		<-time.After(6 * time.Second)
		r.expectEnd("after 5 min")
		if n := r.c.cfg.Metrics.Refused[RefusedUnused].Load(); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestLimitContent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, nil)
		r.send(content(1, 65_536))
		r.expect("the largest")
		r.send(content(1, 65_537))
		r.expect("a byte more", fault(1, Limit))
		if err := s.Err(); !errors.Is(err, &Error{Code: Limit}) {
			t.Errorf("ended with %v", err)
		}
	})
}

// window256 gives channels a window that is a round number of contents.
func window256(c *Config) { c.Limits.Window = defaultWindow }

// TestAbuse47_ContentsWithoutCredit: a content without credit ends its channel, the third
// the connection.
func TestAbuse47_ContentsWithoutCredit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, window256)
		full := func(id uint32) {
			for range 4 { // 256 KiB
				r.send(content(id, 65_536))
			}
		}
		for _, id := range []uint32{1, 3, 5} {
			r.send(create(id))
			r.expect("accept", window(id, 0))
			full(id)
			r.expect("within credit")
		}
		r.send(content(1, 0)) // even an empty one costs 32
		r.expect("first", fault(1, Limit))
		r.send(content(3, 1))
		r.expect("second", fault(3, Limit))
		r.send(content(5, 1))
		r.expectEnd("third", fault(5, Limit), fault(mux.WholeConnection, Limit))
		if n := r.c.cfg.Metrics.Refused[RefusedCredit].Load(); n != 3 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestAbuse47_TooMuchCredit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := accepted(t, window256)
		r.send(window(1, MaxCredit-defaultWindow))
		r.expect("16 MiB are fine")
		r.send(window(1, 1))
		r.expect("a byte more", fault(1, Limit))
	})
}

// TestGrantAtHalf: credit comes back once half of the window was read.
func TestGrantAtHalf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, s := accepted(t, window256)
		for range 4 {
			r.send(content(1, 65_536))
		}
		read := func() {
			t.Helper()
			if _, err := s.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.expect("nothing read")
		read()
		r.expect("a quarter read")
		read()
		r.expect("half read", window(1, 131_072))
		read()
		read()
		r.expect("all read", window(1, 131_072))
	})
}

// TestUnreadTotal: from half of the limit on there is no credit for channels
// with unread data; past it the channel with most of it ends.
func TestUnreadTotal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := connected(t, func(c *Config) {
			c.Limits.Unread, c.Limits.UnreadSoft, c.Limits.Window = 1<<20, 512<<10, defaultWindow
		})
		streams := map[uint32]*Stream{}
		for id := uint32(1); id <= 11; id += 2 {
			r.send(create(id))
			streams[id] = <-r.h.accepted
		}
		r.got()
		for _, id := range []uint32{1, 3, 5} { // 3 × 256 KiB unread
			for range 4 {
				r.send(content(id, 65_536))
			}
		}
		for range 2 {
			streams[1].Receive(t.Context())
		}
		r.expect("half of a window read, but too much unread")
		for range 2 {
			streams[1].Receive(t.Context())
		}
		r.expect("all of it read", window(1, defaultWindow))
		for range 3 {
			r.send(content(7, 65_536))
		}
		for range 4 {
			r.send(content(9, 65_536))
		}
		r.expect("up to the limit, less 64 KiB")
		r.send(content(11, 65_536), content(11, 1))
		r.expect("a moment to catch up")
		<-time.After(catchUp)
		got, open := r.got()
		if len(got) != 1 || got[0].Code != mux.Limit || got[0].Channel == 11 || got[0].Channel == 7 || !open {
			t.Errorf("past the limit: %+v", brief(got))
		}
		if r.c.unread > 1<<20 {
			t.Errorf("%d bytes unread", r.c.unread)
		}
	})
}

// TestWriteTimeout: a peer that takes no bytes for a minute is lost.
func TestWriteTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := net.Pipe() // nobody reads from a
		c := New(b, newConfig(false, Limits{OnlyHello: time.Hour}), newAcceptAll())
		done := make(chan error, 1)
		go func() { done <- c.Run(t.Context()) }()
		start := time.Now()
		if err := <-done; !errors.Is(err, &Error{Code: Lost}) {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(start); d < time.Minute || d > 70*time.Second {
			t.Errorf("after %v", d)
		}
		a.Close()
	})
}

// TestAbuse47_RecordsForDeadChannels: what a flood of records for dead channels costs is bounded by
// a map look-up; nothing is answered and nothing is kept.
func TestAbuse47_RecordsForDeadChannels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := accepted(t, nil)
		r.send(closing(1))
		r.expect("closed", closing(1))
		flood := mux.AppendRecord(nil, wire.Unpacked, &mux.Message{Kind: mux.Content, Channel: 1, Content: make([]byte, 64)})
		for range 1000 {
			r.conn.Write(flood)
		}
		r.expect("no answer")
		if n := r.c.cfg.Metrics.Dropped.Load(); n != 1000 {
			t.Errorf("counted %d", n)
		}
	})
}

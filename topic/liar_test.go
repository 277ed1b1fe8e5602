package topic

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// liar speaks presence as it likes.
type liar struct {
	host host.Host
	net  *peertest.Libp2p
	key  identity.Key
}

func newLiar(t *testing.T, n *testNode) *liar {
	l := &liar{host: newHost(t), key: newKey(t)}
	l.net = peertest.FromHost(l.host)
	t.Cleanup(func() { l.net.Close(); _ = l.host.Close() })
	connectHosts(t, l.host, n.host)
	return l
}

func (l *liar) record(t *testing.T, change func(*claim)) []byte {
	t.Helper()
	c := claim{topic: "room", node: l.host.ID(), seq: 1, expires: time.Now().Add(time.Minute)}
	if change != nil {
		change(&c)
	}
	raw, err := signClaim(l.key, c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// tell writes frames on a stream of its own.
func (l *liar) tell(t *testing.T, n *testNode, frames []byte) network.Stream {
	t.Helper()
	s, err := l.net.Open(context.Background(), n.host.ID(), presenceProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	_, _ = s.Write(frames) // it may be cut off before it has said all
	return s
}

// untilEnded waits until the other side has ended the stream.
func untilEnded(t *testing.T, s network.Stream) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	_, err := s.Read(make([]byte, 1))
	if timeout, ok := err.(interface{ Timeout() bool }); err == nil || ok && timeout.Timeout() {
		t.Errorf("the stream goes on: %v", err)
	}
}

func TestAbuse32_FalsePresence(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	good := l.record(t, nil)
	forged := slices.Clone(good)
	forged[len(forged)-1] ^= 1
	stranger := l.record(t, func(c *claim) { c.node = a.id })
	for name, frames := range map[string][]byte{
		"forged":           appendFrame(nil, frameAnnounce, forged),
		"of another node":  appendFrame(nil, frameAnnounce, stranger),
		"expired":          appendFrame(nil, frameAnnounce, l.record(t, func(c *claim) { c.expires = time.Now() })),
		"empty frame":      {0},
		"huge frame":       binary.AppendUvarint(nil, 1<<62),
		"endless length":   {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
		"broken leave":     appendFrame(nil, frameLeave, []byte{1}),
		"broken forget":    appendFrame(nil, frameForget, []byte{9, 'x'}),
		"record of 100 KB": appendFrame(nil, frameAnnounce, make([]byte, 100_000)),
	} {
		t.Run(name, func(t *testing.T) {
			untilEnded(t, l.tell(t, n, frames))
			if got := a.Members("room"); len(got) != 0 {
				t.Errorf("lists %v", got)
			}
		})
	}
	if n.Stats().Dropped[DropRecord] == 0 {
		t.Error("nothing was counted")
	}
	// The same peer may still tell the truth.
	s := l.tell(t, n, appendFrame(appendFrame(nil, 99, []byte("to come")), frameAnnounce, good))
	a.untilMember(t, "room", l.key.PeerID(), true)
	if _, err := s.Write(appendFrame(nil, frameLeave, leaveBody("room", l.key.Agent()))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), false)
	if _, err := s.Write(appendFrame(nil, frameAnnounce, l.record(t, func(c *claim) { c.seq = 2 }))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), true)
	if _, err := s.Write(appendFrame(nil, frameForget, appendPrefixed(nil, "room"))); err != nil {
		t.Fatal(err)
	}
	a.untilMember(t, "room", l.key.PeerID(), false)
}

// TestAbuse32_LiarsAreRefusedForAWhile: each kind of nonsense counts, the tenth
// within a minute has the node's presence not read for a minute, the next time for
// two; nobody else's. That a stream is lost is nobody's fault.
func TestAbuse32_LiarsAreRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := peertest.NewSim(t, peertest.SimConfig{Hosts: 3})
		n := startNode(t, sim.Host(0).Host(), defaultQueue, Config{Log: slog.New(slog.DiscardHandler)}, true)
		defer time.Sleep(time.Minute)
		defer sim.Close()
		defer n.close()
		a := n.page(t)
		a.subscribe(t, "room")
		honest := &liar{host: sim.Host(1).Host(), net: sim.Host(1), key: newKey(t)}
		evil := &liar{host: sim.Host(2).Host(), net: sim.Host(2), key: newKey(t)}
		told := func(l *liar) bool {
			s, err := l.net.Open(t.Context(), n.host.ID(), presenceProtocol)
			if err != nil {
				return false // reset before it had begun
			}
			_, _ = s.Write(appendFrame(nil, frameAnnounce, l.record(t, nil)))
			time.Sleep(time.Second)
			there := slices.ContainsFunc(a.Members("room"), func(m network.Member) bool { return m.Peer == l.key.PeerID() })
			_ = s.Reset()
			time.Sleep(time.Second)
			return there
		}
		nonsense := [][]byte{{0}, binary.AppendUvarint(nil, maxFrame+1), bytes.Repeat([]byte{255}, 11), {0x81, 0x80, 0x80, 0x00},
			appendFrame(nil, frameLeave, []byte{1}), appendFrame(nil, frameForget, []byte{9, 'x'}),
			appendFrame(nil, frameAnnounce, []byte("record")),
			appendFrame(nil, frameAnnounce, evil.record(t, func(c *claim) { c.node = a.id })),
			appendFrame(nil, frameAnnounce, evil.record(t, func(c *claim) { c.expires = time.Now() })),
			appendFrame(nil, frameAnnounce, evil.record(t, func(c *claim) { c.expires = time.Now().Add(2 * recordHorizon) }))}
		for range 20 { // honest, and cut off all the time
			if !told(honest) {
				t.Fatal("a node whose streams are lost isn't heard")
			}
		}
		if d := n.Stats().Dropped; len(d) > 0 {
			t.Fatalf("lost streams count as %v", d)
		}
		for round, lasts := range []time.Duration{time.Minute, 2 * time.Minute} {
			if !told(evil) {
				t.Fatal("refused before it did anything")
			}
			for i, frames := range nonsense {
				untilEnded(t, evil.tell(t, n, frames))
				if got, want := n.Stats().Dropped[DropRecord], uint64(len(nonsense)*round+i+1); got != want {
					t.Fatalf("nonsense %d: counted %d, want %d", i, got, want)
				}
			}
			if told(evil) || n.Stats().Dropped[DropUnheard] == 0 {
				t.Fatal("still heard after ten frames of nonsense")
			}
			if !told(honest) {
				t.Fatal("the other node isn't heard either")
			}
			time.Sleep(lasts - 10*time.Second)
			if told(evil) {
				t.Fatalf("heard before %v", lasts)
			}
			time.Sleep(10 * time.Second)
		}
		if !told(evil) {
			t.Fatal("never heard again")
		}
	})
}

// TestAbuse32_PresenceFlood: a node can't fill this one's memory.
func TestAbuse32_PresenceFlood(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	var frames []byte
	for i := range maxUnknownClaims + 50 {
		frames = appendFrame(frames, frameAnnounce, l.record(t, func(c *claim) { c.topic = fmt.Sprint("topic", i) }))
	}
	frames = appendFrame(frames, frameAnnounce, l.record(t, nil)) // one that is wanted
	l.tell(t, n, frames)
	a.untilMember(t, "room", l.key.PeerID(), true)
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := n.told.links[l.host.ID()].claims; got != maxUnknownClaims+1 {
		t.Errorf("keeps %d claims", got)
	}
}

// TestNewerStreamReplaces: what an older stream of a node told is gone when a
// newer one begins, and its end takes nothing of the newer one's back.
func TestNewerStreamReplaces(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	l := newLiar(t, n)
	first := l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, nil)))
	a.untilMember(t, "room", l.key.PeerID(), true)
	l.key = newKey(t)
	second := l.tell(t, n, appendFrame(nil, frameAnnounce, l.record(t, nil)))
	a.untilMember(t, "room", l.key.PeerID(), true)
	untilEnded(t, first)
	if got := a.Members("room"); len(got) != 1 || got[0].Peer != l.key.PeerID() {
		t.Errorf("members are %v", got)
	}
	_ = second.Close()
	a.untilMember(t, "room", l.key.PeerID(), false)
}

func FuzzPresenceFrames(f *testing.F) {
	f.Add(appendFrame(nil, frameForget, appendPrefixed(nil, "room")))
	f.Add(appendFrame(nil, frameLeave, leaveBody("room", identity.AgentID{})))
	n := New(&Router{meter: newMeter(f.Context(), defaultQueue)}, &peertest.Libp2p{}, Config{})
	f.Fuzz(func(t *testing.T, frames []byte) {
		s := &readStream{rest: frames}
		n.mu.Lock()
		l := n.link(bob)
		l.stream = s
		n.mu.Unlock()
		_ = n.hear(t.Context(), l, s, nil)
		if l.claims != 0 {
			t.Fatal("believes an unsigned claim")
		}
	})
}

// readStream is a stream whose other side has written all it will.
type readStream struct {
	network.Stream
	rest []byte
}

func (s *readStream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *readStream) Reset() error { return nil }

func (s *readStream) SetReadDeadline(time.Time) error { return nil }

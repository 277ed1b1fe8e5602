package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

// signed makes a page and its record, with a body of about 4 KiB.
func signed(t testing.TB, node identity.PeerID, at time.Time) (pageRecord, []byte) {
	t.Helper()
	key := newKey(t)
	var addrs []ma.Multiaddr
	for range maxPageAddrs {
		addrs = append(addrs, addr("/dns/"+string(bytes.Repeat([]byte("x"), 120))+"/tcp/1"))
	}
	raw, err := signPage(key, node, addrs, at)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := openPage(raw, key.PeerID(), at)
	if err != nil {
		t.Fatal(err)
	}
	return rec, raw
}

// Row 32: a flood of valid records stays within the cache's bytes.
func TestAbuse32_RecordFlood(t *testing.T) {
	b := newPageBook(newKey(t).PeerID())
	now := time.Now()
	rec, raw := signed(t, b.node, now)
	var first, last identity.PeerID
	for i := range 2 * maxCachedBytes / len(raw) {
		rec.page = identity.PeerID(fmt.Sprint("page ", i)) // signatures cost time, and are checked before
		b.learn(rec, raw, now)
		if last = rec.page; i == 0 {
			first = last
		}
	}
	if b.bytes > maxCachedBytes || b.order.Len() != len(b.others) {
		t.Errorf("cache has %d bytes, %d and %d records; limit %d bytes", b.bytes, b.order.Len(), len(b.others), maxCachedBytes)
	}
	if _, ok := b.where(first, now); ok {
		t.Error("the oldest record is still there")
	}
	if _, ok := b.where(last, now); !ok {
		t.Error("the newest record isn't there")
	}
}

func TestPageBookRemembers(t *testing.T) {
	b := newPageBook(newKey(t).PeerID())
	now := time.Now()
	key := newKey(t)
	at := func(when time.Time, node identity.PeerID) (pageRecord, []byte) {
		raw, err := signPage(key, node, nil, when)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := openPage(raw, key.PeerID(), when)
		if err != nil {
			t.Fatal(err)
		}
		return rec, raw
	}
	one, two := newKey(t).PeerID(), newKey(t).PeerID()
	newer, newerRaw := at(now, two)
	older, olderRaw := at(now.Add(-time.Minute), one)
	b.learn(newer, newerRaw, now)
	b.learn(older, olderRaw, now) // a replay
	if rec, ok := b.where(key.PeerID(), now); !ok || rec.node != two {
		t.Errorf("remembered %+v, want the newer record", rec)
	}
	if got := b.answer(key.PeerID(), now); !bytes.Equal(got, newerRaw) {
		t.Error("the record isn't passed on unchanged")
	}
	for name, when := range map[string]time.Time{"stale": now.Add(recordFresh + 1), "clock went back": now.Add(-time.Hour)} {
		b.learn(newer, newerRaw, now)
		if _, ok := b.where(key.PeerID(), when); ok {
			t.Errorf("%s: still believed", name)
		}
		if len(b.others) != 0 || b.bytes != 0 {
			t.Errorf("%s: %d records, %d bytes left", name, len(b.others), b.bytes)
		}
	}
	defer b.add(key, func() []ma.Multiaddr { return nil })()
	b.learn(newer, newerRaw, now) // an own page needs no hearsay
	if len(b.others) != 0 {
		t.Error("a record of an own page was remembered")
	}
}

// Whoever asks more than the rate allows is cut off, and others aren't.
func TestQuestionRate(t *testing.T) {
	a, b := newParty(t, Config{}), newParty(t, Config{})
	answerer := newParty(t, Config{})
	for _, p := range []*party{a, b} {
		if err := p.h.Connect(deadline(t), peer.AddrInfo{ID: answerer.Local(), Addrs: answerer.h.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	many := make([]identity.PeerID, maxQuestions)
	for i := range many {
		many[i] = b.Local()
	}
	ask := func(p *party) error {
		return askNode(deadline(t), p, answerer.Local(), many, func(pageRecord, []byte) {})
	}
	var err error
	for range 2 * questionBurst / maxQuestions {
		err = errors.Join(err, ask(a))
	}
	if err == nil {
		t.Errorf("%d questions at once were answered, want at most %d", 2*questionBurst, questionBurst)
	}
	if err := ask(b); err != nil {
		t.Errorf("another peer: %v", err)
	}
}

// What isn't a question or an answer ends the stream.
func TestBadPieces(t *testing.T) {
	tests := []struct {
		name     string
		question []byte
	}{
		{"too long", appendPiece(nil, make([]byte, maxIDLen+1))},
		{"huge length", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
		{"length that never ends", bytes.Repeat([]byte{0xff}, 64)},
		{"empty", []byte{0}},
		{"cut off", []byte{32, 1, 2}},
	}
	answerer := newParty(t, Config{})
	asker := newParty(t, Config{Connect: answerer.addrs()})
	waitConnected(t, asker, answerer)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := asker.Open(deadline(t), answerer.Local(), PagesProtocol)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Reset()
			if _, err := s.Write(tt.question); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			if n, err := s.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes, want the end", n)
			}
		})
	}
	// A question that can't be a peer id is just not known.
	s, err := asker.Open(deadline(t), answerer.Local(), PagesProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if _, err := s.Write(appendPiece(nil, []byte("nobody"))); err != nil {
		t.Fatal(err)
	}
	buf := []byte{1}
	if _, err := s.Read(buf); err != nil || buf[0] != 0 {
		t.Errorf("answered %d, %v, want 0", buf[0], err)
	}
}

func TestPlausibleAddresses(t *testing.T) {
	a, b := newParty(t, Config{}), newParty(t, Config{})
	all := []ma.Multiaddr{addr("/ip4/127.0.0.1/tcp/1"), addr("/ip4/192.168.1.1/tcp/1"), addr("/ip4/1.2.3.4/tcp/1")}
	if got := a.d.plausible(b.Local(), all); len(got) != 1 || !got[0].Equal(all[2]) {
		t.Errorf("from a stranger: %v, want the public one", got)
	}
	if err := a.h.Connect(deadline(t), peer.AddrInfo{ID: b.Local(), Addrs: b.h.Addrs()}); err != nil {
		t.Fatal(err)
	}
	if got := a.d.plausible(b.Local(), all); len(got) != 3 {
		t.Errorf("from the own machine: %v, want all", got)
	}
}

// TestG_R2_QuestionsHaveADeadline: a node that is asked for pages and says nothing,
// or never ends what it says, holds nobody up for longer than 5 s.
func TestG_R2_QuestionsHaveADeadline(t *testing.T) {
	for name, answer := range map[string][]byte{"silence": nil, "half an answer": {200, 1, 1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peertest.New()
				defer cluster.Close()
				asker, mute := cluster.Host(newKey(t)), cluster.Host(newKey(t))
				mute.Handle(PagesProtocol, func(ctx context.Context, s network.Stream) {
					_, _ = s.Write(answer)
					<-ctx.Done()
				})
				began := time.Now()
				err := askNode(t.Context(), asker, mute.Local(), []identity.PeerID{newKey(t).PeerID()}, func(pageRecord, []byte) {
					t.Error("an answer was found in it")
				})
				if took := time.Since(began); err == nil || took != askTimeout {
					t.Errorf("ended after %v with %v", took, err)
				}
			})
		})
	}
}

// TestAbuse32_WhoAsksNonsenseIsRefused: each kind of bad question counts; after ten
// within a minute a peer's streams are reset unread for a minute. Others are served.
func TestAbuse32_WhoAsksNonsenseIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peertest.New()
		defer cluster.Close()
		node, evil, honest := cluster.Host(newKey(t)), cluster.Host(newKey(t)), cluster.Host(newKey(t))
		book := newPageBook(node.Local())
		page := newKey(t)
		defer book.add(page, func() []ma.Multiaddr { return []ma.Multiaddr{addr("/ip4/192.0.2.1/tcp/1")} })()
		node.Handle(PagesProtocol, book.serve)
		answered := func(asker *peertest.Host) bool {
			found := false
			_ = askNode(t.Context(), asker, node.Local(), []identity.PeerID{page.PeerID()}, func(pageRecord, []byte) { found = true })
			return found
		}
		nonsense := [][]byte{{0}, appendPiece(nil, make([]byte, maxIDLen+1)), bytes.Repeat([]byte{255}, 11), {0x80, 0x80, 0x80, 0x80, 0x01}}
		for i := range 10 {
			if !answered(evil) || !answered(honest) {
				t.Fatalf("refused after %d bad questions", i)
			}
			s, err := evil.Open(t.Context(), node.Local(), PagesProtocol)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(nonsense[i%len(nonsense)])
			if n, err := s.Read(make([]byte, 1)); err == nil {
				t.Fatalf("nonsense %d was answered by %d bytes", i, n)
			}
			synctest.Wait()
			if n := book.bad.Load(); n != uint64(i+1) {
				t.Fatalf("%d counted, want %d", n, i+1)
			}
		}
		for _, after := range []time.Duration{0, 59 * time.Second} {
			if time.Sleep(after); answered(evil) || !answered(honest) {
				t.Fatalf("after %v evil is answered, or honest isn't", after)
			}
		}
		if book.unheard.Load() != 2 {
			t.Errorf("%d streams were reset unread", book.unheard.Load())
		}
		if time.Sleep(time.Second); !answered(evil) {
			t.Error("still refused after a minute")
		}
	})
}

// TestAbuse32_WhoAnswersFalselyIsNotAsked: a node that gives records that are forged
// isn't asked again for a while; a lost stream or an expired record is no fault.
func TestAbuse32_WhoAnswersFalselyIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peertest.New()
		defer cluster.Close()
		node, evil := cluster.Host(newKey(t)), cluster.Host(newKey(t))
		book, page := newPageBook(node.Local()), newKey(t)
		other, err := signPage(newKey(t), evil.Local(), nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		old, err := signPage(page, evil.Local(), nil, time.Now().Add(-48*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			answer []byte
			fault  bool
		}{
			{"of another page", appendPiece(nil, other), true}, {"no record", appendPiece(nil, []byte("x")), true},
			{"too long", []byte{0xff, 0xff, 0xff, 1}, true}, {"expired", appendPiece(nil, old), false}, {"cut off", []byte{9, 1}, false},
			{"nothing", nil, false},
		} {
			remove := evil.Handle(PagesProtocol, func(_ context.Context, s network.Stream) {
				_, _ = s.Write(c.answer)
				_ = s.CloseWrite()
				_, _ = io.Copy(io.Discard, s)
				_ = s.Close()
			})
			before := book.bad.Load()
			err := askNode(t.Context(), node, evil.Local(), []identity.PeerID{page.PeerID()}, func(pageRecord, []byte) { t.Error("found") })
			book.blame(evil.Local(), err)
			if counted := book.bad.Load() > before; err == nil || counted != c.fault {
				t.Errorf("%s: %v, counted %v", c.name, err, counted)
			}
			remove()
		}
	})
}

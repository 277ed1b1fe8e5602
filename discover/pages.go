package discover

import (
	"bufio"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// PagesProtocol asks a node where pages are (docs/protocols/page.md). A stream
// carries any number of questions, each answered in turn:
//
//	question  uvarint length (1 to 64) ‖ peer id of the page
//	answer    uvarint length (0: not known here) ‖ page record
//
// A node answers for its own pages, and with records it got itself within the
// last ten minutes. It asks nobody else on behalf of a stranger.
const PagesProtocol network.Protocol = "/parley/pages/1.0.0"

// Bounds of the pages protocol.
const (
	maxPageRecord  = 12 << 10 // bytes of an answer
	maxQuestions   = 256      // on one stream
	questionWait   = 10 * time.Second
	askTimeout     = 5 * time.Second
	questionRate   = 50 // questions a second and peer …
	questionBurst  = 500
	questionPeers  = 1024             // peers whose rates are kept apart
	recordFresh    = 10 * time.Minute // how long a record is believed without asking again
	maxCachedBytes = 4 << 20          // records of other nodes' pages
	signedFresh    = 10 * time.Second // how long an own record is given out before it is made anew
)

// pageBook knows the own pages and remembers where others were.
type pageBook struct {
	node    identity.PeerID
	rate    *flow.Buckets[identity.PeerID]
	liars   *flow.Offenders[identity.PeerID] // peers whose questions or answers can't be read
	bad     atomic.Uint64                    // such questions and answers
	unheard atomic.Uint64                    // streams of peers that are refused for a while
	changed chan struct{}                    // capacity 1: an own page came or went

	mu     sync.Mutex
	own    map[identity.PeerID]*ownPage
	others map[identity.PeerID]*list.Element
	order  *list.List // of *cachedPage, least recently learnt first
	bytes  int
}

type ownPage struct {
	key    identity.Key
	addrs  func() []ma.Multiaddr
	signed []byte
	at     time.Time
}

type cachedPage struct {
	rec pageRecord
	raw []byte
	at  time.Time
}

func newPageBook(node identity.PeerID) *pageBook {
	return &pageBook{
		node:    node,
		changed: make(chan struct{}, 1),
		rate:    flow.NewBuckets[identity.PeerID](questionRate, questionBurst, questionPeers),
		liars:   flow.NewOffenders[identity.PeerID](flow.DefaultOffences(), questionPeers),
		own:     make(map[identity.PeerID]*ownPage),
		others:  make(map[identity.PeerID]*list.Element),
		order:   list.New(),
	}
}

// add makes the node answer for a page, until remove.
func (b *pageBook) add(key identity.Key, addrs func() []ma.Multiaddr) (remove func()) {
	p := &ownPage{key: key, addrs: addrs}
	id := key.PeerID()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own[id] = p
	b.poke()
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.own[id] == p {
			delete(b.own, id)
			b.poke()
		}
	}
}

func (b *pageBook) poke() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// isOwn reports whether a page is on this node.
func (b *pageBook) isOwn(id identity.PeerID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own[id] != nil
}

// pageAt is a page and its addresses.
type pageAt struct {
	id    identity.PeerID
	addrs []ma.Multiaddr
}

// announced are at most max of the own pages, always in the same order.
func (b *pageBook) announced(max int) []pageAt {
	b.mu.Lock()
	own := make(map[identity.PeerID]*ownPage, len(b.own))
	for id, p := range b.own {
		own[id] = p
	}
	b.mu.Unlock()
	ids := slices.Sorted(maps.Keys(own))
	var out []pageAt
	for _, id := range ids[:min(len(ids), max)] {
		out = append(out, pageAt{id, own[id].addrs()})
	}
	return out
}

// answer gives the record of a page, or nil.
func (b *pageBook) answer(id identity.PeerID, now time.Time) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.own[id]; ok {
		if p.signed == nil || now.Sub(p.at) > signedFresh || now.Before(p.at) {
			signed, err := signPage(p.key, b.node, p.addrs(), now)
			if err != nil {
				return nil
			}
			p.signed, p.at = signed, now
		}
		return p.signed
	}
	if c := b.cached(id, now); c != nil {
		return c.raw
	}
	return nil
}

// where gives a remembered record that is still fresh.
func (b *pageBook) where(id identity.PeerID, now time.Time) (pageRecord, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.cached(id, now); c != nil {
		return c.rec, true
	}
	return pageRecord{}, false
}

func (b *pageBook) cached(id identity.PeerID, now time.Time) *cachedPage {
	el, ok := b.others[id]
	if !ok {
		return nil
	}
	c := el.Value.(*cachedPage)
	if age := now.Sub(c.at); age > recordFresh || age < 0 {
		b.drop(el)
		return nil
	}
	return c
}

// learn remembers a checked record, unless a newer one is known.
func (b *pageBook) learn(rec pageRecord, raw []byte, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, own := b.own[rec.page]; own {
		return
	}
	if el, ok := b.others[rec.page]; ok {
		if el.Value.(*cachedPage).rec.seq > rec.seq {
			return
		}
		b.drop(el)
	}
	b.others[rec.page] = b.order.PushBack(&cachedPage{rec: rec, raw: raw, at: now})
	b.bytes += len(raw)
	for b.bytes > maxCachedBytes {
		b.drop(b.order.Front())
	}
}

func (b *pageBook) drop(el *list.Element) {
	c := b.order.Remove(el).(*cachedPage)
	delete(b.others, c.rec.page)
	b.bytes -= len(c.raw)
}

// serve answers the questions of one stream. Who asks nonsense again and again isn't
// read for a while.
func (b *pageBook) serve(ctx context.Context, s network.Stream) {
	if b.liars.Refused(s.Remote(), time.Now()) {
		b.unheard.Add(1)
		return // resets the stream
	}
	r := bufio.NewReaderSize(s, 256)
	for range maxQuestions {
		_ = s.SetReadDeadline(time.Now().Add(questionWait))
		raw, err := readPiece(r, maxIDLen)
		if err == nil && len(raw) == 0 {
			err = errBadPiece
		}
		if err != nil {
			b.blame(s.Remote(), err)
			if errors.Is(err, io.EOF) {
				_ = s.Close()
			}
			return
		}
		now := time.Now()
		if ok, _ := b.rate.Allow(s.Remote(), 1, now); !ok || ctx.Err() != nil {
			return // resets the stream
		}
		var rec []byte
		if id, err := peer.IDFromBytes(raw); err == nil {
			rec = b.answer(id, now)
		}
		_ = s.SetWriteDeadline(now.Add(questionWait))
		if _, err := s.Write(appendPiece(nil, rec)); err != nil {
			return
		}
	}
	_ = s.Close() // enough questions: the answers given still arrive
}

// blame counts what a peer asked or answered, where err says that it was wrong.
func (b *pageBook) blame(id identity.PeerID, err error) {
	switch identity.CodeOf(err) {
	case identity.CodeMalformed, identity.CodeTooLarge, identity.CodeForbidden:
		b.bad.Add(1)
		b.liars.Offend(id, time.Now())
	}
}

// askNode asks a node for pages, and calls found for each checked answer.
func askNode(ctx context.Context, n network.Network, node identity.PeerID, pages []identity.PeerID,
	found func(rec pageRecord, raw []byte)) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := n.Open(ctx, node, PagesProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if until, ok := ctx.Deadline(); ok {
		_ = s.SetReadDeadline(until)
		_ = s.SetWriteDeadline(until)
	}
	if len(pages) > maxQuestions {
		pages = pages[:maxQuestions]
	}
	var questions []byte
	for _, id := range pages {
		questions = appendPiece(questions, []byte(id))
	}
	if _, err := s.Write(questions); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	r := bufio.NewReader(s)
	for _, id := range pages {
		raw, err := readPiece(r, maxPageRecord)
		if err != nil {
			return err
		}
		if len(raw) == 0 {
			continue
		}
		rec, err := openPage(raw, id, time.Now())
		if err != nil {
			return err
		}
		found(rec, raw)
	}
	return nil
}

func appendPiece(dst, piece []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(piece))), piece...)
}

// errBadPiece is a piece that can't be read, and its sender's fault.
var errBadPiece = identity.Errorf(identity.CodeMalformed, "a piece can't be read")

// readPiece reads a length-prefixed piece. The length is checked before
// anything is allocated.
func readPiece(r *bufio.Reader, limit int) ([]byte, error) {
	size := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		size |= int(b&0x7f) << shift
		if size > limit {
			return nil, identity.Errorf(identity.CodeTooLarge, "piece has %d bytes, limit %d", size, limit)
		}
		if b < 0x80 {
			break
		}
		if shift > 14 {
			return nil, errBadPiece
		}
	}
	piece := make([]byte, size)
	if _, err := io.ReadFull(r, piece); err != nil {
		return nil, err
	}
	return piece, nil
}

package cluster_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star/proxy"
)

// stream is one dial under load: the dialer sends chunks whose bytes are known, the
// callee answers each with one byte, and the next follows a little later.
type stream struct {
	t        testing.TB
	id       string
	from, to *testPeer
	passed   atomic.Int64 // bytes that the callee took
	broken   atomic.Pointer[string]

	mu   sync.Mutex // chunks leave in the order of their bytes
	sent int64
}

const (
	loadChunk = 8 << 10
	loadAhead = 4
	loadPause = 5 * time.Millisecond // so that leases are renewed on a busy machine, too
)

// load runs streams between peers.
type load struct {
	t  testing.TB
	mu sync.Mutex
	by map[string]*stream // by stream id
}

func newLoad(t testing.TB) *load { return &load{t: t, by: map[string]*stream{}} }

// watch makes a peer part of the load.
func (l *load) watch(p *testPeer) { p.onData = l.onData }

// run begins a stream from the peer at from to the one at to.
func (l *load) run(from *testPeer, fromAddr string, to *testPeer, toAddr, id string) *stream {
	l.t.Helper()
	s := &stream{t: l.t, id: id, from: from, to: to}
	l.mu.Lock()
	l.by[id] = s
	l.mu.Unlock()
	from.dial(fromAddr, toAddr, id)
	for range loadAhead {
		s.next()
	}
	return s
}

// pattern is what streams carry, again and again; no chunk is a whole number of it.
var pattern = func() []byte {
	b := make([]byte, patternSize+loadChunk)
	for i := range b {
		b[i] = byte(i % patternSize * 7)
	}
	return b
}()

const patternSize = 251

// patternAt gives n bytes of a stream.
func patternAt(at int64, n int) []byte { return pattern[at%patternSize:][:n] }

func (s *stream) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from.chunk(s.id+".dialer", patternAt(s.sent, loadChunk))
	s.sent += loadChunk
}

func (l *load) onData(p *testPeer, name string, data []byte) {
	id, side, _ := strings.Cut(name, ".")
	l.mu.Lock()
	s := l.by[id]
	l.mu.Unlock()
	if s == nil {
		return
	}
	if side == "listener" {
		time.AfterFunc(loadPause, func() {
			for range data {
				s.next()
			}
		})
		return
	}
	at := s.passed.Load()
	if !bytes.Equal(data, patternAt(at, len(data))) {
		text := fmt.Sprintf("of %d bytes at %d some are wrong", len(data), at)
		s.broken.CompareAndSwap(nil, &text)
		return
	}
	now := s.passed.Add(int64(len(data)))
	if n := int(now/loadChunk - at/loadChunk); n > 0 {
		p.chunk(s.id+".listener", make([]byte, n))
	}
}

// flows waits until more has come through, and says that nothing was wrong with it.
func (s *stream) flows() {
	s.t.Helper()
	before := s.passed.Load()
	eventually(s.t, "stream "+s.id+" goes on", func() bool {
		for _, p := range []*testPeer{s.to, s.from} {
			if end, ended := p.has(`["` + proxy.Error + s.id + "."); ended {
				s.t.Fatalf("stream %s ended with %s", s.id, end)
			}
		}
		s.right()
		return s.passed.Load() > before+2*loadChunk*loadAhead
	})
}

func (s *stream) right() {
	s.t.Helper()
	if wrong := s.broken.Load(); wrong != nil {
		s.t.Fatalf("stream %s: %s", s.id, *wrong)
	}
}

// endsAt waits until a peer heard that the stream ended, with an error.
func (s *stream) endsAt(p *testPeer, side, want string) {
	s.t.Helper()
	got := p.wait(`["` + proxy.Error + s.id + "." + side)
	if got != `["`+proxy.Error+s.id+"."+side+`","`+want+`"]` {
		s.t.Errorf("stream %s ended with %s, want %q", s.id, got, want)
	}
	s.right()
}

// goesOnOrFails says that a stream either flows or was ended with an error at both
// ends, and never went wrong silently.
func (s *stream) goesOnOrFails() (failed bool) {
	s.t.Helper()
	before := s.passed.Load()
	eventually(s.t, "stream "+s.id+" goes on or fails at both ends", func() bool {
		_, there := s.to.has(`["` + proxy.Error + s.id + `.dialer","`)
		_, here := s.from.has(`["` + proxy.Error + s.id + `.listener","`)
		failed = there && here
		s.right()
		return failed || !there && !here && s.passed.Load() > before+2*loadChunk*loadAhead
	})
	return failed
}

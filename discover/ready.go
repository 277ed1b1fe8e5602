package discover

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// Numbers of the ready list (gateway.md §6.3).
const (
	maxReady     = 1024
	readyFirst   = 5 * time.Second
	readyLast    = 5 * time.Minute
	readyDials   = 8 // at once
	readyTimeout = 40 * time.Second
	readyTag     = "parley-ready"
	readyValue   = 100
)

// ReadyList keeps connections to peers: it dials them, again after 5 seconds
// doubling to 5 minutes, and protects their connections. It has one goroutine while
// it is not empty. A page has one, and the node.
type ReadyList struct {
	// Static after construction.
	net   Connecter
	conns connmgr.ConnManager // nil protects nothing
	first time.Duration
	last  time.Duration

	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{} // capacity 1
	running sync.WaitGroup

	mu      sync.Mutex
	peers   map[identity.PeerID]*readyPeer
	started bool
	closed  bool
}

type readyPeer struct {
	next    time.Time
	wait    time.Duration
	dialing bool
}

// NewReadyList makes an empty list for one identity. conns is the node's
// connection manager.
func NewReadyList(net Connecter, conns connmgr.ConnManager) *ReadyList {
	return newReadyList(net, conns, readyFirst, readyLast)
}

func newReadyList(net Connecter, conns connmgr.ConnManager, first, last time.Duration) *ReadyList {
	l := &ReadyList{
		net: net, conns: conns, first: first, last: last,
		wake: make(chan struct{}, 1), peers: make(map[identity.PeerID]*readyPeer),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Add keeps connections to peers, at the given addresses too where there are
// any. It doesn't wait. Errors: CodeLimit over 1,024 peers, CodeClosed.
func (l *ReadyList) Add(id identity.PeerID, addrs []ma.Multiaddr) error {
	if len(addrs) > 0 {
		l.net.AddAddrs(id, addrs, peerstore.PermanentAddrTTL)
	}
	return l.add(id, time.Time{})
}

func (l *ReadyList) add(id identity.PeerID, first time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return identity.Errorf(identity.CodeClosed, "peer closed")
	}
	if _, ok := l.peers[id]; !ok {
		if len(l.peers) >= maxReady {
			return identity.Errorf(identity.CodeLimit, "the ready list has %d peers, limit %d", len(l.peers), maxReady)
		}
		l.peers[id] = &readyPeer{}
		if l.conns != nil {
			l.conns.Protect(id, readyTag)
			l.conns.TagPeer(id, readyTag, readyValue)
		}
	}
	l.peers[id].next, l.peers[id].wait = first, 0
	if !l.started {
		l.started = true
		l.running.Go(l.run)
	}
	l.poke()
	return nil
}

// Remove stops keeping connections to a peer; open ones stay.
func (l *ReadyList) Remove(id identity.PeerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.peers[id]; ok {
		delete(l.peers, id)
		l.release(id)
	}
}

func (l *ReadyList) release(id identity.PeerID) {
	if l.conns != nil {
		l.conns.Unprotect(id, readyTag)
		l.conns.UntagPeer(id, readyTag)
	}
}

// Again dials everybody at once who was dialled in vain: the network has changed.
func (l *ReadyList) Again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		if p.wait > 0 {
			p.next, p.wait = time.Time{}, 0
		}
	}
	l.poke()
}

// Peers lists who is kept.
func (l *ReadyList) Peers() []identity.PeerID {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]identity.PeerID, 0, len(l.peers))
	for id := range l.peers {
		out = append(out, id)
	}
	return out
}

// Close ends the list, and returns when its dials have ended.
func (l *ReadyList) Close() {
	l.mu.Lock()
	l.closed = true
	for id := range l.peers {
		l.release(id)
	}
	l.mu.Unlock()
	l.cancel()
	l.running.Wait()
}

func (l *ReadyList) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run dials who is due. It ends with the list, or when it is empty.
func (l *ReadyList) run() {
	stop := l.net.Notify(func(id identity.PeerID) {
		l.mu.Lock()
		_, ours := l.peers[id]
		l.mu.Unlock()
		if ours {
			l.poke()
		}
	})
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.wake:
		case <-l.ctx.Done():
			return
		}
		wait, any := l.dialDue(time.Now())
		if !any {
			return
		}
		timer.Reset(wait)
	}
}

// dialDue starts the dials that are due and says when to look again. Without
// peers it ends the goroutine.
func (l *ReadyList) dialDue(now time.Time) (wait time.Duration, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.peers) == 0 {
		l.started = false
		return 0, false
	}
	wait = l.last
	dialing := 0
	for _, p := range l.peers {
		if p.dialing {
			dialing++
		}
	}
	for id, p := range l.peers {
		switch {
		case p.dialing:
		case l.net.Connected(id):
			p.wait = 0 // when it goes, it is dialled at once, unless it came a moment ago
		case p.next.After(now):
			wait = min(wait, p.next.Sub(now))
		case dialing < readyDials:
			dialing++
			p.dialing = true
			l.running.Go(func() { l.dial(id, p) })
		}
	}
	return wait, true
}

func (l *ReadyList) dial(id identity.PeerID, p *readyPeer) {
	ctx, cancel := context.WithTimeout(l.ctx, readyTimeout)
	defer cancel()
	err := l.net.Connect(ctx, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	p.dialing = false
	p.wait = min(max(2*p.wait, l.first), l.last)
	p.next = time.Now().Add(p.wait)
	if err == nil {
		p.wait = 0
	}
	l.poke()
}

// keep is Add without starting over for a peer that is there already; a new one
// is dialled for the first time after some time.
func (l *ReadyList) keep(id identity.PeerID, after time.Duration) error {
	l.mu.Lock()
	_, ok := l.peers[id]
	l.mu.Unlock()
	if ok {
		return nil
	}
	return l.add(id, time.Now().Add(after))
}

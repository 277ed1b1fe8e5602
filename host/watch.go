package host

import (
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"github.com/parley-p2p/parley/identity"
)

// watch tells others that something about a peer changed. One goroutine makes
// all calls; what happens meanwhile is collected by peer, so a storm of events
// costs one call a peer.
type watch struct {
	sub      event.Subscription
	notifiee *libnet.NotifyBundle
	host     libhost.Host
	wake     chan struct{} // capacity 1
	stopped  chan struct{}
	done     sync.WaitGroup

	calling sync.Mutex // held during the calls

	mu      sync.Mutex
	next    int
	funcs   map[int]func(identity.PeerID)
	pending map[identity.PeerID]struct{}
	closed  bool
}

func newWatch(h libhost.Host) (*watch, error) {
	w := &watch{
		host: h, wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		funcs:   make(map[int]func(identity.PeerID)),
		pending: make(map[identity.PeerID]struct{}),
	}
	var err error
	w.sub, err = h.EventBus().Subscribe([]any{
		new(event.EvtPeerProtocolsUpdated),
		new(event.EvtPeerIdentificationCompleted),
	}, eventbus.Name("parley watch"), eventbus.BufSize(64))
	if err != nil {
		return nil, fmt.Errorf("watch peers: %w", err)
	}
	changed := func(_ libnet.Network, c libnet.Conn) { w.changed(c.RemotePeer()) }
	w.notifiee = &libnet.NotifyBundle{ConnectedF: changed, DisconnectedF: changed}
	h.Network().Notify(w.notifiee)
	w.done.Go(w.run)
	return w, nil
}

// changed notes that something about id changed. It never blocks.
func (w *watch) changed(id identity.PeerID) {
	w.mu.Lock()
	if len(w.funcs) > 0 && !w.closed {
		w.pending[id] = struct{}{}
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) add(f func(identity.PeerID)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	w.funcs[id] = f
	return func() {
		w.mu.Lock()
		delete(w.funcs, id)
		w.mu.Unlock()
		w.calling.Lock() // a round of calls that still has f ends first
		defer w.calling.Unlock()
	}
}

func (w *watch) run() {
	for {
		select {
		case e, ok := <-w.sub.Out():
			if !ok {
				return
			}
			switch e := e.(type) {
			case event.EvtPeerProtocolsUpdated:
				w.changed(e.Peer)
			case event.EvtPeerIdentificationCompleted:
				w.changed(e.Peer)
			}
		case <-w.wake:
			w.call()
		case <-w.stopped:
			return
		}
	}
}

func (w *watch) call() {
	w.calling.Lock()
	defer w.calling.Unlock()
	w.mu.Lock()
	pending := w.pending
	w.pending = make(map[identity.PeerID]struct{})
	funcs := make([]func(identity.PeerID), 0, len(w.funcs))
	for _, f := range w.funcs {
		funcs = append(funcs, f)
	}
	w.mu.Unlock()
	for id := range pending {
		for _, f := range funcs {
			f(id)
		}
	}
}

func (w *watch) close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	w.mu.Unlock()
	w.host.Network().StopNotify(w.notifiee)
	close(w.stopped)
	w.done.Wait()
	_ = w.sub.Close()
}

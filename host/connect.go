package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// connect dials a peer by what is known of it, and looks for more at the same
// time. It returns when there is a connection, or when everything that was
// known or found has failed.
//
//	known addresses ── dial ──────────────┐
//	                └─ 200 ms ─ find ──┐  ├─▶ connected, or the last error
//	found addresses ───────────────── dial┘
func (e *endpoint) connect(ctx context.Context, to identity.PeerID) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait() // both end with ctx
	defer cancel()

	e.addOwn(to)
	// Whoever calls has its own back-off; libp2p's would make a peer that came
	// back wait for up to five minutes.
	e.swarm.Backoff().Clear(to)

	dialed := make(chan error)
	dialing := 0
	dial := func() {
		dialing++
		running.Go(func() {
			_, err := e.swarm.DialPeer(ctx, to)
			select {
			case dialed <- err:
			case <-ctx.Done():
			}
		})
	}
	more := make(chan []ma.Multiaddr)
	over := make(chan error, 1)
	known := len(e.host.Peerstore().Addrs(to)) > 0
	finding := e.find(ctx, &running, to, known, more, over)
	if known {
		dial()
	}
	var failure error
	tried := known
	for finding || dialing > 0 {
		select {
		case err := <-dialed:
			dialing--
			if err == nil {
				return nil
			}
			e.tried.record(to, err)
			failure = err
		case addrs := <-more:
			if e.learn(to, addrs) {
				tried = true
				dial() // joins a dial under way, with the new addresses
			}
		case err := <-over:
			finding = false
			if failure == nil && err != nil {
				failure = err
			}
		case <-ctx.Done():
			return e.unanswered(to, ctx.Err())
		}
	}
	if failure == nil {
		failure = errNoAddresses
	}
	if !tried {
		e.tried.record(to, failure)
	}
	return failure
}

// unanswered is the error for addresses that were dialled until the caller's time
// was over. libp2p says nothing of them then.
func (e *endpoint) unanswered(to identity.PeerID, err error) error {
	addrs := e.host.Peerstore().Addrs(to)
	if len(addrs) == 0 || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	silent := &swarm.DialError{Peer: to}
	for _, a := range addrs {
		silent.DialErrors = append(silent.DialErrors, swarm.TransportError{Address: a, Cause: errNoAnswer})
	}
	e.tried.record(to, silent)
	return silent
}

var (
	errNoAddresses = errors.New("no addresses found")
	errNoAnswer    = errors.New("no answer in time")
)

// find starts the node's Finder, later when there is something to dial
// meanwhile. It reports whether there is one.
func (e *endpoint) find(ctx context.Context, running *sync.WaitGroup, to identity.PeerID,
	known bool, more chan<- []ma.Multiaddr, over chan<- error) bool {
	finder := e.node.finder()
	if finder == nil {
		return false
	}
	running.Go(func() {
		if known {
			wait := time.NewTimer(findDelay)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-ctx.Done():
				return
			}
		}
		over <- finder.Find(ctx, to, func(addrs []ma.Multiaddr) {
			select {
			case more <- addrs:
			case <-ctx.Done():
			}
		})
	})
	return true
}

// learn stores what was found and reports whether any of it is new.
func (e *endpoint) learn(to identity.PeerID, addrs []ma.Multiaddr) bool {
	before := e.host.Peerstore().Addrs(to)
	isNew := false
	for _, a := range addrs {
		if !ma.Contains(before, a) {
			isNew = true
		}
	}
	e.host.Peerstore().AddAddrs(to, addrs, peerstore.TempAddrTTL)
	return isNew
}

// addOwn makes sure that the own node and its pages are always found.
func (e *endpoint) addOwn(to identity.PeerID) {
	ps := e.host.Peerstore()
	page := e.node.page(to)
	switch {
	case to == e.node.host.ID():
		ps.AddAddrs(to, e.node.host.Addrs(), peerstore.TempAddrTTL)
	case page == nil:
	case e.host == e.node.host:
		ps.AddAddrs(to, page.bare.directAddrs(), peerstore.TempAddrTTL)
	default:
		ps.SetAddrs(to, ps.Addrs(to), 0)
		ps.AddAddr(to, e.node.circuitBase(), peerstore.TempAddrTTL)
	}
}

package host

import (
	"context"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/parley-p2p/parley/identity"
)

// Bounds of the pings that keep round trips fresh.
const (
	pingFresh   = 5 * time.Second // no second ping within
	pingTimeout = 5 * time.Second
	maxPinging  = 8   // at once
	maxTimed    = 512 // peers whose round trip is remembered
)

// roundTrips are the round trips to the peers that somebody asks about: one
// ping each time, at most every few seconds, while the answer is what the last
// one found. Nobody asks, nothing is sent.
type roundTrips struct {
	mu      sync.Mutex
	peers   map[identity.PeerID]timed
	pinging int
}

type timed struct {
	asked time.Time
	took  time.Duration // 0: not known yet
}

// roundTrip gives what is known of the round trip to a connected peer, and has
// it measured again. It doesn't wait.
func (e *endpoint) roundTrip(id identity.PeerID) time.Duration {
	r := &e.trips
	r.mu.Lock()
	known := r.peers[id]
	due := time.Since(known.asked) >= pingFresh && r.pinging < maxPinging
	if due {
		r.note(id, timed{time.Now(), known.took})
		r.pinging++
	}
	r.mu.Unlock()
	if due && !e.measure(id) {
		r.over()
	}
	if known.took > 0 {
		return known.took
	}
	return e.host.Peerstore().LatencyEWMA(id) // of the choice of protocols, one round trip each
}

// measure pings in the background; false when the endpoint has closed.
func (e *endpoint) measure(id identity.PeerID) bool {
	if !e.enter() {
		return false
	}
	go func() {
		defer e.serving.Done()
		defer e.trips.over()
		ctx, cancel := context.WithTimeout(libnet.WithNoDial(libnet.WithAllowLimitedConn(e.ctx, "ping"), "connected before"), pingTimeout)
		defer cancel()
		if res, answered := <-ping.Ping(ctx, e.host, id); answered && res.Error == nil { // not answered: in no time either
			e.trips.mu.Lock()
			defer e.trips.mu.Unlock()
			e.trips.note(id, timed{time.Now(), max(res.RTT, time.Microsecond)})
		}
	}()
	return true
}

// note remembers one, and forgets another where there are too many. Called with
// mu.
func (r *roundTrips) note(id identity.PeerID, t timed) {
	if r.peers == nil {
		r.peers = make(map[identity.PeerID]timed)
	}
	if _, known := r.peers[id]; !known && len(r.peers) >= maxTimed {
		for other := range r.peers {
			delete(r.peers, other)
			break
		}
	}
	r.peers[id] = t
}

func (r *roundTrips) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pinging--
}

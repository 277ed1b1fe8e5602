package peer

import (
	"crypto/sha256"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// What the reference's framing needs against duplicates (gateway.md §5.3): the
// ids of the messages taken from each remote.
const (
	seenIDs     = 4096             // of one remote
	seenFor     = 10 * time.Minute // after it was taken
	seenRemotes = 64               // at once; the one that is quiet for longest goes
)

// seen remembers ids, as hashes: a remote may choose them long.
type seen struct {
	remotes map[identity.PeerID]*seenRemote
}

type seenRemote struct {
	last  time.Time
	when  map[idHash]time.Time
	order deque[idHash] // oldest first
}

type idHash [16]byte

func hashID(id string) idHash {
	sum := sha256.Sum256([]byte(id))
	return idHash(sum[:16])
}

// has reports whether id was taken from remote not long ago.
func (s *seen) has(remote identity.PeerID, id string, now time.Time) bool {
	r := s.remotes[remote]
	if r == nil {
		return false
	}
	at, ok := r.when[hashID(id)]
	return ok && now.Sub(at) < seenFor
}

// add remembers that id was taken.
func (s *seen) add(remote identity.PeerID, id string, now time.Time) {
	r := s.remotes[remote]
	if r == nil {
		r = s.make(remote)
	}
	r.last = now
	for r.order.len() > 0 && (r.order.len() >= seenIDs || now.Sub(r.when[r.order.at(0)]) >= seenFor) {
		delete(r.when, r.order.pop())
	}
	h := hashID(id)
	if _, again := r.when[h]; !again {
		r.order.push(h)
	}
	r.when[h] = now
}

func (s *seen) make(remote identity.PeerID) *seenRemote {
	if s.remotes == nil {
		s.remotes = make(map[identity.PeerID]*seenRemote)
	}
	if len(s.remotes) >= seenRemotes {
		var quiet identity.PeerID
		for id, r := range s.remotes {
			if have := s.remotes[quiet]; have == nil || r.last.Before(have.last) {
				quiet = id
			}
		}
		delete(s.remotes, quiet)
	}
	r := &seenRemote{when: make(map[idHash]time.Time)}
	s.remotes[remote] = r
	return r
}

// sweep forgets remotes that have been quiet for long.
func (s *seen) sweep(now time.Time) {
	for id, r := range s.remotes {
		if now.Sub(r.last) >= seenFor {
			delete(s.remotes, id)
		}
	}
}

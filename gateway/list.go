package gateway

import (
	"time"

	"github.com/parley-p2p/parley/identity"
)

// SessionInfo is a session for people to look at. It holds no secret.
type SessionInfo struct {
	Number    uint64          // counts sessions since the start; the log has it too
	Peer      identity.PeerID // empty until the page has one
	Version   int             // of the protocol: 1 or 2
	Origin    string          // empty for a program
	Connected bool            // false while a lost socket has its grace
	Since     time.Time
	Protocols int
	Topics    int
	Channels  int
	Pending   int    // requests and sends without an answer
	Unsettled int    // messages that the page has and has not settled
	Queued    int    // bytes that wait for the page
	Lost      uint64 // publications dropped and not yet told
}

// List gives up to most sessions, in no order. It locks each of them shortly.
func (g *Gateway) List(most int) []SessionInfo {
	g.mu.Lock()
	sessions := make([]*session, 0, min(len(g.sessions), most))
	for s := range g.sessions {
		if len(sessions) == most {
			break
		}
		sessions = append(sessions, s)
	}
	g.mu.Unlock()
	list := make([]SessionInfo, len(sessions))
	for i, s := range sessions {
		list[i] = s.info()
	}
	return list
}

func (s *session) info() SessionInfo {
	info := SessionInfo{Number: s.number, Version: s.version, Origin: s.visitor.Origin, Since: s.since, Queued: s.queue.Bytes()}
	if s.spaces != nil {
		info.Channels = s.spaces.Count()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peer != nil {
		info.Peer = s.peer.Key().PeerID()
	}
	info.Connected = s.link != nil
	info.Protocols, info.Topics = len(s.protocols), len(s.topics)
	info.Pending, info.Unsettled = len(s.pending), len(s.unsettled)
	for _, n := range s.lost {
		info.Lost += n
	}
	return info
}

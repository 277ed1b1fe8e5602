package topic

import "sync/atomic"

// counters are a node's own counts; see Stats.
type counters struct {
	published, delivered, failed, unsent, notJSON, unlisted, refused, unheard, late, replayed atomic.Uint64
}

// Stats are counts since the node was made, and what is in use now.
type Stats struct {
	Topics  int // in use on this node
	Members int // pages of other nodes that presence tells of, a topic each
	Links   int // nodes that presence is exchanged with

	Published uint64 // publications of this node's pages
	Delivered uint64 // publications handed to sessions
	Sent      uint64 // publications queued to other peers, forwarded ones included
	Late      uint64 // publications passed on behind a later one of the same publisher

	// Dropped counts lost publications by reason, and members and records that
	// were not taken. The reasons of rejected ones are GossipSub's.
	Dropped map[string]uint64
}

// Reasons in Stats.Dropped, beside the router's.
const (
	DropNobody   = "nobody in the topic"     // published, kept for 30 s, and nobody joined
	DropNotJSON  = "not JSON"                // came from a peer that isn't parley's kind
	DropFailed   = "router failed"           // the router refused an own publication
	DropUnlisted = "too many members"        // members above MaxMembers
	DropReplayed = "heard before"            // an old message that came again
	DropRecord   = "presence record refused" // broken, expired, or over a limit
	DropUnheard  = "presence not heard"      // a stream of a node that is refused for a while
)

// OfPresence reports whether a reason in Stats.Dropped is about members, and not
// about publications.
func OfPresence(reason string) bool {
	return reason == DropUnlisted || reason == DropRecord || reason == DropUnheard
}

// Stats gives a snapshot.
func (n *Node) Stats() Stats {
	sent, dropped := n.router.meter.snapshot()
	for reason, count := range map[string]uint64{
		DropNobody: n.counts.unsent.Load(), DropNotJSON: n.counts.notJSON.Load(), DropFailed: n.counts.failed.Load(),
		DropUnlisted: n.counts.unlisted.Load(), DropRecord: n.counts.refused.Load(),
		DropReplayed: n.counts.replayed.Load(), DropUnheard: n.counts.unheard.Load(),
	} {
		if count > 0 {
			dropped[reason] = count
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Stats{Topics: len(n.rooms), Links: len(n.told.links), Sent: sent, Dropped: dropped,
		Published: n.counts.published.Load(), Delivered: n.counts.delivered.Load(), Late: n.counts.late.Load()}
	for _, l := range n.told.links {
		s.Members += l.claims
	}
	return s
}

package peer

import "sync/atomic"

// Stats is a snapshot of a node's messages. Counts grow from the node's start;
// Peers to QueuedBytes are as of now.
type Stats struct {
	Peers         int
	Conversations int // outgoing, with something unsettled or a stream
	Streams       int // incoming message streams
	Remembered    int // incoming epochs that are remembered, with or without a stream
	QueuedBytes   int // unsettled, in all outboxes

	Sent           uint64 // messages that were put into an outbox
	Delivered      uint64 // settled at level delivered
	Handled        uint64 // settled at level handled, replies among them
	Refused        uint64 // settled by a refusal of the other side
	Timeouts       uint64 // given up: unreachable, not started or timed out
	QueueFull      uint64 // not taken: an outbox was full
	Received       uint64 // messages that a page took
	Duplicates     uint64 // dropped as taken before
	Resent         uint64 // put on the way once more after a lost stream
	Streamed       uint64 // streams opened to others
	BadFrames      uint64 // streams reset because of what came
	RefusedStreams uint64 // streams refused: rate, number, or a refused remote
	RefusedRemotes uint64 // times that a remote was refused for a while
}

type counters struct {
	sent, delivered, handled, refused, timeouts, queueFull atomic.Uint64
	received, duplicates, resent, streamed                 atomic.Uint64
	badFrames, refusedStreams, refusedRemotes              atomic.Uint64
}

// Stats gives a snapshot. It takes each peer's lock once.
func (n *Node) Stats() Stats {
	c := &n.count
	s := Stats{
		Sent: c.sent.Load(), Delivered: c.delivered.Load(), Handled: c.handled.Load(),
		Refused: c.refused.Load(), Timeouts: c.timeouts.Load(), QueueFull: c.queueFull.Load(),
		Received: c.received.Load(), Duplicates: c.duplicates.Load(), Resent: c.resent.Load(),
		Streamed: c.streamed.Load(), BadFrames: c.badFrames.Load(),
		RefusedStreams: c.refusedStreams.Load(), RefusedRemotes: c.refusedRemotes.Load(),
	}
	for _, p := range n.list() {
		p.mu.Lock()
		s.Peers++
		s.Conversations += len(p.conversations)
		s.Streams += p.streams
		s.Remembered += len(p.inboxes)
		s.QueuedBytes += p.bytes
		p.mu.Unlock()
	}
	return s
}

// Package peer carries messages by (peer, protocol) between pages, on this node
// and others.
//
//	node := peer.New(peer.Config{})
//	p, err := node.Add(net)           // the peer of one key; net is its network.Network
//	m := p.Join(receiver)             // a session that shares it
//	m.Start("/chat/1")                // takes what is sent to (p, "/chat/1")
//	cancel, err := m.Send(network.Outgoing{To: bob, Protocol: "/chat/1", …})
//
// What is sent to one (peer, protocol) is a conversation: in order, each message
// once, acknowledged, bounded in bytes. Across nodes it runs over one long-lived
// stream each way; between peers of one node the stream is left out, the rules
// are not:
//
//	Send → conversation ── writer ── stream ──▶ inbox → Receiver
//	 Done ←─ settles ◀─── acks ◀──────────────── ack writer ◀─ Handled
//
// A conversation exists while something in it is unsettled or its stream is
// open, and so do its goroutines; afterwards nothing of it is left.
//
// Sources: docs/spec/gateway.md §2.6, §2.7, §5.2–5.5, §6.4, §12;
// docs/protocols/message.md has the bytes.
package peer

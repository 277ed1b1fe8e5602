// Package channel joins named agents in named spaces: many channels on one
// connection between two nodes, each with its own flow control, made in no round
// trip, and through a relay that can't read them where no direct path leads
// (docs/spec/channels.md).
//
//	member, err := node.Space("chess").Join(ctx, key)     // key signs for the agent
//	ch, err := member.Open(ctx, bob, "moves/1")           // (space, me) → (space, bob)
//	err = ch.Send(ctx, []byte("e4"))                      // returns when flow control took it
//
//	listener, err := member.Listen("moves/1")             // the other side
//	ch, err := listener.Accept(ctx)                       // ch.Info().Remote is proven
//
// A channel is used by message (Send, Receive) or as a stream (Write, Read).
// Where the two agents are on one node it runs inside the process, by the same
// rules. The package knows no libp2p: connections come from a network.Network, or
// from any ordered byte stream by Serve.
package channel

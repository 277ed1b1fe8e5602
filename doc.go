// Package parley gives web pages peers instead of a server: it puts the parts
// of a node together and runs them.
//
//	cfg := parley.DefaultConfig()
//	cfg.Site, err = parley.OpenSite("my-site")
//	node, err := parley.New(cfg)       // builds, listens, starts nothing
//	err = node.Run(ctx)                // lives until ctx ends or the last page left
//
// A program that embeds a node has peers of its own beside those of pages:
//
//	p, err := node.Peer(ctx, key)      // while the node runs
//	level, err := p.Send(ctx, bob, "chat", parley.Text("hello"), parley.Handled)
//
// How a message goes: gateway (or Peer) → holder → peer.Member → host.Page → the
// network, and up again on the other side. backend.go makes what is below a
// holder; parts.go says what each part is told.
//
// Sources: docs/DESIGN.md; docs/spec/gateway.md sections 8 to 10.
package parley

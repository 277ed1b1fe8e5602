// Package topic publishes and subscribes over GossipSub and tells who is
// present. Source: docs/spec/gateway.md sections 2.4, 2.5, 6.1, 6.2 and 6.4;
// what nodes tell each other is docs/protocols/presence.md.
//
// A node has one GossipSub router for all its pages. A topic in use is a room:
//
//	Page.Publish ──▶ turn ──▶ room queue ──▶ room loop ──▶ Sink of every session here
//	                  │                        ▲
//	                  ▼                        │ in the publisher's order
//	                router ◀── GossipSub ──▶ subscription
//	                  │
//	               kept, while nobody is there yet
//
//	presence: node A ══ "these pages of mine are in room T" ══▶ node B   (one stream each way)
//
// A room's loop is the only one that touches its members and calls its sinks,
// so a session sees publications and presence in one order, and a sink may take
// any lock it likes. Publications of one room take turns, so a room's messages
// leave in one order; those of the own node's pages never come back through the
// router.
//
//	router, err := topic.NewRouter(ctx, libp2pHost)
//	node := topic.New(router, nodeNetwork, topic.Config{})
//	go node.Run(ctx)
//	page := node.Join(key, session)
//	members, err := page.Subscribe(ctx, "room", nil)
//	err = page.Publish(ctx, "room", network.Content{Type: network.JSON, Data: []byte(`"hi"`)})
package topic

// Package star is a rendezvous server: peers connect to it by WebSocket, prove who
// they are, see each other's addresses, and have streams proxied between them. It
// speaks the protocol of libp2p-websocket-star, so that programs of that time work
// unchanged, and holds what the original does not (docs/spec/star.md, S-1 to S-17).
//
//	        star/transport (a libp2p transport)      npm clients
//	                        │                            │
//	star/socketio ──▶ session ──▶ join.go    ss-join, challenges, proofs
//	                        ├───▶ roster.go  who is where, epochs
//	                        ├───▶ announce.go  ws-peer, parley.peers: O(changes)
//	                        └───▶ star/proxy  dials, chunks, back-pressure
//
//	srv, err := star.New(star.Options{Port: 9090})
//	err = srv.Run(ctx)                     // drains when ctx ends
//
// A server has no global state: many run in one process, each with its own
// metrics.
package star

// Package host implements network.Network over libp2p: one full host a node,
// and a bare host for each of its pages.
//
//	           page a ─┐ bare hosts: own key, own TCP and QUIC sockets,
//	           page b ─┤ identify, ping, and nothing else
//	                   │
//	node ── full host ─┴─ every transport, DHT, GossipSub, port mapping, hole
//	                      punching, relay client, relay service (if wanted)
//
// The node is a circuit relay (v2) for its own pages. Whoever reaches the node,
// by whatever path, asks it for a circuit to the page; the node hands the
// stream itself to the page's host, which runs the handshake on it: encrypted
// to the page, not limited, nothing copied (docs/decisions/0014-page-link.md). Pages
// dial circuits through the node's connections in the same way, and pages of
// one node meet over a pipe in memory. So whatever path the two nodes have, the
// pages have.
//
//	page a ─ stream of node A's connection to node B ─ page b
//
// Sources: DESIGN.md ("Once a node, not once a page"), gateway.md §5.1, §9.
package host

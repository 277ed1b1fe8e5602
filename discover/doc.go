// Package discover finds out who is out there, and where.
//
//	same machine   a file an instance in the user's runtime folder: nodes of one
//	               user meet even without multicast
//	LAN            mDNS
//	anywhere       the DHT: nodes by id, pages by their node, topics by rendezvous
//	stars          members of star servers; connections to few, the others are asked
//	by hand        addresses from --connect and addPeers, dialled and kept
//
// It finds nodes, and lets them meet. A page is found by asking nodes: "where is
// page X?", answered by a record that X has signed (docs/protocols/page.md).
//
//	Find(X) ─┬─ what is known
//	         ├─ the nodes we are connected to, and some on our stars ── /parley/pages/1.0.0
//	         └─ the DHT ── nodes that say they have X ── /parley/pages/1.0.0
//
// Nothing on start waits for the network. Sources: gateway.md §6.3, §10.
package discover

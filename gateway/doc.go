// Package gateway serves pages over WebSocket: one session a page, in protocol
// v1 (JSON, compatible with existing pages) or v2 (CBOR, resumable).
//
//	page ══ WebSocket ══ policy ── session ── codec v1 | v2 ── Peer (Backend)
//	                     Host, Origin, token
//
// Source: docs/spec/gateway.md sections 2 to 4 and client/PROTOCOL.md. The
// package does no networking between peers: what a session may do it declares
// as Backend and Peer.
//
//	access   who may talk to the node: Host, Origin, token
//	socket   the seam to the WebSocket library
//	link     one socket while it serves a session: reader, writer, keep-alive
//	v1, v2   the codecs, pure
//	spaces   a page's part in spaces, and its channels
//
// Here is what is between: the sessions. Two goroutines serve a socket, and no
// other lives as long as a session; a v2 session without a socket has none, but
// for its channels: two each, and one a protocol whose channels it takes.
package gateway

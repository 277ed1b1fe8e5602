// Package ws frames one WebSocket connection after RFC 6455, at either end, with
// the buffers in the caller's hand: that is what docs/spec/star.md S-4 and S-17
// ask for, and what docs/decisions/0015-star-websocket.md measures.
//
//	net.Conn ──▶ Conn.Read ──▶ Message ─── small: lies in the read buffer, until the next Read
//	                                  └── large: a Buf of its own, which the caller may keep
//	net.Conn ◀── Batch.Flush ◀── Batch.Add: headers and small payloads joined, large ones as they are
//
// An idle Conn holds no buffer: Read waits for bytes first and borrows one then.
// Conn has no goroutine, and a lock for Tire and Interrupt alone. One goroutine reads
// and one writes; control frames are given to the reader, who answers them through
// the writer.
//
// Extensions are neither offered nor accepted, subprotocols neither.
package ws

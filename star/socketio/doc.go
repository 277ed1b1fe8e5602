// Package socketio speaks Engine.IO revision 3 and Socket.IO revision 4 (library
// 2.x), at both ends, on the root namespace: what docs/spec/star.md §3 and §4
// name, so that programs of that time work unchanged.
//
//	page, program ──▶ GET /socket.io/?EIO=3&transport=polling     polling.go
//	              ──▶ GET /socket.io/?EIO=3&transport=websocket   websocket.go
//	                      │
//	                   Socket: packets ▶ messages ▶ Handler.Event          (receive.go)
//	                           Send ▶ flow.Queue ▶ frames, or the next poll (send.go)
//
// A Socket is one connection. What arrives is given to the Handler in order, one
// event at a time, and the connection is not read while the Handler works: that
// is how a slow reader slows its sender. What is sent waits in one queue with two
// classes; Send never blocks, and who sends much bounds it by receipts.
//
// The codecs are in socketio/wire, the frames of WebSocket in socketio/ws.
package socketio

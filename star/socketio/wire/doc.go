// Package wire has the pure codecs of Engine.IO revision 3 and Socket.IO
// revision 4 (library 2.x), only the part that docs/spec/star.md §3 and §4
// names. Nothing here talks, waits or keeps state.
//
//	"4" "2" "0" ["ss-join","/ip4/…","0800…"]
//	 │   │   │   └ JSON array: the event's name, then its arguments
//	 │   │   └──── ack id: an answer is wanted
//	 │   └──────── Socket.IO type: EVENT
//	 └──────────── Engine.IO type: message
//
// On a WebSocket one text frame is one packet and a binary frame is 0x04 and the
// bytes. In a polling body packets follow each other with their lengths
// (payload.go). Every decoder checks its limits before it allocates and none
// recurses.
package wire

// Package transport is the go-libp2p transport for star addresses: the client of
// a rendezvous server (docs/spec/star.md §5 to §8, §10). Two nodes behind anything
// meet on a star and run Noise and a muxer over it; what they say then is an
// ordinary libp2p connection, which the star carries and can't read.
//
//	libp2p ── Dial, Listen ──▶ Transport
//	                             ├─ star: one a server; connects, joins, comes back
//	                             │    └─ session: one connection of Socket.IO
//	                             │         └─ Conn: one dial, two one-way streams
//	                             └─ book: who was seen there ──▶ Options.Found
//
//	t, err := transport.New(key, transport.Options{Found: remember})
//	h, err := libp2p.New(libp2p.Identity(key), libp2p.Transport(t.Attach), …)
//	err = h.Network().Listen(ma.StringCast("/dns4/star.example/tcp/443/wss/p2p-websocket-star"))
//
// The star is believed nothing: who dialled and who is there are claims, which
// the handshake proves or not; a dead, slow or lying star harms nothing but what
// goes through it. Listen returns at once and t.Addrs lists the addresses that are
// joined now, for the host's address factory: they come and go with the stars.
//
// A star has one goroutine of its own and those of its socket; Close waits for
// all. Nothing here waits without an end, and every table and buffer is bounded
// (Limits).
package transport

// Package proxy carries the streams of a star (docs/spec/star.md §5, §6.4, §6.5,
// S-1, S-3, S-4, S-11, S-14, S-17): a dial asks one socket for another, and then
// two one-way streams run through the server.
//
//	dialer ── queue.D.dialer ───▶ half ── queue.D.dialer ───▶ callee
//	dialer ◀── queue.D.listener ─ half ◀── queue.D.listener ─ callee
//
// A chunk stays in the buffer it was read into. A half holds what its reader has
// not accepted, or gives no credit for; the rest waits in the reader's socket. All
// of it is bounded: by the half's window, by the reader's budget, and by the
// server. Who sends more is not read, until there is room or the reader has taken
// nothing for so long that the stream is ended.
//
// An Engine has all dials; a Side is one socket's part in them. The calls of a
// Side come from its socket's receive path. Nothing here has a goroutine; Sweep is
// to be called every second.
package proxy

//go:build race

package socketio

// smallStack is the most that a reader's stack takes while it rests: 4 KiB, since
// the race detector needs some, and what the pieces of the heap add.
const smallStack = 5 << 10

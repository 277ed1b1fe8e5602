//go:build !race

package socketio

// smallStack is the most that a reader's stack takes while it rests: 2 KiB, and what
// the pieces of the heap add.
const smallStack = 3 << 10

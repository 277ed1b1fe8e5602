// Package flow has every queue and limit of parley: a byte-bounded queue in
// two classes, a credit window, token buckets, and who is refused for a while.
//
// A queue stands between a reader of one connection and the writer of another:
//
//	reader ── Push (waits) ──▶ ┌ control ┐
//	       ── TryPush ───────▶ │  bulk   │ ── Pop (a batch) ──▶ writer
//	       ── PushDroppable ─▶ └─────────┘
//
// The policy is chosen by the push, not by the queue: wait for room and so slow
// the sender (Push), refuse (TryPush), drop the oldest of what may be lost
// (PushDroppable), or, for answers whose number is bounded elsewhere, always
// take (PushAlways). The writer takes what is there and flushes when nothing is
// left, which batches without a timer.
package flow

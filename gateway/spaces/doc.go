// Package spaces is a page's part in spaces: which it has joined, what it listens
// to there, and its channels, each between the page's frames and a Channel.
//
//	page ── content ──▶ queue, as large as the credit given ──▶ Channel.Send      takes, so credit is given
//	page ◀── content ── credit given by the page ◀── Channel.Receive
//
// Source: client/PROTOCOL.md, Channels, and docs/spec/channels.md §17. The
// package knows no package channel: what a page may do there it declares as Room,
// Listener and Channel, which the root implements.
package spaces

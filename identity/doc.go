// Package identity holds the words for who is who: keys, peer ids, agent ids,
// signed records and the error codes that every edge of parley shares.
//
// One ed25519 key is one party everywhere. The same key is
//
//	a libp2p peer id   12D3KooW…             messages: (peer, protocol)
//	an agent id        its raw 32 bytes      channels: (space, agent)
//
// Sources: gateway.md §2.7 (keys of pages), channels.md §5 (agents).
package identity

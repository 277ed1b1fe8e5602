// Package peertest has networks for tests: one in memory, and one of real
// go-libp2p hosts on a simulated wire.
//
//	c := peertest.New()                      // in memory: streams are pipes
//	a, b := c.Host(keyA), c.Host(keyB)       // each is a network.Network
//	c.Cut(a.Local(), b.Local())              // streams reset, opening fails
//	c.Block(a.Local(), b.Local())            // nothing passes, nothing fails
//	c.Heal(a.Local(), b.Local())
//
// Both run inside a testing/synctest bubble: time is virtual there, so a
// partition of 30 s takes no time and no test sleeps.
package peertest

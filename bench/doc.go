// Package main measures parley beside its floor in one run and writes
// docs/benchmarks.md:
//
//	make bench                 everything
//	make bench ARGS=latency    one part: latency, rate, topic, pages, start
//
// It starts real parley processes, drives them with pages written in Go, and
// measures a bare WebSocket echo and a bare libp2p stream between them. A figure
// is a median of several rounds; the ratio to the floor is what counts, since
// the machine's speed drifts. It is a module of its own so that what only
// comparisons need never enters parley's.
package main

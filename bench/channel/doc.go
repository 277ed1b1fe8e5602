// Package main measures channels beside three stream multiplexers on one
// machine, and prints each figure beside the target of docs/spec/channels.md §18:
//
//	cd bench && go run ./channel                   all, into docs/benchmarks.md
//	cd bench && go run ./channel -report "" bulk   one part, printed only
//
// All run over one TCP connection on loopback. The rounds of the multiplexers
// take turns, so that a slow moment of the machine meets all of them.
package main

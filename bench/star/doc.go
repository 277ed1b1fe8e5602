// Package main measures parley's star server beside the original one, in the same
// run and with the same load, and writes the section "star" of
// docs/benchmarks.md:
//
//	cd bench && go run ./star                  all rows of docs/spec/star.md §14
//	cd bench && go run ./star messages joins   some parts, to the terminal alone
//
// Server and load share the machine, so rates depend on whatever else runs; the
// server's CPU time per unit does so least and is what counts. Each figure is the
// median of several short runs. Both servers speak over the wire with the same
// client; signatures of joins are made beforehand, for nonces that both servers
// are told to use. Without node or npm parley's server is measured alone.
package main

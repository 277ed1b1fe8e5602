// Package lab has no program: its tests run parley's own in a lab of network
// namespaces (internal/labtest), behind routers, firewalls and NATs, and drive
// its pages over their WebSockets. They run on Linux, as root or where user
// namespaces are allowed, with iproute2 and nftables.
//
//	go test ./tests/lab                          all of it, as make test does
//	PARLEY_LAB_VERBOSE=1 go test -run … ./tests/lab     what the nodes of a failed test have logged
package lab

// Package lab has no program: its tests run parley's own in a lab of network
// namespaces (internal/labtest), behind routers, firewalls and NATs, and drive
// its pages over their WebSockets. They run on Linux, as root or where user
// namespaces are allowed, with iproute2 and nftables.
//
//	go test ./tests/lab                 the short ones, which make test runs
//	PARLEY_LONG=1 go test -tags long -timeout 30m ./tests/lab
package lab

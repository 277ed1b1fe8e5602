// Package portmap has the router of the machine lead ports in: the way in that
// most home routers offer to programs behind them. It asks the gateway of the
// machine's IPv4 network, and nobody else, by NAT-PMP (RFC 6886) and by UPnP
// (Internet Gateway Device 1 and 2), keeps what it gets for as long as it lives,
// and gives it back at the end.
//
//	k := portmap.New(portmap.Config{Changed: announceAgain})
//	k.Want([]portmap.Port{{TCP, netip.MustParseAddrPort("0.0.0.0:4001")}})
//	outside, ok := k.Outside(port) // 203.0.113.7:4001
//	err := k.Close()               // removes the mappings
//
//	default route ──> gateway ─┬─ NAT-PMP? ──┐
//	                           └─ UPnP? ─────┴──> map, again every 20 s … ──> remove
//
// Whoever is the gateway may answer anything or nothing: every answer has a limit
// and every wait an end. libp2p's own port mapping (v0.51.0) is not used:
// docs/decisions/0018-port-mapping.md says why.
package portmap

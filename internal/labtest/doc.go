//go:build linux

// Package labtest makes a lab of network namespaces for tests: hosts, routers
// with and without NAT, firewalls, and a public network between them, in which
// real programs run.
//
//	relay ──┐                       ┌── router "home" (Cone) ──┬── alice
//	        ├── the public network ─┤                          └── ann
//	bob ────┘                       └── router "office" (Symmetric) ── carol
//
//	lab := labtest.New(t)
//	relay := lab.Public("relay")
//	alice := lab.Router("home", labtest.Cone).Host("alice")
//	alice.Start(exec.Command("parley", …))
//
// Nothing leads out of the lab: its public addresses are public for what runs
// there alone. A namespace lives as long as this process has it open, and a
// program that was started here ends with the process, so nothing is left
// behind, however a test ends. It takes ip and nft (iproute2, nftables) and root,
// or a user namespace, which Main makes.
package labtest

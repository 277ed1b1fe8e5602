// Package parley gives web pages peers instead of a server: it puts the parts
// of a node together and runs them.
//
//	cfg := parley.DefaultConfig()
//	cfg.Site, err = parley.OpenSite("my-site")
//	node, err := parley.New(cfg)       // builds, listens, starts nothing
//	err = node.Run(ctx)                // lives until ctx ends or the last page left
//
// Sources: docs/DESIGN.md; docs/spec/gateway.md sections 8 to 10.
package parley

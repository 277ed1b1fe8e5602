// Command parley serves a page and gives it peers.
//
//	parley                     the demo
//	parley serve my-site/      a site of your own
//	parley star                a meeting point for peers
//	parley token my-site/      what programs send as Authorization: Bearer
//
// It turns flags into a parley.Config and runs it; one file a command.
package main

import (
	"os"

	"github.com/parley-p2p/parley"
)

func main() {
	a := &app{
		out: os.Stdout, err: os.Stderr, env: os.Environ(),
		start: startNode,
		open:  openBrowser,
	}
	os.Exit(a.run(os.Args[1:]))
}

func startNode(cfg parley.Config) (node, error) {
	cfg.OwnsProcess = true
	return parley.New(cfg)
}

package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"github.com/parley-p2p/parley"
	"github.com/parley-p2p/parley/bench/page"
)

// inside is a node in this very process, as B's echoes are: what is measured
// then is parley, and not what the system takes to wake another process.
type inside struct {
	url   string // http://127.0.0.1:PORT
	stop  context.CancelFunc
	ended chan error
}

// startInside runs a node like start does, but here.
func (e *environment) startInside(ctx context.Context) (*inside, error) {
	e.nodes++
	if err := os.Setenv("XDG_RUNTIME_DIR", e.dir); err != nil {
		return nil, err
	}
	cfg := parley.DefaultConfig()
	cfg.Server.Port, cfg.Gateway.Auth = 0, "none"
	cfg.Node.Data = filepath.Join(e.dir, "data-"+strconv.Itoa(e.nodes))
	cfg.P2P.MDNS, cfg.P2P.DHT = false, false
	cfg.P2P.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	started := make(chan parley.Started, 1)
	cfg.Ready = func(s parley.Started) { started <- s }
	n, err := parley.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	in := &inside{stop: stop, ended: make(chan error, 1)}
	go func() { in.ended <- n.Run(ctx) }()
	select {
	case s := <-started:
		in.url = s.URL
		return in, nil
	case err := <-in.ended:
		stop()
		return nil, err
	}
}

func (in *inside) close() {
	in.stop()
	<-in.ended
}

// pairInside is a pair of two nodes, all of it in this process.
func (e *environment) pairInside(ctx context.Context) (*pair, error) {
	p := &pair{}
	for side := range 2 {
		n, err := e.startInside(ctx)
		if err != nil {
			return p, err
		}
		p.inside = append(p.inside, n)
		at, err := dialPage(ctx, n.url)
		if err != nil {
			return p, err
		}
		*[]**page.Page{&p.a, &p.b}[side] = at
	}
	return p, p.meet(ctx)
}

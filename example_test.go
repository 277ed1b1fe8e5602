package parley_test

import (
	"context"
	"fmt"
	"os"

	"github.com/parley-p2p/parley"
	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
)

// Two peers of one program on one node: one answers what the other asks.
func Example() {
	dir, err := os.MkdirTemp("", "parley-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	cfg := parley.DefaultConfig()
	cfg.Server.Port = 0 // any free one
	cfg.Node.Data = dir
	cfg.P2P.MDNS, cfg.P2P.DHT = false, false // an example meets nobody
	cfg.P2P.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	node, err := parley.New(cfg)
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()

	alice, bob := peer(ctx, node), peer(ctx, node)
	err = bob.Handle("greet", func(_ context.Context, m parley.Message) (*parley.Content, error) {
		answer := parley.Text("hello, whoever you are")
		return &answer, nil
	})
	if err != nil {
		panic(err)
	}
	answer, err := alice.Request(ctx, bob.ID(), "greet", parley.Text("hi"))
	fmt.Println(string(answer.Data), err)

	stop()
	fmt.Println(<-ended)
	// Output:
	// "hello, whoever you are" <nil>
	// <nil>
}

func peer(ctx context.Context, node *parley.Node) *parley.Peer {
	key, err := identity.NewKey()
	if err != nil {
		panic(err)
	}
	p, err := node.Peer(ctx, key)
	if err != nil {
		panic(err)
	}
	return p
}

// Two agents of one space open a channel to each other. Here they are on one
// node; on two, which may be anywhere, the calls are the same.
func ExampleNode_Space() {
	dir, err := os.MkdirTemp("", "parley-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	cfg := parley.DefaultConfig()
	cfg.Server.Port = 0
	cfg.Node.Data = dir
	cfg.P2P.MDNS, cfg.P2P.DHT = false, false
	cfg.P2P.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	node, err := parley.New(cfg)
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()

	alice, bob := member(ctx, node), member(ctx, node)
	listener, err := bob.Listen("moves/1")
	if err != nil {
		panic(err)
	}
	out, err := alice.Open(ctx, bob.Agent(), "moves/1")
	if err != nil {
		panic(err)
	}
	if err := out.Send(ctx, []byte("e4")); err != nil {
		panic(err)
	}
	in, err := listener.Accept(ctx)
	if err != nil {
		panic(err)
	}
	move, err := in.Receive(ctx)
	fmt.Println(string(move), err, in.Info().Remote == alice.Agent(), in.Info().Verified)

	stop()
	fmt.Println(<-ended)
	// Output:
	// e4 <nil> true true
	// <nil>
}

func member(ctx context.Context, node *parley.Node) channel.Member {
	key, err := identity.NewKey()
	if err != nil {
		panic(err)
	}
	m, err := node.Space("chess").Join(ctx, key)
	if err != nil {
		panic(err)
	}
	return m
}

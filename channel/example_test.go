package channel_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
)

// Two agents on two nodes talk in a space. The nodes' own keys are the agents
// here, so they find each other as peers.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	cluster := peertest.New() // in a program: the network of a parley node
	alice, bob := mustKey(1), mustKey(2)
	a, stopA := mustRun(ctx, cluster, alice)
	b, stopB := mustRun(ctx, cluster, bob)

	room, err := b.Space("chess").Join(ctx, bob)
	check(err)
	games, err := room.Listen("moves/1")
	check(err)

	mine, err := a.Space("chess").Join(ctx, alice)
	check(err)
	ch, err := mine.Open(ctx, bob.Agent(), "moves/1")
	check(err)
	check(ch.Send(ctx, []byte("e4")))
	check(ch.Close())

	game, err := games.Accept(ctx)
	check(err)
	fmt.Println("verified:", game.Info().Verified, "alice:", game.Info().Remote == alice.Agent())
	for {
		move, err := game.Receive(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		fmt.Println("move:", string(move))
	}
	cancel()
	stopA()
	stopB()
	cluster.Close()
	// Output:
	// verified: true alice: true
	// move: e4
}

func mustRun(ctx context.Context, cluster *peertest.Cluster, key identity.Key) (*channel.Node, func()) {
	node, err := channel.New(channel.Config{Network: cluster.Host(key)})
	check(err)
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	return node, func() { check(<-done) }
}

func mustKey(seed byte) identity.Key {
	key, err := identity.KeyFromSeed([32]byte{seed})
	check(err)
	return key
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

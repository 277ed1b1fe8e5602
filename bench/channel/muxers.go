package main

import (
	"context"
	"errors"
	"io"
	"net"

	hashicorp "github.com/hashicorp/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2p "github.com/libp2p/go-yamux/v5"
	"github.com/xtaci/smux"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// muxer is a pair of multiplexed ends: what one opens the other accepts.
type muxer struct {
	name   string
	open   func() (io.ReadWriteCloser, error)
	accept func() (io.ReadWriteCloser, error)
	close  func()
}

// tcpPair is a TCP connection on loopback.
func tcpPair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	dialed := make(chan error, 1)
	go func() {
		var err error
		a, err = net.Dial("tcp", l.Addr().String())
		dialed <- err
	}()
	b, err = l.Accept()
	return a, b, errors.Join(err, <-dialed)
}

func muxers(ctx context.Context) ([]*muxer, error) {
	var out []*muxer
	for _, f := range []func(context.Context) (*muxer, error){
		func(ctx context.Context) (*muxer, error) { return newParley(ctx, false) },
		func(ctx context.Context) (*muxer, error) { return newParley(ctx, true) },
		newHashicorp, newLibp2p, newSmux,
	} {
		m, err := f(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func newHashicorp(context.Context) (*muxer, error) {
	a, b, err := tcpPair()
	if err != nil {
		return nil, err
	}
	cfg := hashicorp.DefaultConfig()
	cfg.LogOutput = io.Discard
	client, err := hashicorp.Client(a, cfg)
	if err != nil {
		return nil, err
	}
	server, err := hashicorp.Server(b, cfg)
	if err != nil {
		return nil, err
	}
	return &muxer{
		name:   "hashicorp/yamux",
		open:   func() (io.ReadWriteCloser, error) { return client.Open() },
		accept: func() (io.ReadWriteCloser, error) { return server.Accept() },
		close:  func() { client.Close(); server.Close() },
	}, nil
}

func newLibp2p(ctx context.Context) (*muxer, error) {
	a, b, err := tcpPair()
	if err != nil {
		return nil, err
	}
	cfg := libp2p.DefaultConfig()
	cfg.LogOutput = io.Discard
	client, err := libp2p.Client(a, cfg, nil)
	if err != nil {
		return nil, err
	}
	server, err := libp2p.Server(b, cfg, nil)
	if err != nil {
		return nil, err
	}
	return &muxer{
		name:   "libp2p/go-yamux",
		open:   func() (io.ReadWriteCloser, error) { return client.OpenStream(ctx) },
		accept: func() (io.ReadWriteCloser, error) { return server.AcceptStream() },
		close:  func() { client.Close(); server.Close() },
	}, nil
}

func newSmux(context.Context) (*muxer, error) {
	a, b, err := tcpPair()
	if err != nil {
		return nil, err
	}
	cfg := smux.DefaultConfig()
	cfg.Version = 2
	client, err := smux.Client(a, cfg)
	if err != nil {
		return nil, err
	}
	server, err := smux.Server(b, cfg)
	if err != nil {
		return nil, err
	}
	return &muxer{
		name:   "xtaci/smux",
		open:   func() (io.ReadWriteCloser, error) { return client.OpenStream() },
		accept: func() (io.ReadWriteCloser, error) { return server.AcceptStream() },
		close:  func() { client.Close(); server.Close() },
	}, nil
}

// wide are limits that let a benchmark open as many channels as it likes.
var wide = channel.Limits{Channels: 200_000, CreateRate: 1e9, CreateBurst: 1e9, ErrorRate: 1e9, Backlog: 200_000, Members: 200_000,
	Connections: 100_000, PerAddress: 100_000}

// end is a parley node with one agent, which is its own key.
type end struct {
	key    identity.Key
	node   *channel.Node
	member channel.Member
}

func newEnd(ctx context.Context, limits channel.Limits, locator channel.Locator) (*end, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	node, err := channel.New(channel.Config{Network: lonely{key.PeerID()}, Key: key, Limits: limits, Locator: locator})
	if err != nil {
		return nil, err
	}
	go func() { _ = node.Run(ctx) }()
	member, err := node.Space("bench").Join(ctx, key)
	return &end{key: key, node: node, member: member}, err
}

// lonely is a network without anybody: connections are made by hand.
type lonely struct{ id identity.PeerID }

func (l lonely) Local() identity.PeerID { return l.id }

func (lonely) Open(context.Context, identity.PeerID, ...network.Protocol) (network.Stream, error) {
	return nil, identity.Errorf(identity.CodeUnreachable, "no network")
}

func (lonely) Handle(network.Protocol, network.Handler) (remove func()) { return func() {} }

// secured makes a TCP connection as libp2p does, with its Noise handshake.
func secured(ctx context.Context, a, b *end) (x, y net.Conn, err error) {
	ca, cb, err := tcpPair()
	if err != nil {
		return nil, nil, err
	}
	ta, err := noise.New(noise.ID, a.key.Libp2p(), nil)
	if err != nil {
		return nil, nil, err
	}
	tb, err := noise.New(noise.ID, b.key.Libp2p(), nil)
	if err != nil {
		return nil, nil, err
	}
	accepted := make(chan error, 1)
	go func() {
		var err error
		y, err = tb.SecureInbound(ctx, cb, a.key.PeerID())
		accepted <- err
	}()
	x, err = ta.SecureOutbound(ctx, ca, b.key.PeerID())
	return x, y, errors.Join(err, <-accepted)
}

// connect makes a connection of two nodes over TCP. Unproven, neither end knows
// for sure who the other is, as with the other multiplexers.
func connect(ctx context.Context, a, b *end, proven bool) error {
	ca, cb, err := tcpPair()
	if err != nil {
		return err
	}
	return serve(ctx, a, b, ca, cb, proven)
}

func connectSecured(ctx context.Context, a, b *end) error {
	ca, cb, err := secured(ctx, a, b)
	if err != nil {
		return err
	}
	return serve(ctx, a, b, ca, cb, true)
}

func serve(ctx context.Context, a, b *end, ca, cb net.Conn, proven bool) error {
	x := channel.Carrier{Stream: ca, Dialer: true, Claimed: b.key.PeerID(), Address: "a"}
	y := channel.Carrier{Stream: cb, Claimed: a.key.PeerID(), Address: "b"}
	if proven {
		x.Local, x.Remote = a.key.PeerID(), b.key.PeerID()
		y.Local, y.Remote = b.key.PeerID(), a.key.PeerID()
	}
	go func() { _ = a.node.Serve(ctx, x) }()
	go func() { _ = b.node.Serve(ctx, y) }()
	// The dialled connection is there once a channel opens.
	for a.node.Metrics().Connections.Current == 0 || b.node.Metrics().Connections.Current == 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func newParley(ctx context.Context, proven bool) (*muxer, error) {
	ctx, cancel := context.WithCancel(ctx)
	a, err := newEnd(ctx, wide, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	b, err := newEnd(ctx, wide, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	if err := connect(ctx, a, b, proven); err != nil {
		cancel()
		return nil, err
	}
	l, err := b.member.Listen("x", channel.AllowUnverified())
	if err != nil {
		cancel()
		return nil, err
	}
	m := &muxer{name: "parley, unproven ends", close: cancel,
		accept: func() (io.ReadWriteCloser, error) { return l.Accept(ctx) }}
	opts := []channel.OpenOption{channel.Optimistic()} // as the others: no round trip to open
	if proven {
		m.name, opts = "parley, agents proven", nil
	}
	m.open = func() (io.ReadWriteCloser, error) { return a.member.Open(ctx, b.member.Agent(), "x", opts...) }
	return m, nil
}

package startest

import (
	"context"
	"net"
	"sync"
)

// Net is a network of pipes, so that a bubble of testing/synctest has all of it.
// It is the listener of one server.
type Net struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewNet makes a network.
func NewNet() *Net { return &Net{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept gives the server's end of the next connection.
func (n *Net) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial.
func (n *Net) Close() error { n.once.Do(func() { close(n.done) }); return nil }

// Addr is an address without meaning.
func (n *Net) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }

// Dial gives the client's end of a new connection.
func (n *Net) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case n.conns <- b:
		return a, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

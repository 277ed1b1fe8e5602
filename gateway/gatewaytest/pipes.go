package gatewaytest

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Pipes is a listener in memory, for tests in a synctest bubble. A write waits
// until the other side reads.
type Pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipes makes one.
func NewPipes() *Pipes { return &Pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (p *Pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *Pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr implements net.Listener.
func (p *Pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10000} }

// Dial connects.
func (p *Pipes) Dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Client is an http.Client that connects through p. Wrap, when not nil, gets
// each connection.
func (p *Pipes) Client(wrap func(net.Conn) net.Conn) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			c, err := p.Dial()
			if err == nil && wrap != nil {
				c = wrap(c)
			}
			return c, err
		}}}
}

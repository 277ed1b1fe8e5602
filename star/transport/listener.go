package transport

import (
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// listener gives incoming connections of one star, before the handshake.
type listener struct {
	t       *Transport
	star    *star
	arrived chan *Conn
	done    chan struct{}
	closing sync.Once
}

var _ transport.GatedMaListener = (*listener)(nil)

func newListener(t *Transport, s *star) *listener {
	return &listener{t: t, star: s, arrived: make(chan *Conn, t.opts.Limits.Backlog), done: make(chan struct{})}
}

// offer hands over an incoming connection; false where too many wait. It never
// blocks. The caller makes sure that the listener is the star's: a closed one isn't.
func (l *listener) offer(c *Conn) bool {
	select {
	case l.arrived <- c:
		return true
	default:
		return false
	}
}

// Accept passes over what the gater or the resource manager refuse.
func (l *listener) Accept() (manet.Conn, network.ConnManagementScope, error) {
	for {
		select {
		case c := <-l.arrived:
			if l.t.gater != nil && !l.t.gater.InterceptAccept(c) {
				_ = c.Reset()
				continue
			}
			scope, err := l.t.limits.OpenConnection(network.DirInbound, false, l.t.scope)
			if err != nil {
				_ = c.Reset()
				continue
			}
			return c, scope, nil
		case <-l.done:
			return nil, nil, transport.ErrListenerClosed
		}
	}
}

// Close ends listening: the address is announced no more, and the star is left when
// its connections have ended.
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.t.mu.Lock()
		if l.star.listener == l {
			l.star.listener = nil // from now on nothing is offered
		}
		l.star.lastUse = l.star.lastUse.Add(-l.t.opts.Times.OnDemand) // nobody needs it for a dial
		l.t.mu.Unlock()
		close(l.done)
		signal(l.star.look)
		l.t.changed()
		for {
			select {
			case c := <-l.arrived:
				_ = c.Reset()
			default:
				return
			}
		}
	})
	return nil
}

// Addr is the own address on the star.
func (l *listener) Addr() net.Addr { return netAddr(l.star.own) }

// Multiaddr is not the star's address, which libp2p would announce whatever its
// state is, and ask others to dial by its own means.
func (l *listener) Multiaddr() ma.Multiaddr { return bareAddr() }

// bareAddr is the protocol alone.
func bareAddr() ma.Multiaddr { return ma.StringCast("/" + protocolName) }

// provenListener gives the connections whose handshake proved who the star said it
// was.
type provenListener struct{ transport.Listener }

// Accept closes the others.
func (l provenListener) Accept() (transport.CapableConn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if claim, ok := claimOf(c); ok && claim == c.RemotePeer() {
			return c, nil
		}
		_ = c.Close()
	}
}

func claimOf(c transport.CapableConn) (peer.ID, bool) {
	stat, ok := c.(network.ConnStat)
	if !ok {
		return "", false
	}
	id, ok := stat.Stat().Extra[claimKey{}].(peer.ID)
	return id, ok
}

package transport_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/transport"
)

// line is a way to the stars that can be cut as a network is: nothing arrives any more,
// and nobody is told.
type line struct {
	w     *world
	mu    sync.Mutex
	cut   bool
	gone  []net.Conn // closed while it was cut: the other end has not heard
	heals chan struct{}
}

func (l *line) isCut() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut, l.heals
}

func (l *line) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.heals = true, make(chan struct{})
}

func (l *line) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		l.cut = false
		close(l.heals)
	}
	for _, c := range l.gone {
		_ = c.Close()
	}
	l.gone = nil
}

func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if cut, heals := l.isCut(); cut {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-heals:
		}
	}
	c, err := l.w.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lineConn{c, l}, nil
}

type lineConn struct {
	net.Conn
	l *line
}

func (c *lineConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if cut, _ := c.l.isCut(); !cut || err != nil {
			return n, err
		}
	}
}

func (c *lineConn) Write(b []byte) (int, error) {
	if cut, _ := c.l.isCut(); cut {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *lineConn) Close() error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if !c.l.cut {
		return c.Conn.Close()
	}
	c.l.gone = append(c.l.gone, c.Conn)
	return c.SetReadDeadline(time.Unix(1, 0))
}

// Abuse row 41 on a star: a partition of a minute. Both sides notice by their
// heartbeats, nothing is announced that isn't there, and all comes back by itself.
func TestPartition(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		l := &line{w: w}
		w.atEnd(l.heal)
		a, b := w.node(transport.Options{Dialer: l.dial}).listen(w, where), w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there := a.connect(w, b, where)
		echo(t, here, there, "before")
		l.sever()
		began := time.Now()
		a.lost()
		if took := time.Since(began); took > 46*time.Second { // 25 s to the next ping, 20 s for its answer
			t.Errorf("noticed after %v", took)
		}
		pause(time.Second) // the muxer hears of it on its own
		if _, err := here.OpenStream(t.Context()); err == nil {
			t.Error("a connection outlived the partition here")
		}
		pause(time.Minute)
		if _, err := there.OpenStream(t.Context()); err == nil {
			t.Error("a connection outlived the partition there")
		}
		if st := b.Status()[0]; st.Streams != 0 || st.State != transport.Joined {
			t.Errorf("the other side: %+v", st)
		}
		l.heal()
		a.state(where, transport.Joined)
		here, there = b.connect(w, a, where)
		echo(t, here, there, "after")
	})
}

// A partition shorter than a heartbeat harms nothing but for the bytes that TCP itself
// would send again; one that begins within a dial ends it in time.
func TestPartitionWithinADial(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		l := &line{w: w}
		w.atEnd(l.heal)
		a, b := w.node(transport.Options{Dialer: l.dial}).listen(w, where), w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		l.sever()
		began := time.Now()
		_, err := a.Dial(t.Context(), ma.StringCast(where), b.id)
		if took := time.Since(began); !errors.Is(err, transport.ErrDialTimedOut) || took != 15*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		l.heal()
	})
}

// A star that shuts down lets connections finish; the address is announced no more at
// once, and the node goes on where the star is again.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		srv := w.star("star.test:80", star.Options{Drain: 30 * time.Second})
		a, b := w.node(transport.Options{}).listen(w, where), w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there := a.connect(w, b, where)
		began, stopped := time.Now(), make(chan struct{})
		go func() { defer close(stopped); srv.stop() }()
		a.state(where, transport.Waiting)
		if len(a.Addrs()) != 0 {
			t.Error("still advertised")
		}
		if _, err := a.Dial(t.Context(), ma.StringCast(where), b.id); err == nil {
			t.Error("dialled over a star that shuts down")
		}
		pause(10 * time.Second)
		echo(t, here, there, "what runs may finish")
		if st := a.Status()[0]; st.Streams != 1 {
			t.Errorf("%+v", st)
		}
		_ = here.Close()
		<-stopped
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the star ended after %v: nobody was there any more", took)
		}
		w.star("star.test:80", star.Options{})
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there = a.connect(w, b, where)
		echo(t, here, there, "on the next one")
	})
}

// S-8: a second connection with the same key takes the address. The first is told, and
// what runs over it runs on; the address never has two owners.
func TestS_8_AddressIsTakenOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		srv := w.star("star.test:80", star.Options{})
		key := newKey(t)
		a, b := w.nodeWith(key, transport.Options{}).listen(w, where), w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there := a.connect(w, b, where)
		again := w.nodeWith(key, transport.Options{}).listen(w, where)
		again.state(where, transport.Joined)
		if st := a.state(where, transport.Refused); !strings.Contains(st.Error.Error(), "another connection") {
			t.Errorf("told: %v", st.Error)
		}
		echo(t, here, there, "what runs, runs on")
		if n := len(srv.Members()); n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

// One of three stars ends while the node is in use: what goes over the others doesn't
// notice, and dials over them work.
func TestAbuse39_OneOfThreeStarsEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var at []string
		var servers []*runningStar
		for _, name := range []string{"one.test", "two.test", "three.test"} {
			servers = append(servers, w.star(name+":80", star.Options{}))
			at = append(at, strings.Replace(where, "star.test", name, 1))
		}
		a, b := w.node(transport.Options{}), w.node(transport.Options{})
		for _, s := range at {
			a.listen(w, s)
			b.listen(w, s)
		}
		for _, s := range at {
			a.state(s, transport.Joined)
			b.state(s, transport.Joined)
		}
		first, firstThere := a.connect(w, b, at[0])
		second, secondThere := a.connect(w, b, at[1])
		echo(t, first, firstThere, "over the first")
		servers[0].stop()
		a.state(at[0], transport.Waiting)
		pause(time.Second) // the muxer hears of it on its own
		if _, err := first.OpenStream(t.Context()); err == nil {
			t.Error("a connection outlived its star")
		}
		for range 10 {
			pause(time.Minute)
			echo(t, second, secondThere, strings.Repeat("over the second", 10_000))
		}
		third, thirdThere := a.connect(w, b, at[2])
		echo(t, third, thirdThere, "over the third")
		var left []string
		for _, addr := range a.Addrs() {
			left = append(left, addr.String())
		}
		if slices.Sort(left); !slices.Equal(left, []string{at[2], at[1]}) {
			t.Errorf("advertised: %v", left)
		}
		began := time.Now()
		if _, err := a.Dial(t.Context(), ma.StringCast(at[0]), b.id); err == nil || time.Since(began) > 15*time.Second {
			t.Errorf("a dial over the dead star took %v: %v", time.Since(began), err)
		}
	})
}

// Changes of what is joined are told, so that a host announces it at once.
func TestChangedIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		srv := w.star("star.test:80", star.Options{})
		told := make(chan struct{}, 1000)
		a := w.node(transport.Options{Changed: func() { told <- struct{}{} }}).listen(w, where)
		for len(a.Addrs()) == 0 {
			<-told
		}
		srv.stop()
		for len(a.Addrs()) != 0 {
			<-told
		}
		w.star("star.test:80", star.Options{})
		for len(a.Addrs()) == 0 {
			<-told
		}
		_ = a.listener.Close()
		for len(a.Addrs()) != 0 {
			<-told
		}
	})
}

// gate lets some connections through.
type gate struct {
	connmgr.ConnectionGater
	accept  bool    // those that come
	secured peer.ID // the one that must not
}

func (g gate) InterceptAccept(network.ConnMultiaddrs) bool { return g.accept }

func (g gate) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return id != g.secured
}

func (gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// The host's connection gater and resource manager decide over connections on stars as
// over all others.
func TestGaterAndLimitsApply(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a := w.node(transport.Options{}).listen(w, where)
		closed := w.nodeGated(newKey(t), transport.Options{}, nil, gate{}).listen(w, where)
		picky := w.nodeGated(newKey(t), transport.Options{}, nil, gate{accept: true, secured: a.id}).listen(w, where)
		full := w.nodeGated(newKey(t), transport.Options{}, &noConnections{}, nil).listen(w, where)
		for _, n := range []*node{a, closed, picky, full} {
			n.state(where, transport.Joined)
		}
		for name, n := range map[string]*node{"accept": closed, "secured": picky, "limits": full} {
			if c, err := a.Dial(t.Context(), ma.StringCast(where), n.id); err == nil {
				// The handshake may end here before the other side has said no.
				if _, err := c.AcceptStream(); err == nil {
					t.Errorf("%s: a stream over a connection that was refused", name)
				}
			}
			if len(n.conns) != 0 {
				t.Errorf("%s: it came in", name)
			}
		}
		if _, err := full.Dial(t.Context(), ma.StringCast(where), a.id); !errors.Is(err, network.ErrResourceLimitExceeded) {
			t.Errorf("a dial without room: %v", err)
		}
		other := w.node(transport.Options{}).listen(w, where)
		other.state(where, transport.Joined)
		here, there := other.connect(w, picky, where)
		echo(t, here, there, "others get through")
	})
}

// noConnections has room for none.
type noConnections struct{ network.NullResourceManager }

func (*noConnections) OpenConnection(network.Direction, bool, ma.Multiaddr) (network.ConnManagementScope, error) {
	return nil, network.ErrResourceLimitExceeded
}

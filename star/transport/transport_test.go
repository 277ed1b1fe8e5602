package transport_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/transport"
)

// Two nodes of any key types join, see each other, and talk both ways over Noise
// and yamux.
func TestTwoNodesTalk(t *testing.T) {
	for _, kind := range []string{"Ed25519", "RSA", "secp256k1"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.star("star.test:80", star.Options{})
				a := w.nodeWith(keyOf(t, kind), transport.Options{}).listen(w, where)
				b := w.node(transport.Options{}).listen(w, where)
				a.state(where, transport.Joined)
				b.state(where, transport.Joined)
				here, there := a.connect(w, b, where)
				echo(t, here, there, "one way")
				echo(t, there, here, strings.Repeat("and back ", 100_000))
				if here.RemotePeer() != b.id || there.RemotePeer() != a.id {
					t.Errorf("remote peers %s, %s", here.RemotePeer(), there.RemotePeer())
				}
				if got := here.RemoteMultiaddr().String(); got != where {
					t.Errorf("remote address %s", got)
				}
				if !here.(network.ConnStat).Stat().Limited {
					t.Error("not limited, with a budget")
				}
			})
		})
	}
}

// CanDial is true for exactly the strict shapes, and no other transport's addresses.
func TestCanDial(t *testing.T) {
	w := newWorld(t)
	n := w.node(transport.Options{})
	id := "/p2p/" + n.id.String()
	for text, want := range map[string]bool{
		"/dns4/star.test/tcp/443/wss/p2p-websocket-star":                       true,
		"/dns4/star.test/tcp/443/wss/p2p-websocket-star" + id:                  true,
		"/dns4/star.test/wss/p2p-websocket-star":                               true,
		"/dns/star.test/ws/p2p-websocket-star" + id:                            true,
		"/dns6/star.test/tcp/80/ws/p2p-websocket-star":                         true,
		"/dnsaddr/star.test/tcp/80/ws/p2p-websocket-star":                      true,
		"/ip4/127.0.0.1/tcp/9090/ws/p2p-websocket-star" + id:                   true,
		"/ip6/::1/tcp/9090/ws/p2p-websocket-star":                              true,
		"/ip4/127.0.0.1/ws/p2p-websocket-star":                                 false,
		"/ip4/127.0.0.1/tcp/9090/p2p-websocket-star":                           false,
		"/ip4/127.0.0.1/udp/9090/ws/p2p-websocket-star":                        false,
		"/p2p-websocket-star":                                                  false,
		"/ip4/127.0.0.1/tcp/9090/ws":                                           false,
		"/dns4/star.test/tcp/443/wss/p2p-websocket-star/p2p-circuit":           false,
		"/dns4/star.test/tcp/443/wss/p2p-websocket-star" + id + "/p2p-circuit": false,
		"/ip4/127.0.0.1/tcp/1":                                                 false,
	} {
		if got := n.CanDial(ma.StringCast(text)); got != want {
			t.Errorf("CanDial(%s) is %v", text, got)
		}
	}
	if n.CanDial(nil) {
		t.Error("CanDial(nil) is true")
	}
	if !n.SkipResolve(t.Context(), nil) || !n.Proxy() || len(n.Protocols()) != 1 || n.Protocols()[0] != 479 {
		t.Error("not what libp2p needs to know")
	}
}

// What can't be listened on or dialled is refused before anything is sent.
func TestBadAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(transport.Options{}), w.node(transport.Options{})
		for text, code := range map[string]identity.Code{
			"/ip4/127.0.0.1/tcp/1":          identity.CodeMalformed,
			where + "/p2p/" + b.id.String(): identity.CodeMalformed, // of another
		} {
			if _, err := a.Listen(ma.StringCast(text)); identity.CodeOf(err) != code {
				t.Errorf("Listen(%s): %v", text, err)
			}
		}
		a.listen(w, where+"/p2p/"+a.id.String())
		if _, err := a.Listen(ma.StringCast(where)); identity.CodeOf(err) != identity.CodeAlreadyStarted {
			t.Errorf("listening twice: %v", err)
		}
		if _, err := a.Dial(t.Context(), ma.StringCast("/ip4/127.0.0.1/tcp/1"), b.id); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("Dial: %v", err)
		}
		if _, err := a.Dial(t.Context(), ma.StringCast(where+"/p2p/"+a.id.String()), b.id); identity.CodeOf(err) != identity.CodeMalformed {
			t.Errorf("Dial with another id: %v", err)
		}
	})
}

// The address is advertised only while joined, and the node comes back after a
// restart of the star, with a fresh challenge.
func TestAbuse39_StarRestarts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		first := w.star("star.test:80", star.Options{})
		a, b := w.node(transport.Options{}).listen(w, where), w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		if len(a.Addrs()) != 1 {
			t.Fatalf("joined and not advertised: %v", a.Addrs())
		}
		here, there := a.connect(w, b, where)
		echo(t, here, there, "before")
		first.stop()
		st := a.state(where, transport.Waiting)
		if st.Error == nil || len(a.Addrs()) != 0 {
			t.Errorf("lost: %+v, still advertised: %v", st, a.Addrs())
		}
		pause(time.Second) // the muxer hears of it on its own
		if _, err := here.OpenStream(t.Context()); err == nil {
			t.Error("a connection over a star that is gone still works")
		}
		pause(5 * time.Minute)
		w.star("star.test:80", star.Options{})
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there = b.connect(w, a, where)
		echo(t, here, there, "after")
	})
}

// Dead, silent and refusing stars beside a good one: start isn't delayed, the good
// one works, the others say what is wrong.
func TestOneGoodStarAmongBadOnes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		w.star("open.test:80", star.Options{OpenJoins: true})
		open, dead := strings.Replace(where, "star.test", "open.test", 1), strings.Replace(where, "star.test", "dead.test", 1)
		began := time.Now()
		a := w.node(transport.Options{}).listen(w, dead).listen(w, open).listen(w, where)
		b := w.node(transport.Options{}).listen(w, dead).listen(w, where)
		if took := time.Since(began); took != 0 {
			t.Errorf("listening took %v", took)
		}
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		if took := time.Since(began); took > time.Second {
			t.Errorf("joining the good one took %v", took)
		}
		here, there := a.connect(w, b, where)
		echo(t, here, there, "works")
		if st := a.state(dead, transport.Waiting); identity.CodeOf(st.Error) != identity.CodeUnreachable {
			t.Errorf("dead star: %v", st.Error)
		}
		if st := a.state(open, transport.Refused); !strings.Contains(st.Error.Error(), "no proof") {
			t.Errorf("open star: %v", st.Error)
		}
		began = time.Now()
		if _, err := a.Dial(t.Context(), ma.StringCast(dead), b.id); identity.CodeOf(err) != identity.CodeUnreachable {
			t.Errorf("dial over a dead star: %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a dial over a dead star took %v", took)
		}
	})
}

// An open star is joined where the operator allows it.
func TestOpenStarWhereAllowed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{OpenJoins: true})
		o := transport.Options{Star: func(string) transport.StarOptions { return transport.StarOptions{AllowOpen: true} }}
		a, b := w.node(o).listen(w, where), w.node(o).listen(w, where)
		a.state(where, transport.Joined)
		b.state(where, transport.Joined)
		here, there := a.connect(w, b, where)
		echo(t, here, there, "hello")
		if here.(network.ConnStat).Stat().Limited {
			t.Error("limited without a budget")
		}
	})
}

// A node that listens nowhere joins for a dial, and leaves when nobody needs it.
func TestJoinOnDemand(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		srv := w.star("star.test:80", star.Options{})
		a, b := w.node(transport.Options{}), w.node(transport.Options{}).listen(w, where)
		b.state(where, transport.Joined)
		here, there := a.connect(w, b, where)
		echo(t, here, there, "hello")
		if len(a.Addrs()) != 0 {
			t.Errorf("advertised: %v", a.Addrs())
		}
		if st := a.Status(); len(st) != 1 || !st[0].OnDemand || st[0].Streams != 1 {
			t.Errorf("status: %+v", st)
		}
		if _, err := b.Dial(t.Context(), ma.StringCast(where), a.id); !errors.Is(err, transport.ErrDialRefused) {
			t.Errorf("dialling one that doesn't listen: %v", err)
		}
		pause(3 * time.Minute)
		echo(t, here, there, "as long as it is used")
		_ = here.Close()
		pause(50 * time.Second)
		if n := len(srv.Members()); n != 2 {
			t.Errorf("%d members", n)
		}
		pause(20 * time.Second)
		if n := len(srv.Members()); n != 1 || len(a.Status()) != 0 {
			t.Errorf("%d members, %+v", n, a.Status())
		}
		here, there = a.connect(w, b, where)
		echo(t, here, there, "again")
	})
}

// Whoever answers at an address must have its key: here a node is dialled by another's
// id over a star that lies.
func TestDialErrors(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a, stranger := w.node(transport.Options{}).listen(w, where), w.node(transport.Options{})
		a.state(where, transport.Joined)
		if _, err := a.Dial(t.Context(), ma.StringCast(where), stranger.id); !errors.Is(err, transport.ErrPeerNotFound) {
			t.Errorf("a peer that isn't there: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Dial(ctx, ma.StringCast(where), stranger.id); err == nil {
			t.Error("a dial without a context that lives")
		}
	})
}

// Listening again with the same transport works, and the address is left meanwhile.
func TestListenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		srv := w.star("star.test:80", star.Options{})
		a := w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		_ = a.listener.Close()
		pause(time.Second)
		if n := len(srv.Members()); n != 0 || len(a.Addrs()) != 0 {
			t.Fatalf("%d members, advertised %v", n, a.Addrs())
		}
		a.listen(w, where)
		a.state(where, transport.Joined)
	})
}

// The members of a star are told of with a life, not too often, and when they leave.
func TestDiscoveryFeed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.star("star.test:80", star.Options{})
		a := w.node(transport.Options{}).listen(w, where)
		a.state(where, transport.Joined)
		b := w.node(transport.Options{}).listen(w, where)
		if life := a.seen(b.id); life < time.Minute {
			t.Errorf("life %v", life)
		}
		if life := b.seen(a.id); life < time.Minute { // from the list of the join
			t.Errorf("life %v", life)
		}
		told := a.told.Load()
		pause(10 * time.Minute)
		if n := a.told.Load() - told; n == 0 || n > 60 {
			t.Errorf("told %d times in ten minutes", n)
		}
		_ = b.listener.Close()
		pause(time.Second)
		a.mu.Lock()
		_, there := a.found[b.id]
		a.mu.Unlock()
		if there {
			t.Error("still found after it has left")
		}
		if st := a.Status()[0]; st.Members != 0 || !st.Extended || st.RTT < 0 {
			t.Errorf("status: %+v", st)
		}
	})
}

package host

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestPagesReachEachOther(t *testing.T) {
	direct, unreachable := loopback(), loopback()
	unreachable.PageListen = []string{}
	quic := Config{Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, NoNAT: true}
	tests := []struct {
		name     string
		cfg      Config
		sameNode bool
		want     network.Path
		circuit  bool
	}{
		{"two nodes, tcp", direct, false, network.PathDirect, false},
		{"two nodes, quic", quic, false, network.PathDirect, false},
		{"two nodes, pages without sockets go through the node", unreachable, false, network.PathDirect, true},
		{"one node", direct, true, network.PathLocal, true},
		{"one node, pages without sockets", unreachable, true, network.PathLocal, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			na := newNode(t, tt.cfg)
			nb := na
			if !tt.sameNode {
				nb = newNode(t, tt.cfg)
			}
			a, b := newPage(t, na), newPage(t, nb)
			b.Handle(echo, echoHandler)
			if !tt.sameNode {
				tell(a.endpoint, b.Local(), b.Addrs())
			}
			if got := roundTrip(t, a, b.Local()); got != tt.want {
				t.Errorf("path %s, want %s", got, tt.want)
			}
			info := a.Path(b.Local())
			if info.Path != tt.want || strings.Contains(info.Address, "p2p-circuit") != tt.circuit {
				t.Errorf("path %+v, want %s, circuit %v", info, tt.want, tt.circuit)
			}
			for _, c := range a.swarm.ConnsToPeer(b.Local()) {
				if c.Stat().Limited {
					t.Errorf("connection %s is limited", c.RemoteMultiaddr())
				}
			}
			// The other way round over the same connection.
			a.Handle(echo, echoHandler)
			if got := roundTrip(t, b, a.Local()); got != tt.want {
				t.Errorf("back on path %s, want %s", got, tt.want)
			}
		})
	}
}

func TestPageReachesNodes(t *testing.T) {
	na, nb := newNode(t, loopback()), newNode(t, loopback())
	a := newPage(t, na)
	na.Network().Handle(echo, echoHandler)
	nb.Network().Handle(echo, echoHandler)
	a.Handle(echo, echoHandler)
	tell(a.endpoint, nb.Local(), nb.Addrs())
	roundTrip(t, a, na.Local())
	roundTrip(t, a, nb.Local())
	roundTrip(t, na.Network(), a.Local())
}

func TestOpenErrors(t *testing.T) {
	n := newNode(t, loopback())
	other := newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, other)
	tell(a.endpoint, b.Local(), b.Addrs())
	nobody := newKey(t).PeerID()
	gone := newKey(t).PeerID()
	a.AddAddrs(gone, []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}, 1<<40)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	closed := newPage(t, n)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		ctx  context.Context
		from network.Network
		to   identity.PeerID
		code identity.Code
		text string
	}{
		{"nobody knows it", deadline(t), a, nobody, identity.CodeUnreachable, "no addresses found"},
		{"refused", deadline(t), a, gone, identity.CodeUnreachable, "dial /ip4/127.0.0.1/tcp/1: connection refused"},
		{"not started", deadline(t), a, b.Local(), identity.CodeNotStarted, "protocol not started"},
		{"itself", deadline(t), a, a.Local(), identity.CodeUnreachable, "own peer"},
		{"cancelled", cancelled, a, nobody, identity.CodeCancelled, "cancelled"},
		{"closed", deadline(t), closed, b.Local(), identity.CodeClosed, "closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.from.Open(tt.ctx, tt.to, echo)
			if e := wantCode(t, err, tt.code); !strings.Contains(e.Text, tt.text) {
				t.Errorf("text %q, want %q in it", e.Text, tt.text)
			}
		})
	}
	info := a.Path(gone)
	if info.Path != network.PathNone || len(info.Tried) != 1 || info.Tried[0].Path != network.PathDirect {
		t.Errorf("path to the refusing peer is %+v", info)
	}
}

// A protocol that is started later is found at once: what identify said before
// doesn't stand in the way, and the change is told.
func TestProtocolStartedLater(t *testing.T) {
	n, other := newNode(t, loopback()), newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, other)
	tell(a.endpoint, b.Local(), b.Addrs())
	_, err := a.Open(deadline(t), b.Local(), echo)
	wantCode(t, err, identity.CodeNotStarted)
	// libp2p lets an answer of identify that is still on its way overwrite what a push
	// says: only after it a push stands.
	<-a.bare.ids.IdentifyWait(a.swarm.ConnsToPeer(b.Local())[0])

	changed := make(chan struct{}, 16)
	stop := a.Notify(func(id identity.PeerID) {
		if id == b.Local() {
			changed <- struct{}{}
		}
	})
	defer stop()
	remove := b.Handle(echo, echoHandler)
	ctx := deadline(t)
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("no notice of the new protocol")
		}
		if known, _ := a.host.Peerstore().SupportsProtocols(b.Local(), "/test/echo/1"); len(known) == 1 {
			break
		}
	}
	roundTrip(t, a, b.Local())

	// Stopped again: the cached knowledge must not make Open succeed.
	remove()
	_, err = a.Open(deadline(t), b.Local(), echo)
	wantCode(t, err, identity.CodeNotStarted)
}

func TestOpenTakesFirstSpokenProtocol(t *testing.T) {
	n, other := newNode(t, loopback()), newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, other)
	tell(a.endpoint, b.Local(), b.Addrs())
	b.Handle("/two", echoHandler)
	s, err := a.Open(deadline(t), b.Local(), "/one", "/two")
	if err != nil || s.Protocol() != "/two" {
		t.Fatalf("got %v, %v", s, err)
	}
	_ = s.Close()
	b.Handle("/one", echoHandler)
	waitSpeaks(t, a, b.Local(), "/one")
	s, err = a.Open(deadline(t), b.Local(), "/one", "/two")
	if err != nil || s.Protocol() != "/one" {
		t.Fatalf("got %v, %v", s, err)
	}
	_ = s.Close()
}

func waitSpeaks(t testing.TB, p *Page, id identity.PeerID, proto network.Protocol) {
	t.Helper()
	changed := make(chan struct{}, 1)
	stop := p.Notify(func(identity.PeerID) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	ctx := deadline(t)
	for {
		if s, err := p.Open(ctx, id, proto); err == nil {
			_ = s.Close()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s never spoke %s", id, proto)
		}
	}
}

func TestHandlers(t *testing.T) {
	n := newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, n)
	answer := func(text string) network.Handler {
		return func(_ context.Context, s network.Stream) {
			_, _ = s.Write([]byte(text))
			_ = s.Close()
		}
	}
	ask := func() string {
		s, err := a.Open(deadline(t), b.Local(), echo)
		if err != nil {
			return string(identity.CodeOf(err))
		}
		defer s.Close()
		buf := make([]byte, 16)
		k, _ := s.Read(buf)
		return string(buf[:k])
	}
	removeFirst := b.Handle(echo, answer("first"))
	if got := ask(); got != "first" {
		t.Errorf("got %q", got)
	}
	removeSecond := b.Handle(echo, answer("second"))
	removeFirst() // must not take away the second
	if got := ask(); got != "second" {
		t.Errorf("after replacing: %q", got)
	}
	removeSecond()
	if got := ask(); got != string(identity.CodeNotStarted) {
		t.Errorf("after removing: %q", got)
	}
	// A handler that returns without closing resets the stream.
	b.Handle(echo, func(context.Context, network.Stream) {})
	s, err := a.Open(deadline(t), b.Local(), echo)
	if err != nil {
		return // the reset was faster than the answer to the choice of protocol
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("read from a stream whose handler returned gave no error")
	}
}

// Close returns only when handlers have, and their context and reads end.
func TestCloseWaitsForHandlers(t *testing.T) {
	n := newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, n)
	var mu sync.Mutex
	var ended []string
	began := make(chan struct{}, 2)
	b.Handle("/by/context", func(ctx context.Context, s network.Stream) {
		began <- struct{}{}
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, "context")
	})
	b.Handle("/by/read", func(_ context.Context, s network.Stream) {
		began <- struct{}{}
		_, _ = s.Read(make([]byte, 1))
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, "read")
	})
	for _, p := range []network.Protocol{"/by/context", "/by/read"} {
		if _, err := a.Open(deadline(t), b.Local(), p); err != nil {
			t.Fatal(err)
		}
		<-began
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ended) != 2 {
		t.Errorf("after Close only these handlers had ended: %v", ended)
	}
}

func TestPageIdentity(t *testing.T) {
	cfg := loopback()
	cfg.MaxPages = 2
	n := newNode(t, cfg)
	key := newKey(t)
	first, err := n.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Page(t.Context(), key)
	wantCode(t, err, identity.CodePeerInUse)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := n.Page(t.Context(), key) // free at once
	if err != nil {
		t.Fatal(err)
	}
	_ = again
	newPage(t, n)
	_, err = n.Page(t.Context(), newKey(t))
	if e := wantCode(t, err, identity.CodeLimit); !strings.Contains(e.Text, "limit 2") {
		t.Errorf("text %q doesn't name the limit", e.Text)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = n.Page(t.Context(), newKey(t))
	wantCode(t, err, identity.CodeClosed)
}

// Of two calls with one key at the same moment exactly one succeeds (gateway.md §2.7).
func TestSimultaneousEqualKeys(t *testing.T) {
	n := newNode(t, loopback())
	for range 8 {
		key := newKey(t)
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := n.Page(context.Background(), key)
				results <- err
			}()
		}
		codes := fmt.Sprint(identity.CodeOf(<-results), identity.CodeOf(<-results))
		if codes != "peer-in-use" && codes != " peer-in-use" && codes != "peer-in-use " {
			t.Fatalf("results %q, want one success", codes)
		}
	}
}

// A page announces its own sockets and the way through its node.
func TestPageAddrs(t *testing.T) {
	n := newNode(t, loopback())
	p := newPage(t, n)
	var direct, via int
	for _, a := range p.Addrs() {
		if !strings.HasSuffix(a.String(), "/p2p/"+p.Local().String()) {
			t.Errorf("%s doesn't end in the page's id", a)
		}
		if strings.Contains(a.String(), "/p2p/"+n.Local().String()+"/p2p-circuit/") {
			via++
		} else {
			direct++
		}
	}
	if direct != 1 || via != 1 {
		t.Errorf("addresses %v: want one direct and one through the node", p.Addrs())
	}
}

// One page may talk to many pages of one node, more than libp2p lets a peer
// have connections.
func TestOnePageTalksToManyPages(t *testing.T) {
	through := loopback()
	through.PageListen = []string{}
	for name, cfg := range map[string]Config{"direct": loopback(), "through the node": through} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, cfg)
			one := newPage(t, newNode(t, cfg))
			for range 80 {
				p := newPage(t, n)
				p.Handle(echo, echoHandler)
				tell(one.endpoint, p.Local(), p.Addrs())
				roundTrip(t, one, p.Local())
			}
		})
	}
}

// A page is a libp2p peer that others can talk to whatever they speak of what
// libp2p has: TLS or Noise, yamux, identify. What is once a node (DHT, GossipSub,
// relay) it doesn't speak (gateway.md §5.1).
func TestPageSpeaksLibp2p(t *testing.T) {
	page := newPage(t, newNode(t, loopback()))
	page.Handle(echo, echoHandler)
	at := peer.AddrInfo{ID: page.Local(), Addrs: page.bare.directAddrs()}
	for id, security := range map[protocol.ID]libp2p.Option{
		libtls.ID: libp2p.Security(libtls.ID, libtls.New), noise.ID: libp2p.Security(noise.ID, noise.New),
	} {
		t.Run(string(id), func(t *testing.T) {
			h, err := libp2p.New(security, libp2p.NoListenAddrs, libp2p.DisableMetrics())
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.Connect(deadline(t), at); err != nil {
				t.Fatal(err)
			}
			if c := h.Network().ConnsToPeer(page.Local())[0].ConnState(); c.Security != id || c.StreamMultiplexer != yamux.ID {
				t.Errorf("connected by %+v", c)
			}
			known, err := h.Peerstore().GetProtocols(page.Local()) // Connect waits for identify
			for ctx := deadline(t); len(known) == 0 && err == nil && ctx.Err() == nil; {
				_ = h.Network().ClosePeer(page.Local()) // identify has five seconds, and doesn't try again
				if err := h.Connect(ctx, at); err != nil {
					t.Fatal(err)
				}
				known, err = h.Peerstore().GetProtocols(page.Local())
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(known)
			want := []protocol.ID{protocol.ID(echo), identify.ID, identify.IDPush, ping.ID}
			if slices.Sort(want); !slices.Equal(known, want) {
				t.Errorf("the page speaks %v, want %v", known, want)
			}
			s, err := h.NewStream(deadline(t), page.Local(), protocol.ID(echo))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Reset()
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
				t.Errorf("answered %q, %v", got, err)
			}
		})
	}
}

package host

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	libhost "github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func connectTo(t testing.TB, h libhost.Host, id identity.PeerID, addrs []ma.Multiaddr) error {
	t.Helper()
	return h.Connect(deadline(t), peer.AddrInfo{ID: id, Addrs: bareAddrs(addrs)})
}

// Row 27: a peer that opens streams without end gets at most its share, and
// others are served meanwhile.
func TestAbuse27_StreamFlood(t *testing.T) {
	n := newNode(t, loopback())
	p := newPage(t, n)
	var mu sync.Mutex
	held, most := 0, 0
	p.Handle("/hold", func(ctx context.Context, s network.Stream) {
		mu.Lock()
		held++
		most = max(most, held)
		mu.Unlock()
		<-ctx.Done()
	})
	p.Handle(echo, echoHandler)
	attacker := plainHost(t, libp2p.ResourceManager(&libnet.NullResourceManager{}))
	if err := connectTo(t, attacker, p.Local(), p.Addrs()); err != nil {
		t.Fatal(err)
	}
	const tries = 1000
	const limit = 128 // far above what the resource manager gives a peer for one protocol
	ctx := deadline(t)
	opened := 0
	for range tries {
		s, err := attacker.Network().NewStream(ctx, p.Local())
		if err != nil {
			continue
		}
		if _, err := negotiate(ctx, s, []protocol.ID{"/hold"}); err == nil {
			opened++
		}
	}
	mu.Lock()
	if most > limit || opened == tries || most < limit/4 {
		t.Errorf("of %d streams %d were opened and %d held at once, want at most %d, and many", tries, opened, most, limit)
	}
	mu.Unlock()
	friend := newPage(t, newNode(t, loopback()))
	tell(friend.endpoint, p.Local(), p.Addrs())
	roundTrip(t, friend, p.Local())
}

// Row 30: a wrong version of a protocol is refused with a reason.
func TestAbuse30_WrongProtocolVersion(t *testing.T) {
	n, other := newNode(t, loopback()), newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, other)
	b.Handle("/parley/msg/1.0.0/chat", echoHandler)
	tell(a.endpoint, b.Local(), b.Addrs())
	_, err := a.Open(deadline(t), b.Local(), "/parley/msg/9.0.0/chat")
	if e := wantCode(t, err, identity.CodeNotStarted); e.Text == "" {
		t.Error("no reason given")
	}
}

// Row 31: identities other than ed25519 are refused, in both directions, unless
// the operator named the peer.
func TestAbuse31_OtherKeyTypes(t *testing.T) {
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secp, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.PrivKey{"RSA": rsa, "secp256k1": secp} {
		t.Run(name, func(t *testing.T) {
			stranger := plainHost(t, libp2p.Identity(key))
			stranger.SetStreamHandler("/test/echo/1", func(s libnet.Stream) { _ = s.Close() })
			n := newNode(t, loopback())
			p := newPage(t, n)
			for who, at := range map[identity.PeerID][]ma.Multiaddr{n.Local(): n.Addrs(), p.Local(): p.Addrs()[:1]} {
				err := connectTo(t, stranger, who, at)
				// The dialer may take its side of the handshake for done.
				if err == nil {
					waitNoConn(t, stranger, who)
				}
			}
			if n.Connected(stranger.ID()) || p.Connected(stranger.ID()) {
				t.Error("a peer with another key is connected")
			}
			p.AddAddrs(stranger.ID(), stranger.Addrs(), 1<<40)
			_, err := p.Open(deadline(t), stranger.ID(), echo)
			wantCode(t, err, identity.CodeUnreachable)

			named := newNode(t, loopback())
			named.AllowOtherKeys(stranger.ID())
			if err := connectTo(t, stranger, named.Local(), named.Addrs()); err != nil {
				t.Errorf("the named peer: %v", err)
			}
		})
	}
}

func waitNoConn(t testing.TB, h libhost.Host, id peer.ID) {
	t.Helper()
	sub, err := h.EventBus().Subscribe(new(evtConnected))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx := deadline(t)
	for h.Network().Connectedness(id) != libnet.NotConnected {
		select {
		case <-sub.Out():
		case <-ctx.Done():
			t.Fatal("the connection stays")
		}
	}
}

// Row 33: an identify message without end is cut off, and leaves little behind.
func TestAbuse33_IdentifyBomb(t *testing.T) {
	n := newNode(t, loopback())
	p := newPage(t, n)
	p.Handle(echo, echoHandler)
	attacker := plainHost(t)
	ended := make(chan error, 1)
	attacker.SetStreamHandler(identify.ID, func(s libnet.Stream) {
		defer s.Close()
		w := pbio.NewDelimitedWriter(s)
		var protocols []string
		for i := range 200 {
			protocols = append(protocols, "/bomb/"+string(rune('a'+i%26))+"/"+rand.Text())
		}
		var err error
		for err == nil { // as long as it is read
			err = w.WriteMsg(&pb.Identify{Protocols: protocols})
		}
		select {
		case ended <- err:
		default:
		}
	})
	if err := connectTo(t, attacker, p.Local(), p.Addrs()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-deadline(t).Done():
		t.Fatal("the page reads on and on")
	}
	if known, _ := p.host.Peerstore().GetProtocols(attacker.ID()); len(known) > 1024 {
		t.Errorf("the page keeps %d protocols of the attacker", len(known))
	}
	s, err := attacker.NewStream(deadline(t), p.Local(), "/test/echo/1")
	if err != nil {
		t.Fatalf("the page serves no more: %v", err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Errorf("read: %v", err)
	}
}

// Row 28, as far as the host goes: writes to a peer that doesn't read stop.
func TestAbuse28_NeverReads(t *testing.T) {
	n, other := newNode(t, loopback()), newNode(t, loopback())
	a, b := newPage(t, n), newPage(t, other)
	b.Handle("/deaf", func(ctx context.Context, s network.Stream) { <-ctx.Done() })
	tell(a.endpoint, b.Local(), b.Addrs())
	s, err := a.Open(deadline(t), b.Local(), "/deaf")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	const most = 64 << 20
	total, block := 0, make([]byte, 64<<10)
	for err = nil; err == nil && total <= most; {
		var n int
		_ = s.SetWriteDeadline(time.Now().Add(time.Second)) // on a slow machine it ends sooner, no more
		n, err = s.Write(block)
		total += n
	}
	var late net.Error
	if total > most || !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("%d bytes were taken by a peer that reads nothing: %v", total, err)
	}
	// A write that waits for the window ends with the other side.
	_ = s.SetWriteDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Write(block); err != nil {
				ended <- err
				return
			}
		}
	}()
	b.stop()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

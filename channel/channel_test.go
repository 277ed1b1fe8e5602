package channel

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// two starts two nodes with an agent each, who are the nodes' own keys.
func two(t testing.TB, change func(*Config)) (alice, bob Member) {
	t.Helper()
	n := newTestNet(t)
	a, b := n.start(t, 1, change), n.start(t, 2, change)
	return a.join(t, "chess", a.key), b.join(t, "chess", b.key)
}

func TestOpenSendClose(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "moves/1")
	ch := mustOpen(t, alice, bob, "moves/1")
	far := mustAccept(t, l)
	send(t, ch, "e4")
	receive(t, far, "e4")
	send(t, far, "e5")
	receive(t, ch, "e5")

	info, farInfo := ch.Info(), far.Info()
	if info.Remote != bob.Agent() || farInfo.Remote != alice.Agent() || !info.Verified || !farInfo.Verified {
		t.Errorf("infos %+v, %+v", info, farInfo)
	}
	if info.Path != network.PathDirect || info.Protocol != "moves/1" || info.Space != HashSpace("chess") {
		t.Errorf("info %+v", info)
	}
	send(t, ch, "resigns")
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, far, "resigns")
	if _, err := far.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after the close: %v", err)
	}
	<-far.Done()
	if far.Err() != nil {
		t.Errorf("ended with %v", far.Err())
	}
	wantErr(t, far.Send(t.Context(), nil), ErrClosed)
}

func TestSelfAndSameNode(t *testing.T) {
	n := newTestNet(t)
	node := n.start(t, 1, nil)
	a, b, c := node.join(t, "chess", testKey(t, 11)), node.join(t, "chess", testKey(t, 12)), node.join(t, "chess", testKey(t, 13))
	la, lb := listen(t, a, "x"), listen(t, b, "x")
	lc := listen(t, c, "x")

	self := mustOpen(t, a, a, "x")
	far := mustAccept(t, la)
	send(t, self, "me")
	receive(t, far, "me")

	ch := mustOpen(t, a, b, "x")
	far = mustAccept(t, lb)
	send(t, ch, "you")
	receive(t, far, "you")
	if i := far.Info(); i.Path != network.PathLocal || !i.Verified || i.Remote != a.Agent() {
		t.Errorf("info %+v", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lc.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a third agent saw a channel: %v", err)
	}
}

func TestTwoSpacesStayApart(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start(t, 1, nil), n.start(t, 2, nil)
	chess, checkers := a.join(t, "chess", a.key), a.join(t, "checkers", a.key)
	bob := b.join(t, "chess", b.key)
	listen(t, bob, "moves/1")
	if _, err := checkers.Open(t.Context(), bob.Agent(), "moves/1"); !errors.Is(err, ErrNoSpace) {
		t.Errorf("opened in another space: %v", err)
	}
	mustOpen(t, chess, bob, "moves/1")
}

func TestJoinAndLeave(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "x")
	space := bob.(*member).node.Space("chess")
	if _, err := space.Join(t.Context(), testKey(t, 2)); !errors.Is(err, ErrDuplicate) {
		t.Errorf("joined twice: %v", err)
	}
	ch := mustOpen(t, alice, bob, "x")
	mustAccept(t, l)
	if err := bob.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ch.Done()
	_, err := l.Accept(t.Context())
	wantErr(t, err, ErrNotJoined)
	_, err = bob.Open(t.Context(), alice.Agent(), "x")
	wantErr(t, err, ErrNotJoined)
	_, err = bob.Listen("x")
	wantErr(t, err, ErrNotJoined)
	_, err = alice.Open(t.Context(), bob.Agent(), "x")
	wantErr(t, err, ErrNoSpace)

	again, err := space.Join(t.Context(), testKey(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	listen(t, again, "x")
	mustOpen(t, alice, again, "x")
}

// thief signs with another key than its own.
type thief struct{ identity.Key }

func (t thief) Sign(msg []byte) []byte { return append([]byte{}, make([]byte, 64)...) }

func TestJoinNeedsTheKey(t *testing.T) {
	n := newTestNet(t)
	node := n.start(t, 1, nil)
	_, err := node.Space("chess").Join(t.Context(), thief{testKey(t, 5)})
	wantErr(t, err, ErrNotAllowed)
	_, err = node.Space("").Join(t.Context(), testKey(t, 5))
	wantErr(t, err, ErrNoSpace)
}

func TestUnknownAgentAndProtocol(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		alice, bob := two(t, func(c *Config) { c.Quiet = quiet })
		want := map[bool]error{false: ErrNoSpace, true: ErrNoAgent}[quiet]
		_, err := alice.Open(t.Context(), bob.Agent(), "nobody listens")
		wantErr(t, err, want)
		_, err = alice.Open(t.Context(), testKey(t, 99).Agent(), "x")
		wantErr(t, err, ErrNoAgent)
		if identity.CodeOf(err) != identity.CodeBadToID {
			t.Errorf("code %s", identity.CodeOf(err))
		}
	}
}

func TestListenerBacklog(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "x", Backlog(2))
	mustOpen(t, alice, bob, "x")
	mustOpen(t, alice, bob, "x")
	_, err := alice.Open(t.Context(), bob.Agent(), "x")
	wantErr(t, err, ErrLimit)
	mustAccept(t, l)
	ch := mustOpen(t, alice, bob, "x")
	l.Close()
	<-ch.Done()
	wantErr(t, ch.Err(), ErrNoSpace)
}

func TestCloseWithError(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "x")
	ch := mustOpen(t, alice, bob, "x")
	far := mustAccept(t, l)
	send(t, ch, "before")
	receive(t, far, "before")
	if err := far.CloseWithError(Limit, "enough"); err != nil {
		t.Fatal(err)
	}
	_, err := ch.Receive(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Code != Limit || e.Text != "enough" || !e.Remote {
		t.Errorf("got %v", err)
	}
	if identity.CodeOf(err) != identity.CodeLimit {
		t.Errorf("code %s", identity.CodeOf(err))
	}
	wantErr(t, ch.Err(), ErrLimit)
}

func TestDeadlinesAndContexts(t *testing.T) {
	alice, bob := two(t, nil)
	listen(t, bob, "x")
	ch := mustOpen(t, alice, bob, "x")
	ch.SetDeadline(time.Now().Add(-time.Second))
	if _, err := ch.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	ch.SetDeadline(time.Time{})
	waiting := make(chan error, 1)
	go func() {
		_, err := ch.Read(make([]byte, 1))
		waiting <- err
	}()
	ch.SetDeadline(time.Now())
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a waiting Read: %v", err)
	}
	ch.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for { // until the window is full
			if err := ch.Send(ctx, make([]byte, 60_000)); err != nil {
				waiting <- err
				return
			}
		}
	}()
	go cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %v", err)
	}
}

func TestLostConnection(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start(t, 1, nil), n.start(t, 2, nil)
	alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
	l := listen(t, bob, "x")
	ch := mustOpen(t, alice, bob, "x")
	far := mustAccept(t, l)
	n.breakStreams(a.key.PeerID(), func(identity.PeerID) bool { return true })
	for _, c := range []Channel{ch, far} {
		<-c.Done()
		wantErr(t, c.Err(), ErrLost)
		_, err := c.Read(make([]byte, 1))
		wantErr(t, err, ErrLost)
	}
	mustOpen(t, alice, bob, "x") // on a new connection
}

func TestOptimistic(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "x")
	ch := mustOpen(t, alice, bob, "x", Optimistic())
	send(t, ch, "at once")
	receive(t, mustAccept(t, l), "at once")

	ch = mustOpen(t, alice, bob, "nobody", Optimistic())
	<-ch.Done()
	wantErr(t, ch.Err(), ErrNoSpace)
}

func TestStreamMode(t *testing.T) {
	alice, bob := two(t, nil)
	l := listen(t, bob, "files")
	ch := mustOpen(t, alice, bob, "files")
	far := mustAccept(t, l)
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	go func() {
		if _, err := ch.Write(data); err != nil {
			t.Error(err)
		}
		ch.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(data))
	}
}

// TestProofVectors holds the values of docs/spec/channels.md §16.
func TestProofVectors(t *testing.T) {
	key := func(b byte) identity.Key {
		var seed [32]byte
		for i := range seed {
			seed[i] = b
		}
		k, err := identity.KeyFromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	alice, bob, dialer, acceptor := key(1), key(2), key(3), key(4)
	var nonceD, nonceA [32]byte
	for i := range nonceD {
		nonceD[i], nonceA[i] = 0xa1, 0xb2
	}
	space := HashSpace("parley-test")
	addr := address{space: space.App("chat/1"), to: bob.Agent(), from: alice.Agent()}
	binding := conn.Binding(string(dialer.PeerID()), string(acceptor.PeerID()), nonceD, nonceA)
	app := space.App("chat/1")
	for _, v := range []struct {
		name string
		got  []byte
		want string
	}{
		{"space", space[:], "1f7dadd7683fa8aa8f1eee5534f522c80b4490af54fafc5e93abb5063d94759a"},
		{"app", app[:], "6983dec0195a0d612f36cc06db7f928711cc8c180d416bb061a8b3f45c0a7b41"},
		{"binding", binding[:], "d6787ce491298f40f8978faa87ac439867729a98b55b30506b09e22f2cb94590"},
		{"digest", addr.fromDigest(binding, 1), "0fc2781f23dac3c36afce7d50e97ac79c99e5cf81f296de661b2c4bdb6989c1f"},
		{"fromProof", alice.Sign(addr.fromDigest(binding, 1)), "60c9de947059ace3bd6af6e87ae7187b93da5c1162e7ddd04602f8c7920ba43259aec5f4b6bdd28fffb3e32770f8810cc23fc8dc6f8163370f902d9ffc558f03"},
		{"toProof", bob.Sign(addr.toDigest(binding, 1)), "0be641f37756b5133533a663edd2ee835916dbaa2b552062a725573b5f738485e9e9bb06e3f297e387637fbdccf4726f97e91bade31bd82d4bbb41065e534001"},
	} {
		if got := hex.EncodeToString(v.got); got != v.want {
			t.Errorf("%s %s, want %s", v.name, got, v.want)
		}
	}
	if reverse := conn.Binding(string(acceptor.PeerID()), string(dialer.PeerID()), nonceA, nonceD); reverse != binding {
		t.Error("the binding depends on who computes it")
	}
}

package parley

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// room joins a space as a page's session does.
func room(ctx context.Context, t *testing.T, p *Peer, space string) gateway.Room {
	t.Helper()
	r, err := p.hold.JoinSpace(ctx, space)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// openWhenMet opens a channel to a page whose node may be found only now: Open
// itself looks for two seconds, which a busy machine needs for less than that.
func openWhenMet(ctx context.Context, t *testing.T, from gateway.Room, to identity.PeerID, protocol string) gateway.Channel {
	t.Helper()
	for {
		ch, err := from.Open(ctx, to, protocol, gateway.OpenOptions{DirectOnly: true})
		if err == nil {
			return ch
		}
		if identity.CodeOf(err) != identity.CodeBadToID || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestRoomsOfPages: pages of one node and of two open channels to each other by
// the names they have anyway.
func TestRoomsOfPages(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	first, second := runNode(t, loopbackConfig(t)), runNode(t, loopbackConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	alice, bob, carol := newPeer(t, first), newPeer(t, second), newPeer(t, first)
	a := room(ctx, t, alice, "chess")
	defer a.Leave()
	for _, other := range []struct {
		peer *Peer
		path network.Path
	}{{bob, network.PathDirect}, {carol, network.PathLocal}} {
		r := room(ctx, t, other.peer, "chess")
		defer r.Leave()
		l, err := r.Listen("moves/1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		near := openWhenMet(ctx, t, a, other.peer.ID(), "moves/1")
		far, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		checkRoomChannel(ctx, t, near, far)
		if i := near.Info(); i.Remote != other.peer.ID() || i.Path != other.path || !i.Verified || i.Protocol != "moves/1" {
			t.Errorf("opened %+v", i)
		}
		if i := far.Info(); i.Remote != alice.ID() || i.Path != other.path || !i.Verified {
			t.Errorf("came in as %+v", i)
		}
	}
	if _, err := a.Open(ctx, bob.ID(), "other/1", gateway.OpenOptions{}); identity.CodeOf(err) != identity.CodeBadSpaceHash && identity.CodeOf(err) != identity.CodeBadToID {
		t.Errorf("opening what nobody listens to: %v", err)
	}
}

// checkRoomChannel sends a content and ends the channel with an error, which the
// other end reads behind the content.
func checkRoomChannel(ctx context.Context, t *testing.T, near, far gateway.Channel) {
	t.Helper()
	if err := near.Send(ctx, []byte("e4")); err != nil {
		t.Fatal(err)
	}
	if got, err := far.Receive(ctx); err != nil || string(got) != "e4" {
		t.Errorf("got %q, %v", got, err)
	}
	near.CloseWithError(identity.CodeLimit, "enough")
	if _, err := far.Receive(ctx); identity.CodeOf(err) != identity.CodeLimit {
		t.Errorf("the other end reads %v", err)
	}
}

// TestRoomsOfOnePage: two sessions of one peer share its membership and what it
// listens to; it is there until the last has left.
func TestRoomsOfOnePage(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	node := runNode(t, loopbackConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key := newKey(t)
	var tabs []*Peer
	for range 2 {
		p, err := node.Peer(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		tabs = append(tabs, p)
	}
	one, two := room(ctx, t, tabs[0], "s"), room(ctx, t, tabs[1], "s")
	l1, err := one.Listen("p")
	if err != nil {
		t.Fatal(err)
	}
	l2, err := two.Listen("p")
	if err != nil {
		t.Fatal(err)
	}
	l1.Close()
	one.Leave()
	if _, err := l1.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a closed listener accepts: %v", err)
	}

	other := room(ctx, t, newPeer(t, node), "s")
	defer other.Leave()
	ch, err := other.Open(ctx, tabs[0].ID(), "p", gateway.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there, err := l2.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	there.Close()
	if _, err := ch.Receive(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("after a close: %v", err)
	}
	l2.Close()
	two.Leave()
	if _, err := other.Open(ctx, tabs[0].ID(), "p", gateway.OpenOptions{}); err == nil {
		t.Error("opened to an agent that has left")
	}
	again := room(ctx, t, tabs[0], "s")
	again.Leave()
}

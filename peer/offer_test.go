package peer

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// lateOffer is a network whose first offer of our framing comes a moment before
// the other page begins to listen.
type lateOffer struct {
	network.Network
	offered atomic.Bool
}

func (o *lateOffer) Open(ctx context.Context, to identity.PeerID, p ...network.Protocol) (network.Stream, error) {
	if len(p) == 2 && !o.offered.Swap(true) {
		p = p[1:]
	}
	return o.Network.Open(ctx, to, p...)
}

// TestListenedBetweenTheOffers: a page that began to listen after our framing was
// offered and before the reference's was is not taken for a reference peer.
func TestListenedBetweenTheOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		alice, err := w.node(Config{}).Add(&lateOffer{Network: w.cluster.Host(key(t, 1))})
		if err != nil {
			t.Fatal(err)
		}
		to := handling()
		bob, _ := w.peer(w.node(Config{}), 2, to, chat)
		if o := send(t, alice.Join(handling()), bob.ID(), `"x"`, network.Handled).wait(t); o.Err != nil || o.Level != network.Handled {
			t.Errorf("%v, %v; want it handled", o.Level, o.Err)
		}
	})
}

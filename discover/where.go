package discover

import (
	"context"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// NodeOf gives the node that a page of another node is on, by the page's own
// record: a remembered one, or one that this node's neighbours and the DHT give
// before ctx ends.
func (d *Discovery) NodeOf(ctx context.Context, page identity.PeerID) (node identity.PeerID, ok bool) {
	if rec, ok := d.pages.where(page, time.Now()); ok {
		return rec.node, true
	}
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	// What it returns is told by the record below.
	_ = d.Find(ctx, page, func([]ma.Multiaddr) {
		if _, ok := d.pages.where(page, time.Now()); ok {
			enough()
		}
	})
	rec, ok := d.pages.where(page, time.Now())
	return rec.node, ok
}

// HomeOf is NodeOf without asking anybody: by a remembered record alone.
func (d *Discovery) HomeOf(page identity.PeerID) (node identity.PeerID, ok bool) {
	rec, ok := d.pages.where(page, time.Now())
	return rec.node, ok
}

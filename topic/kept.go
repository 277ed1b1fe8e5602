package topic

import (
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// What is kept for the first member of a room (gateway.md §6.2).
const (
	keepFor      = 30 * time.Second
	keepMessages = 256
	keepBytes    = 1 << 20
)

// publication is a message of a page of this node.
type publication struct {
	key     identity.Key
	from    identity.PeerID
	content network.Content
	text    []byte // its form on the wire
	kept    time.Time
	lonely  bool // nobody at all was there when it was published
}

// kept holds what was published while nobody was there, oldest first.
type kept struct {
	list  []*publication
	bytes int
}

// add keeps p and gives what had to go for it.
func (k *kept) add(p *publication) (lost int) {
	k.list = append(k.list, p)
	k.bytes += len(p.text)
	for len(k.list) > keepMessages || k.bytes > keepBytes && len(k.list) > 1 {
		k.drop()
		lost++
	}
	return lost
}

// expire drops what has been kept long enough, and gives the time until the next
// has; 0 where nothing is left.
func (k *kept) expire(now time.Time) (lost int, next time.Duration) {
	for len(k.list) > 0 {
		if left := keepFor - now.Sub(k.list[0].kept); left > 0 {
			return lost, left
		}
		k.drop()
		lost++
	}
	return lost, 0
}

// take gives everything and is empty afterwards.
func (k *kept) take() []*publication {
	all := k.list
	k.list, k.bytes = nil, 0
	return all
}

func (k *kept) drop() {
	k.bytes -= len(k.list[0].text)
	k.list[0] = nil
	k.list = k.list[1:]
}

package transport

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/star/address"
)

// book remembers who was seen on one star (star.md §10.3). All of it are claims.
type book struct {
	// Static after construction.
	star *star
	max  int

	mu      sync.Mutex
	members map[string]*list.Element // by canonical address
	order   *list.List               // of *member, the longest without news first
	last    string                   // version of the star's list that this one is up to
}

// member is somebody who was seen.
type member struct {
	text string
	id   peer.ID
	addr ma.Multiaddr
	told time.Time // when Options.Found last heard
	seen time.Time
}

func newBook(s *star) *book {
	return &book{star: s, max: s.t.opts.Limits.Discovered, members: make(map[string]*list.Element), order: list.New()}
}

// saw takes an address that the star told of.
func (b *book) saw(text string) {
	id, at, ok := claimed(text, b.star.at)
	if !ok || id == b.star.t.id {
		return
	}
	now := time.Now()
	b.mu.Lock()
	m, out := b.enter(id, at, now)
	b.mu.Unlock()
	if out != nil {
		b.tell(out, 0)
	}
	if m != nil {
		b.tell(m, b.star.t.opts.Times.life())
	}
}

// enter notes a member. m is it where it is to be told of, out the one that had to
// go for it. The caller holds mu.
func (b *book) enter(id peer.ID, at address.Star, now time.Time) (m, out *member) {
	text := at.String()
	el, known := b.members[text]
	if !known {
		addr, err := multiaddr(at)
		if err != nil {
			return nil, nil
		}
		m = &member{text: text, id: id, addr: addr, told: now, seen: now}
		b.members[text] = b.order.PushBack(m)
		if b.order.Len() > b.max {
			out = b.drop(b.order.Front())
		}
		return m, out
	}
	b.order.MoveToBack(el)
	m = el.Value.(*member)
	m.seen = now
	if now.Sub(m.told) < b.star.t.opts.Times.Refresh {
		return nil, nil
	}
	m.told = now
	return m, nil
}

func (b *book) drop(el *list.Element) *member {
	m := b.order.Remove(el).(*member)
	delete(b.members, m.text)
	return m
}

func (b *book) tell(m *member, life time.Duration) {
	if found := b.star.t.opts.Found; found != nil {
		found(m.id, m.addr, life)
	}
}

// left takes an address of somebody who has gone.
func (b *book) left(text string) {
	at, err := address.Parse(text)
	if err != nil {
		return
	}
	b.mu.Lock()
	el, known := b.members[at.String()]
	var m *member
	if known {
		m = b.drop(el)
	}
	b.mu.Unlock()
	if m != nil {
		b.tell(m, 0)
	}
}

// renew forgets those without news for too long. A star that tells of differences
// alone doesn't repeat itself: as long as it is there, its members are.
func (b *book) renew(differences bool) {
	now, life := time.Now(), b.star.t.opts.Times.life()
	var again, gone []*member
	b.mu.Lock()
	for el := b.order.Front(); el != nil; {
		m, next := el.Value.(*member), el.Next()
		switch {
		case differences:
			m.seen, m.told = now, now
			again = append(again, m)
		case now.Sub(m.seen) > life:
			gone = append(gone, b.drop(el))
		}
		el = next
	}
	b.mu.Unlock()
	for _, m := range gone {
		b.tell(m, 0)
	}
	for _, m := range again {
		b.tell(m, life)
	}
}

// len is how many are remembered.
func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.order.Len()
}

func (b *book) version() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *book) setVersion(v string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = v
}

// forget is the end of the star: its members were worth something with it alone.
func (b *book) forget() {
	b.mu.Lock()
	var gone []*member
	for b.order.Len() > 0 {
		gone = append(gone, b.drop(b.order.Front()))
	}
	b.mu.Unlock()
	for _, m := range gone {
		b.tell(m, 0)
	}
}

package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// halting is a network that offers one protocol after the other, as a real one
// does, with a moment behind each that was not taken.
type halting struct {
	network.Network
	moment func()
}

func (h halting) Open(ctx context.Context, to identity.PeerID, protocols ...network.Protocol) (s network.Stream, err error) {
	for _, p := range protocols {
		if s, err = h.Network.Open(ctx, to, p); identity.CodeOf(err) != identity.CodeNotStarted {
			return s, err
		}
		h.moment()
	}
	return nil, err
}

// turning is a page that begins and ends to listen, so many times, in the moments
// of who calls it; and then it listens. What came it has as it came.
type turning struct {
	t       *testing.T
	member  *Member
	times   int
	random  *rand.Rand
	started bool
}

func (u *turning) turn() {
	switch {
	case u.random.IntN(2) == 0:
	case u.started && u.times <= 0:
	case u.started:
		u.times--
		u.started = false
		if err := u.member.Stop(chat); err != nil {
			u.t.Error(err)
		}
	default:
		u.times--
		u.started = true
		if err := u.member.Start(chat); err != nil {
			u.t.Error(err)
		}
	}
}

// TestListenedBetweenTheOffers: whenever a page begins to listen, and ends, while
// another asks it for its framings, and the other way round, neither is taken for a
// reference peer: what they send each other comes as it was sent, once and in
// order, and is known to be handled.
func TestListenedBetweenTheOffers(t *testing.T) {
	for seed := range uint64(100) {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { listenedBetween(t, rand.New(rand.NewPCG(seed, 0))) })
		})
		if !ok {
			return
		}
	}
}

func listenedBetween(t *testing.T, random *rand.Rand) {
	const messages = 20
	w := newWorld(t)
	defer w.close()
	pages := [2]*page{handling(), handling()}
	turns := [2]*turning{}
	members := [2]*Member{}
	for i, to := range pages {
		other := &turning{t: t, times: random.IntN(12), random: rand.New(rand.NewPCG(random.Uint64(), 0))}
		turns[1-i] = other
		p, err := w.node(Config{SendTimeout: 5 * time.Minute}).Add(halting{w.cluster.Host(key(t, i)), other.turn})
		if err != nil {
			t.Fatal(err)
		}
		members[i] = p.Join(to)
	}
	for i, u := range turns {
		u.member = members[i]
	}
	var results []result
	want := make([]string, messages)
	for n := range messages {
		want[n] = fmt.Sprint(n)
		for i, m := range members {
			r := make(result, 2)
			_, err := m.Send(network.Outgoing{To: members[1-i].Peer().ID(), Protocol: chat, Level: network.Handled,
				Content: network.Content{Type: network.Bytes, Data: []byte(want[n])}, Done: func(o network.Outcome) { r <- o }})
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
	}
	for _, r := range results {
		if o := r.wait(t); o.Err != nil || o.Level != network.Handled {
			t.Fatalf("%v, %v; want it handled", o.Level, o.Err)
		}
	}
	for i, p := range pages {
		if got := p.texts(); !slices.Equal(got, want) {
			t.Errorf("page %d got %q", i, got)
		}
		for _, d := range p.got {
			if d.Content().Type != network.Bytes {
				t.Errorf("page %d got %q as type %d", i, d.Content().Data, d.Content().Type)
			}
		}
		self := members[i].Peer()
		self.mu.Lock()
		if n := len(self.references); n > 0 {
			t.Errorf("page %d has %d streams of the reference's framing", i, n)
		}
		self.mu.Unlock()
	}
}

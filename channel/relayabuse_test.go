package channel

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// TestRelaySpoofedFrom: whoever names another agent as creator is refused by the
// relay.
func TestRelaySpoofedFrom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		listen(t, r.alice, "x")
		l := must(r.c.connect(t.Context(), r.b.key.PeerID()))
		victim := testKey(t, 77).Agent()
		for name, prove := range map[string]func(uint32) ([]byte, error){
			"no proof":    nil,
			"wrong proof": func(uint32) ([]byte, error) { return make([]byte, 64), nil },
		} {
			space := HashSpace("chess").App("x")
			to := r.alice.Agent()
			s, err := l.conn.Open(t.Context(), conn.Opening{SpaceHash: space[:], To: to[:], From: victim[:], Hops: 1, Prove: prove})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.WaitAccepted(t.Context()); !errors.Is(err, ErrNotAllowed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestRelayImpostor: a relay that answers in the target's place fails in the
// handshake inside, and so does a creator that is not who it says.
func TestRelayImpostor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		relay, c := n.start(t, 2, nil), n.start(t, 3, nil)
		victim := testKey(t, 1)
		// The relay's node says that the victim joined there: it can't sign as she.
		fake := relay.join(t, "chess", testKey(t, 8))
		m := fake.(*member)
		relay.mu.Lock()
		m.space.members[victim.Agent()] = &member{node: relay.Node, space: m.space, key: testKey(t, 8), agent: victim.Agent(),
			listeners: map[string]*listener{}}
		impostor := m.space.members[victim.Agent()]
		relay.mu.Unlock()
		listen(t, impostor, "x")
		charlie := c.join(t, "chess", c.key)
		_, err := charlie.Open(t.Context(), victim.Agent(), "x", Via(relay.key.PeerID()))
		wantErr(t, err, ErrNoAgent)
	})
}

// TestAbuse38_RelayLoops: a relayed create is never relayed again.
func TestAbuse38_RelayLoops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		l := must(r.c.connect(t.Context(), r.b.key.PeerID()))
		space := HashSpace("chess").App("x")
		to, from := r.alice.Agent(), r.charlie.Agent()
		for _, hops := range []uint8{2, 3, 255} {
			s := must(l.conn.Open(t.Context(), conn.Opening{SpaceHash: space[:], To: to[:], From: from[:], Hops: hops}))
			if err := s.WaitAccepted(t.Context()); !errors.Is(err, ErrNoAgent) && !errors.Is(err, ErrNoSpace) {
				t.Errorf("hops %d: %v", hops, err)
			}
		}
		if n := r.b.Metrics().Relay.Bridges; n != 0 {
			t.Errorf("%d bridges", n)
		}
	})
}

// TestAbuse38_ReservationFlood: contracts are bounded in all, by address and by
// autonomous system.
func TestAbuse38_ReservationFlood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		b := n.start(t, 2, withKey(n, testKey(t, 2), nil))
		if err := b.RelayFor(RelayPolicy{Contracts: 5, PerASN: 3, ASN: func(address string) uint32 {
			if address == testKey(t, 10).PeerID().String() || address == testKey(t, 11).PeerID().String() {
				return 0
			}
			return 64512
		}}); err != nil {
			t.Fatal(err)
		}
		granted := 0
		for i := range 8 {
			a := n.start(t, 10+i, nil)
			if _, err := a.ask(t.Context(), must(a.connect(t.Context(), b.key.PeerID()))); err == nil {
				granted++
			} else {
				wantErr(t, err, ErrRelayRefused)
			}
		}
		if granted != 5 {
			t.Errorf("granted %d of 8: 2 without a system, 3 of one", granted)
		}

		one := n.start(t, 3, withKey(n, testKey(t, 3), nil))
		if err := one.RelayFor(RelayPolicy{PerAddress: 2}); err != nil {
			t.Fatal(err)
		}
		a := n.start(t, 30, nil)
		granted = 0
		for range 4 { // four connections of one peer
			s := must(a.cfg.Network.Open(t.Context(), one.key.PeerID(), Protocol))
			l := must(a.newLink(streamCarrier(s, 0, true)))
			a.start(func(ctx context.Context) { a.serve(ctx, l) })
			if _, err := a.ask(t.Context(), l); err == nil {
				granted++
			}
		}
		if granted != 2 {
			t.Errorf("granted %d contracts to one address, limit 2", granted)
		}
	})
}

// TestAbuse38_RelayDies: in the middle of a message both ends are told, and
// nothing is delivered in part.
func TestAbuse38_RelayDies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, far := r.pair(t)
		sent := make(chan error, 1)
		go func() { sent <- ch.Send(t.Context(), make([]byte, 65_536)) }() // more than the window: nobody reads
		synctest.Wait()
		r.b.stop()
		if err := <-sent; err == nil {
			t.Error("half a message was sent")
		}
		if msg, err := far.Receive(t.Context()); err == nil {
			t.Errorf("received %d bytes of half a message", len(msg))
		}
		if ch.Err() == nil || far.Err() == nil {
			t.Errorf("ended in order: %v, %v", ch.Err(), far.Err())
		}
	})
}

// TestAbuse38_HalfGone: when one end is gone the other learns, and the relay
// keeps nothing.
func TestAbuse38_HalfGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRelayed(t, RelayPolicy{})
		ch, _ := r.pair(t)
		r.stopUsing()
		r.a.stop()
		<-ch.Done()
		if ch.Err() == nil {
			t.Error("the other end is gone, but this one ended in order")
		}
		synctest.Wait()
		if m := r.b.Metrics().Relay; m.Bridges != 0 || m.Buffer != 0 || m.Contracts.Current != 0 {
			t.Errorf("metrics %+v", m)
		}
	})
}

// TestAbuse38_TamperedContent: a relay that changes, drops, repeats or moves a
// content ends the channel.
func TestAbuse38_TamperedContent(t *testing.T) {
	for _, how := range []string{"change", "drop", "repeat", "swap"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRelayed(t, RelayPolicy{})
				ch, far := r.pair(t)
				send(t, ch, "before")
				receive(t, far, "before")
				r.net.filter = tamper(how, r.b.key.PeerID(), r.a.key.PeerID())
				for _, text := range []string{"one", "two", "three"} {
					ch.Send(t.Context(), []byte(text)) // may fail: the channel ends
				}
				got := ""
				for {
					msg, err := far.Receive(t.Context())
					if err != nil {
						break
					}
					got += string(msg)
				}
				if got != "" && got != "one" && got != "onetwo" {
					t.Errorf("received %q", got)
				}
				synctest.Wait()
				if ch.Err() == nil || far.Err() == nil {
					t.Errorf("the channel goes on: %v, %v", ch.Err(), far.Err())
				}
			})
		})
	}
}

// tamper makes a bad relay of one: it changes the second content it passes on.
func tamper(how string, relay, target identity.PeerID) func(from, to identity.PeerID, record []byte) [][]byte {
	n := 0
	var held []byte
	return func(from, to identity.PeerID, record []byte) [][]byte {
		var m mux.Message
		if err := mux.Decode(record, &m); err != nil || m.Kind != mux.Content || from != relay || to != target {
			return [][]byte{record}
		}
		n++
		record = bytes.Clone(record)
		switch {
		case n == 2 && how == "change":
			record[mux.ContentHead+3] ^= 1
		case n == 2 && how == "drop":
			return nil
		case n == 2 && how == "repeat":
			return [][]byte{record, record}
		case n == 2 && how == "swap":
			held = record
			return nil
		case n == 3 && how == "swap":
			return [][]byte{record, held}
		}
		return [][]byte{record}
	}
}

// TestRelayAllowsAgents: a list may name an agent, which the relay then serves on
// whatever node it is, once the agent has proved itself there.
func TestRelayAllowsAgents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		friend, stranger := testKey(t, 20), testKey(t, 21)
		b := n.start(t, 2, withKey(n, testKey(t, 2), nil))
		if err := b.RelayFor(OwnRelay(friend.PeerID())); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name  string
			node  int
			agent identity.Key
			want  int
		}{{"a stranger", 10, stranger, 0}, {"a friend", 11, friend, 1}} {
			p := n.start(t, tt.node, nil)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.UseRelay(ctx, b.key.PeerID()) }()
			synctest.Wait()
			if got := b.Metrics().Connections.Current; got != tt.want && tt.want == 0 {
				t.Errorf("%s: %d connections before anybody joined", tt.name, got)
			}
			p.join(t, "chess", tt.agent)
			synctest.Wait()
			if got := b.Metrics().Relay.Registered; got != tt.want {
				t.Errorf("%s: %d agents registered, want %d", tt.name, got, tt.want)
			}
			cancel()
			<-done
		}
	})
}

func TestAddressKey(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "2001:db8:1:2:3::4": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
		"127.0.0.1": "", "::1": "",
	} {
		if got := AddressKey(netip.MustParseAddr(text)); got != want {
			t.Errorf("address of %s is %q, want %q", text, got, want)
		}
	}
	if got := AddressKey(netip.Addr{}); got != "" {
		t.Errorf("address of nobody is %q", got)
	}
}

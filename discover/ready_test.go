package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
)

// fakeNet is a Connecter whose connections the test makes and breaks.
type fakeNet struct {
	mu        sync.Mutex
	reachable bool
	connected map[identity.PeerID]bool
	dials     []time.Duration // since start
	start     time.Time
	notify    func(identity.PeerID)
}

func newFakeNet() *fakeNet {
	return &fakeNet{connected: make(map[identity.PeerID]bool), start: time.Now()}
}

func (f *fakeNet) Connect(_ context.Context, id identity.PeerID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials = append(f.dials, time.Since(f.start))
	if !f.reachable {
		return errors.New("unreachable")
	}
	f.connected[id] = true
	return nil
}

func (f *fakeNet) AddAddrs(identity.PeerID, []ma.Multiaddr, time.Duration) {}

func (f *fakeNet) Connected(id identity.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connected[id]
}

func (f *fakeNet) Notify(n func(identity.PeerID)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notify = n
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.notify = nil
	}
}

func (f *fakeNet) set(id identity.PeerID, connected bool) {
	f.mu.Lock()
	f.connected[id] = connected
	notify := f.notify
	f.mu.Unlock()
	if notify != nil {
		notify(id)
	}
}

func (f *fakeNet) dialled() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dials)
}

func TestReadyListBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newFakeNet()
		l := NewReadyList(net, nil)
		defer l.Close()
		if err := l.Add("bob", nil); err != nil {
			t.Fatal(err)
		}
		wait(t.Context(), 22*time.Minute) // virtual
		var want []time.Duration
		at, wait := time.Duration(0), 5*time.Second
		for at <= 22*time.Minute {
			want = append(want, at)
			at += wait
			wait = min(2*wait, 5*time.Minute)
		}
		if got := net.dialled(); !slices.Equal(got, want) {
			t.Errorf("dialled at %v, want %v", got, want)
		}
	})
}

func TestReadyListRedialsWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newFakeNet()
		net.reachable = true
		l := NewReadyList(net, nil)
		defer l.Close()
		if err := l.Add("bob", nil); err != nil {
			t.Fatal(err)
		}
		wait(t.Context(), time.Hour)
		net.set("bob", false)
		wait(t.Context(), time.Second)
		net.set("bob", false) // a peer that drops at once isn't dialled in a tight loop
		wait(t.Context(), time.Minute)
		want := []time.Duration{0, time.Hour, time.Hour + 5*time.Second}
		if got := net.dialled(); !slices.Equal(got, want) {
			t.Errorf("dialled at %v, want %v", got, want)
		}
	})
}

// Row 36: who is on the ready list is not pushed out by others.
func TestAbuse36_ReadyPeersAreProtected(t *testing.T) {
	conns, err := connmgr.NewConnManager(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	l := NewReadyList(newFakeNet(), conns)
	defer l.Close()
	bob := newKey(t).PeerID()
	if err := l.Add(bob, nil); err != nil {
		t.Fatal(err)
	}
	if !conns.IsProtected(bob, readyTag) {
		t.Error("the peer isn't protected")
	}
	if tag := conns.GetTagInfo(bob); tag == nil || tag.Value != readyValue {
		t.Errorf("tag %+v, want %d", tag, readyValue)
	}
	l.Remove(bob)
	if conns.IsProtected(bob, readyTag) {
		t.Error("the removed peer is still protected")
	}
}

func TestReadyListBounds(t *testing.T) {
	l := NewReadyList(newFakeNet(), nil)
	defer l.Close()
	for i := range maxReady {
		if err := l.Add(identity.PeerID(fmt.Sprint(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Add("one more", nil); identity.CodeOf(err) != identity.CodeLimit {
		t.Errorf("got %v, want limit", err)
	}
	if err := l.Add("1", nil); err != nil {
		t.Errorf("adding a known peer again: %v", err)
	}
	for _, id := range l.Peers() {
		l.Remove(id)
	}
	if n := len(l.Peers()); n != 0 {
		t.Errorf("%d left", n)
	}
	l.Close()
	if err := l.Add("1", nil); identity.CodeOf(err) != identity.CodeClosed {
		t.Errorf("after close: %v, want closed", err)
	}
}

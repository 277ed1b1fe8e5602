package host

import (
	"context"
	"errors"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// fakeFinder tells batches of addresses, then err, or waits for its context.
type fakeFinder struct {
	batches [][]ma.Multiaddr
	err     error
	hangs   bool
	began   chan struct{} // closed by the call
	ended   chan struct{} // closed when it ends
}

func (f *fakeFinder) Find(ctx context.Context, _ identity.PeerID, found func([]ma.Multiaddr)) error {
	if f.began != nil {
		close(f.began)
	}
	for _, b := range f.batches {
		found(b)
	}
	if f.hangs {
		<-ctx.Done()
	}
	if f.ended != nil {
		close(f.ended)
	}
	return f.err
}

func TestFinder(t *testing.T) {
	target := newNode(t, loopback())
	target.Handle(echo, echoHandler)
	right := bareAddrs(target.Addrs())
	wrong := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}
	nothing := errors.New("asked everybody")
	tests := []struct {
		name   string
		known  []ma.Multiaddr
		finder *fakeFinder
		want   string // part of the error; "" for success
	}{
		{"found", nil, &fakeFinder{batches: [][]ma.Multiaddr{right}}, ""},
		{"found at the second try", nil, &fakeFinder{batches: [][]ma.Multiaddr{wrong, right}}, ""},
		{"found while the finder goes on", nil, &fakeFinder{batches: [][]ma.Multiaddr{right}, hangs: true}, ""},
		{"the known address is old", wrong, &fakeFinder{batches: [][]ma.Multiaddr{right}}, ""},
		{"the known address is right", right, &fakeFinder{hangs: true}, ""},
		{"nothing found", nil, &fakeFinder{err: nothing}, "asked everybody"},
		{"found, but wrong", nil, &fakeFinder{batches: [][]ma.Multiaddr{wrong}}, "dial /ip4/127.0.0.1/tcp/1"},
		{"known, but wrong, and nothing found", wrong, &fakeFinder{err: nothing}, "dial /ip4/127.0.0.1/tcp/1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, loopback())
			n.SetFinder(tt.finder)
			p := newPage(t, n)
			p.AddAddrs(target.Local(), tt.known, peerstore.PermanentAddrTTL)
			if tt.want == "" {
				roundTrip(t, p, target.Local())
				return
			}
			_, err := p.Open(deadline(t), target.Local(), echo)
			if e := wantCode(t, err, identity.CodeUnreachable); !strings.Contains(e.Text, tt.want) {
				t.Errorf("text %q, want %q in it", e.Text, tt.want)
			}
		})
	}
}

// A search ends with the call that asked for it, and Close ends both.
func TestFinderEnds(t *testing.T) {
	nobody := newKey(t).PeerID()
	for name, end := range map[string]func(*Page, context.CancelFunc){
		"cancelled": func(_ *Page, cancel context.CancelFunc) { cancel() },
		"closed":    func(p *Page, _ context.CancelFunc) { _ = p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, loopback())
			f := &fakeFinder{hangs: true, began: make(chan struct{}), ended: make(chan struct{})}
			n.SetFinder(f)
			p := newPage(t, n)
			ctx, cancel := context.WithCancel(deadline(t))
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := p.Open(ctx, nobody, echo)
				done <- err
			}()
			select {
			case <-f.began:
			case <-ctx.Done():
				t.Fatal("nobody asked the finder")
			}
			end(p, cancel)
			err := <-done
			if code := identity.CodeOf(err); code != identity.CodeCancelled && code != identity.CodeClosed {
				t.Errorf("got %v", err)
			}
			<-f.ended
		})
	}
}

// What discovery learns reaches whoever waits, on every page.
func TestFoundIsTold(t *testing.T) {
	n := newNode(t, loopback())
	pages := []*Page{newPage(t, n), newPage(t, n)}
	id := newKey(t).PeerID()
	told := make(chan int, 16)
	watch := func(i int, notify func(func(identity.PeerID)) func()) {
		t.Cleanup(notify(func(got identity.PeerID) {
			if got == id {
				told <- i
			}
		}))
	}
	for i, p := range pages {
		watch(i, p.Notify)
	}
	watch(len(pages), n.Notify)
	n.Found(id, []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}, peerstore.TempAddrTTL)
	seen := make(map[int]bool)
	for len(seen) <= len(pages) {
		select {
		case i := <-told:
			seen[i] = true
		case <-deadline(t).Done():
			t.Fatalf("only %v were told", seen)
		}
	}
	if n.Path(id).Path != network.PathNone {
		t.Errorf("path %+v of a peer that nobody dialled", n.Path(id))
	}
}

// Who waits for a page is told when it appears on the same node, and when it
// goes.
func TestLocalPageIsTold(t *testing.T) {
	n := newNode(t, loopback())
	a, key := newPage(t, n), newKey(t)
	told := make(chan network.Path, 16)
	defer a.Notify(func(id identity.PeerID) {
		if id == key.PeerID() {
			told <- a.Path(id).Path
		}
	})()
	want := func(path network.Path) {
		t.Helper()
		ctx := deadline(t)
		for {
			select {
			case got := <-told:
				if got == path {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never told of path %s", path)
			}
		}
	}
	b, err := n.Page(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	want(network.PathLocal)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	want(network.PathNone)
}

package peer

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/internal/peertest"
	"github.com/parley-p2p/parley/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chat network.Protocol = "/chat/1"

// key gives the n-th test key.
func key(t testing.TB, n int) identity.Key {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n)+1)
	k, err := identity.KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// page is a session for tests: it takes messages and settles them as told.
type page struct {
	settles bool
	room    chan struct{}          // nil: always room
	on      func(network.Delivery) // called in Receive once taken; nil keeps it
	refuse  func(network.Delivery) error

	mu  sync.Mutex
	got []network.Delivery
	new chan struct{}
}

func newPage(settles bool) *page { return &page{settles: settles, new: make(chan struct{}, 1)} }

// handling is a page whose handler returns at once.
func handling() *page {
	p := newPage(true)
	p.on = func(d network.Delivery) { d.Handled() }
	return p
}

func (p *page) SettlesDeliveries() bool { return p.settles }

func (p *page) Receive(ctx context.Context, d network.Delivery) error {
	if p.room != nil {
		select {
		case <-p.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if p.refuse != nil {
		if err := p.refuse(d); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.got = append(p.got, d)
	p.mu.Unlock()
	select {
	case p.new <- struct{}{}:
	default:
	}
	if p.on != nil {
		p.on(d)
	}
	return nil
}

// texts lists what came, in order.
func (p *page) texts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]string, len(p.got))
	for i, d := range p.got {
		list[i] = string(d.Content().Data)
	}
	return list
}

// wait waits until n messages have come and gives the n-th.
func (p *page) wait(t testing.TB, n int) network.Delivery {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		p.mu.Lock()
		if len(p.got) >= n {
			defer p.mu.Unlock()
			return p.got[n-1]
		}
		p.mu.Unlock()
		select {
		case <-p.new:
		case <-limit.C:
			t.Fatalf("only %d messages came, wanted %d", len(p.texts()), n)
		}
	}
}

// world is a few nodes on one in-memory network.
type world struct {
	t       testing.TB
	cluster *peertest.Cluster
	nodes   []*Node
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, cluster: peertest.New()}
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.Close()
	}
	w.cluster.Close()
	w.nodes = nil
}

func (w *world) node(cfg Config) *Node {
	n := New(cfg)
	w.nodes = append(w.nodes, n)
	return n
}

// peer adds the k-th key's peer to n, with one page on it that started chat.
func (w *world) peer(n *Node, k int, r network.Receiver, protocols ...network.Protocol) (*Peer, *Member) {
	w.t.Helper()
	p, err := n.Add(w.cluster.Host(key(w.t, k)))
	if err != nil {
		w.t.Fatal(err)
	}
	m := p.Join(r)
	for _, protocol := range protocols {
		if err := m.Start(protocol); err != nil {
			w.t.Fatal(err)
		}
	}
	return p, m
}

// hostGone takes the k-th key's host off the network.
func (w *world) hostGone(k int) { w.cluster.Host(key(w.t, k)).Close() }

// result is a send's outcome to come.
type result chan network.Outcome

func (r result) wait(t testing.TB) network.Outcome {
	t.Helper()
	select {
	case o := <-r:
		return o
	case <-time.After(10 * time.Minute): // virtual in most tests
		t.Fatal("send was never settled")
		return network.Outcome{}
	}
}

func outgoing(to identity.PeerID, text string, level network.Level) (network.Outgoing, result) {
	r := make(result, 2) // a second outcome would be a fault, and be seen
	return network.Outgoing{To: to, Protocol: chat, Level: level,
		Content: network.Content{Type: network.JSON, Data: []byte(text)},
		Done:    func(o network.Outcome) { r <- o }}, r
}

// send sends text and expects it to be taken into the outbox.
func send(t testing.TB, m *Member, to identity.PeerID, text string, level network.Level) result {
	t.Helper()
	out, r := outgoing(to, text, level)
	if _, err := m.Send(out); err != nil {
		t.Fatalf("Send(%q): %v", text, err)
	}
	return r
}

func wantCode(t testing.TB, err error, code identity.Code, text string) {
	t.Helper()
	if identity.CodeOf(err) != code || (err != nil && err.Error() != text) {
		t.Fatalf("error is %q (%s), want %q (%s)", fmt.Sprint(err), identity.CodeOf(err), text, code)
	}
}

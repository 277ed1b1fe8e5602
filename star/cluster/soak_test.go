package cluster_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// fleet is three stars and many clients that come, dial each other wherever they are,
// have their bytes echoed and go, while stars and NATS servers are killed.
type fleet struct {
	// Static after construction.
	t       *testing.T
	nats    *natstest.Servers
	times   cluster.Times
	pause   time.Duration // between two exchanges of a client, on average
	tr      *http.Transport
	stay    []string // addresses that are dialled
	ending  sync.WaitGroup
	dials   atomic.Int64 // whole ones
	crossed atomic.Int64 // dials that ended with an error, across a kill
	carried atomic.Int64
	returns atomic.Int64
	away    atomic.Int64 // nanoseconds: the longest that a member was lost

	mu    sync.Mutex
	nodes []*node
	kills []time.Time
}

// after a kill this long dials may fail: its lease has to run out, and members have
// to come back.
const afterKill = 20 * time.Second

func newFleet(t *testing.T, natsNodes int, times cluster.Times, pause time.Duration) *fleet {
	f := &fleet{t: t, nats: natstest.Start(t, natsNodes), times: times, pause: pause,
		tr: &http.Transport{MaxIdleConnsPerHost: 1 << 16, IdleConnTimeout: socketio.IdleTime}}
	t.Cleanup(f.tr.CloseIdleConnections)
	for range 3 {
		f.add()
	}
	return f
}

func (f *fleet) add() {
	o := star.Options{Drain: -1, Limits: star.Limits{SessionsPerIP: -1, NewSessionsPerIP: -1, NewSessionBurst: -1, AddressesPerIP: -1}}
	n := start(f.t, f.nats.URL(), o, cluster.Options{Times: f.times})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes = append(f.nodes, n)
}

// killed notes a fault.
func (f *fleet) killed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kills = append(f.kills, time.Now())
}

// killStar ends the oldest star and starts another one.
func (f *fleet) killStar() {
	f.killed()
	f.mu.Lock()
	n := f.nodes[0]
	f.nodes = f.nodes[1:]
	f.mu.Unlock()
	n.kill()
	f.ending.Go(n.stop) // what a dead process would not keep either
	f.add()
}

// crosses says whether something was killed not long before the time from since on.
func (f *fleet) crosses(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.kills, func(k time.Time) bool { return since.Before(k.Add(afterKill)) })
}

func (f *fleet) any(r *rand.Rand) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[r.IntN(len(f.nodes))]
}

// mate is one client, over all its connections.
type mate struct {
	f    *fleet
	rng  *rand.Rand
	key  crypto.PrivKey
	pub  string
	addr string
	used int
	life *mateLife
}

// mateLife is one connection of it.
type mateLife struct {
	sock  *socketio.Socket
	stop  func()
	ended chan struct{} // closed

	mu   sync.Mutex
	id   string // of the dial under way
	data []byte
	end  chan string
}

func (f *fleet) mate(i int) *mate {
	priv, pub, addr := key(f.t)
	m := &mate{f: f, rng: rand.New(rand.NewPCG(2, uint64(i))), key: priv, pub: pub, addr: addr}
	if i%5 != 4 {
		f.stay = append(f.stay, addr)
	}
	return m
}

// come connects somewhere and joins, by proof.
func (m *mate) come() error {
	l := &mateLife{ended: make(chan struct{}), end: make(chan string, 4)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cl, err := socketio.Dial(ctx, m.f.any(m.rng).url, socketio.DialOptions{Handler: l, Query: extended, HTTP: &http.Client{Transport: m.f.tr}})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = cl.Run(running) }()
	l.sock, l.stop = cl.Socket(), func() { stop(); <-done }
	first := l.call("ss-join", m.addr, m.pub)
	nonce, ok := strings.CutPrefix(strings.TrimSuffix(first, `"]`), `[null,"`)
	if !ok {
		l.stop()
		return fmt.Errorf("no nonce: %s", first)
	}
	sig, err := m.key.Sign([]byte(nonce))
	if err != nil {
		return err
	}
	if got := l.call("ss-join", m.addr, hex.EncodeToString(sig)); !strings.HasPrefix(got, "[null,null,[") {
		l.stop()
		return fmt.Errorf("join: %.100s", got)
	}
	m.life = l
	return nil
}

func (l *mateLife) call(name string, args ...string) string {
	answer := make(chan string, 1)
	id := l.sock.Expect(func(a socketio.Answer) {
		if a.Err != nil {
			answer <- a.Err.Error()
			return
		}
		answer <- "[" + string(bytes.Join(a.Args, []byte(","))) + "]"
	})
	if err := l.sock.Send(flow.Bulk, socketio.Msg{Text: build(new(wire.Builder).Event(nil, id, name), args)}); err != nil {
		l.sock.Forget(id)
		return err.Error()
	}
	return <-answer
}

func (l *mateLife) emit(name string, args ...string) {
	_ = l.sock.Send(flow.Bulk, socketio.Msg{Text: build(new(wire.Builder).Event(nil, wire.NoAck, name), args)}) // its end is seen elsewhere
}

func (l *mateLife) chunk(stream string, data []byte) {
	text := new(wire.Builder).Binary(nil, 1, proxy.Queue+stream).Placeholder(0).Done()
	_ = l.sock.Send(flow.Bulk, socketio.Msg{Text: text, Bin: append([]byte{4}, data...)}) // as in emit
}

// Event answers dials, echoes what comes by them, and keeps what comes back.
func (l *mateLife) Event(_ *socketio.Socket, e *socketio.Event) error {
	if e.Name == "ss-incomming" {
		id, _ := e.Text(0)
		l.emit(proxy.Accept + id + ".dialer")
		_ = l.sock.Send(flow.Bulk, socketio.Msg{Text: new(wire.Builder).Ack(nil, e.AckID()).Done()})
		return nil
	}
	verb, id, kind, ok := proxy.SplitName(e.Name)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	data, _ := e.Bytes(0)
	switch {
	case verb == proxy.Queue && kind == proxy.Dialer:
		l.chunk(id+".listener", data)
	case verb == proxy.Error && kind == proxy.Dialer:
		l.emit(proxy.Error+id+".listener", "="+string(e.Args[0]))
	case verb == proxy.Queue && id == l.id:
		l.data = append(l.data, data...)
	case verb == proxy.Error && id == l.id:
		l.end <- string(e.Args[0])
	}
	return nil
}

func (l *mateLife) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }

func (l *mateLife) Disconnected(*socketio.Socket, error) { close(l.ended) }

// exchange dials one of those that stay, within the window of a stream. What it gives
// is an error that is allowed across a kill alone. Never is a stream shortened without
// one: the client has the extensions, others are told of who vanished as the
// reference tells it.
func (m *mate) exchange() error {
	l := m.life
	m.used++
	id := fmt.Sprintf("%s-%d", m.addr[len(m.addr)-8:], m.used)
	l.mu.Lock()
	l.id, l.data = id, nil
	l.mu.Unlock()
	if got := l.call("ss-dial", m.addr, m.f.stay[m.rng.IntN(len(m.f.stay))], id); got != "[]" {
		return fmt.Errorf("dial: %s", got)
	}
	l.emit(proxy.Accept + id + ".listener")
	var sent []byte
	for range 1 + m.rng.IntN(6) {
		data := bytes.Repeat([]byte{byte(m.rng.Uint32()), byte(m.used)}, 1+m.rng.IntN(16<<10))
		sent = append(sent, data...)
		l.chunk(id+".dialer", data)
	}
	l.emit(proxy.Error+id+".dialer", "=true")
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case end := <-l.end:
		l.mu.Lock()
		defer l.mu.Unlock()
		if !bytes.HasPrefix(sent, l.data) {
			m.f.t.Errorf("other bytes came back")
		}
		if end != "true" || len(l.data) != len(sent) {
			if end == "true" {
				m.f.t.Errorf("%d of %d bytes came back, as if that were all", len(l.data), len(sent))
			}
			return fmt.Errorf("%d of %d bytes came back, then %s", len(l.data), len(sent), end)
		}
	case <-l.ended:
		return fmt.Errorf("the connection ended")
	case <-limit.C:
		m.f.t.Errorf("a dial hangs: %d of %d bytes", len(l.data), len(sent))
		return fmt.Errorf("it hangs")
	}
	m.f.dials.Add(1)
	m.f.carried.Add(2 * int64(len(sent)))
	return nil
}

// live is the client until ctx ends: it exchanges, comes back where its star has
// died, and one in five leaves and comes back of its own.
func (m *mate) live(ctx context.Context, churns bool) {
	for {
		rest := time.NewTimer(time.Duration((0.5 + m.rng.Float64()) * float64(m.f.pause)))
		select {
		case <-rest.C:
			since := time.Now()
			if err := m.exchange(); err != nil {
				if m.f.crossed.Add(1); !m.f.crosses(since) {
					m.f.t.Errorf("nothing was killed, and %v", err)
				}
			}
			if !churns {
				continue
			}
		case <-m.life.ended:
			if rest.Stop(); !m.f.crosses(time.Now()) {
				m.f.t.Error("a connection ended, and nothing was killed")
			}
		case <-ctx.Done():
			rest.Stop()
			return
		}
		m.life.stop()
		m.f.returns.Add(1)
		m.comeBack()
	}
}

// comeBack tries until it is a member again.
func (m *mate) comeBack() {
	lost := time.Now()
	for {
		err := m.come()
		if err == nil {
			break
		}
		if !m.f.crosses(lost) {
			m.f.t.Errorf("nothing was killed, and %v", err)
		}
		<-time.After(100 * time.Millisecond)
	}
	away := int64(time.Since(lost))
	for old := m.f.away.Load(); away > old && !m.f.away.CompareAndSwap(old, away); {
		old = m.f.away.Load()
	}
}

// soak has n clients for some time. look is called ten times, and may kill something.
func (f *fleet) soak(n int, lasting time.Duration, look func(i int)) {
	var all []*mate
	for i := range n {
		all = append(all, f.mate(i))
	}
	var coming sync.WaitGroup
	few := make(chan struct{}, 16)
	for _, m := range all {
		few <- struct{}{}
		coming.Go(func() { m.comeBack(); <-few })
	}
	coming.Wait()
	for _, node := range f.nodes {
		eventually(f.t, "all are known everywhere", func() bool { return len(node.star.Members()) == n })
	}
	ctx, cancel := context.WithCancel(context.Background())
	var living sync.WaitGroup
	for i, m := range all {
		living.Go(func() { m.live(ctx, i%5 == 4) })
	}
	for i := range 10 {
		<-time.After(lasting / 10)
		look(i)
	}
	cancel()
	living.Wait()
	for _, node := range f.nodes { // whoever came last is known, and nobody else
		eventually(f.t, "all are known everywhere", func() bool { return len(node.star.Members()) == n })
	}
	for _, m := range all {
		m.life.stop()
	}
	f.ending.Wait()
	for _, node := range f.nodes {
		eventually(f.t, "nothing is left", func() bool {
			s := node.star.Stats()
			return s.Members+s.Sessions+s.Streams.Dials == 0 && s.Streams.Held == 0
		})
	}
	if away := time.Duration(f.away.Load()); away > patience() {
		f.t.Errorf("a member was lost for %v", away)
	}
	f.t.Logf("%d dials, %d of them with an error across a kill; %d returns, the longest took %v; %.1f MB carried",
		f.dials.Load()+f.crossed.Load(), f.crossed.Load(), f.returns.Load(), time.Duration(f.away.Load()).Round(time.Millisecond), float64(f.carried.Load())/1e6)
}

func heapInUse() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A cluster with clients everywhere, of which one in five comes and goes, lives
// through the kill of a star: dials fail across it alone, nothing is shortened in
// silence, everybody is back within the time, and nothing is left.
func TestSoak(t *testing.T) {
	f := newFleet(t, 1, quick, time.Second)
	f.soak(30, 10*time.Second, func(i int) {
		if i == 2 {
			f.killStar()
		}
	})
}

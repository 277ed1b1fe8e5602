package star_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ppeer "github.com/libp2p/go-libp2p/core/peer"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// soak is many clients that come, dial, have their bytes echoed and go, for a long
// time. Most stay; every dial is to one of those, so none may fail.
type soak struct {
	// Static after construction.
	client *http.Client
	base   *url.URL
	pause  time.Duration // between two exchanges of a client, on average

	stay []*soaker

	dials, carried, returns atomic.Int64
	fail                    func(format string, args ...any)
}

// soaker is one client, over all its connections.
type soaker struct {
	k    *soak
	rng  *mrand.Rand
	opts socketio.DialOptions
	key  crypto.PrivKey
	addr string
	used int // ids of dials

	sock *socketio.Socket
	stop func()

	mu      sync.Mutex
	streams map[string]*echoed
}

// echoed is what came back of a dial.
type echoed struct {
	data []byte
	end  chan string
}

func (k *soak) soaker(i int) (*soaker, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := libp2ppeer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	s := &soaker{k: k, rng: mrand.New(mrand.NewPCG(1, uint64(i))), key: key, addr: strict(id.String()), streams: map[string]*echoed{}}
	switch i % 10 {
	case 3:
		s.opts = extended
	case 6:
		s.opts.Transport = socketio.Polling
	case 9:
		s.opts = socketio.DialOptions{Transport: socketio.Polling, Upgrade: true}
	}
	s.opts.Handler, s.opts.HTTP = s, k.client
	return s, nil
}

// come connects and joins, by proof.
func (s *soaker) come() error {
	cl, err := socketio.Dial(context.Background(), s.k.base, s.opts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = cl.Run(ctx) }()
	s.sock = cl.Socket()
	s.stop = func() { cancel(); <-done }
	pub, err := crypto.MarshalPublicKey(s.key.GetPublic())
	if err != nil {
		return err
	}
	var nonce string
	if err := json.Unmarshal([]byte(s.call("ss-join", s.addr, hex.EncodeToString(pub))), &[]any{nil, &nonce}); err != nil || nonce == "" {
		return fmt.Errorf("no nonce: %w", err)
	}
	signature, err := s.key.Sign([]byte(nonce))
	if err != nil {
		return err
	}
	if got := s.call("ss-join", s.addr, hex.EncodeToString(signature)); !strings.HasPrefix(got, "[null,null,[") {
		return fmt.Errorf("join: %.100s", got)
	}
	return nil
}

func (s *soaker) call(name string, args ...string) string {
	answer := make(chan string, 1)
	id := s.sock.Expect(func(a socketio.Answer) {
		if a.Err != nil {
			answer <- a.Err.Error()
			return
		}
		answer <- "[" + string(bytes.Join(a.Args, []byte(","))) + "]"
	})
	if err := s.send(new(wire.Builder).Event(nil, id, name), args...); err != nil {
		s.sock.Forget(id) // it may have ended before it could be told so
		return err.Error()
	}
	return <-answer
}

func (s *soaker) send(b *wire.Builder, args ...string) error {
	return s.sock.Send(flow.Bulk, socketio.Msg{Text: build(b, args)})
}

func (s *soaker) say(b *wire.Builder, args ...string) {
	_ = s.send(b, args...) // one that ends is seen by what does not come
}

func (s *soaker) emit(name string, args ...string) {
	s.say(new(wire.Builder).Event(nil, wire.NoAck, name), args...)
}

func (s *soaker) chunk(stream string, data []byte) {
	text := new(wire.Builder).Binary(nil, 1, proxy.Queue+stream).Placeholder(0).Done()
	_ = s.sock.Send(flow.Bulk, socketio.Msg{Text: text, Bin: append([]byte{4}, data...)}) // as in say
}

// Event answers dials, echoes what comes by them, and keeps what comes back.
func (s *soaker) Event(_ *socketio.Socket, e *socketio.Event) error {
	if e.Name == "ss-incomming" {
		id, _ := e.Text(0)
		s.emit(proxy.Accept + id + ".dialer")
		s.say(new(wire.Builder).Ack(nil, e.AckID()))
		return nil
	}
	verb, id, kind, ok := proxy.SplitName(e.Name)
	if !ok {
		return nil
	}
	s.mu.Lock()
	mine := s.streams[id]
	s.mu.Unlock()
	data, _ := e.Bytes(0)
	switch {
	case verb == proxy.Queue && kind == proxy.Dialer:
		s.chunk(id+".listener", data)
	case verb == proxy.Error && kind == proxy.Dialer:
		s.emit(proxy.Error+id+".listener", "=true")
	case verb == proxy.Queue && mine != nil:
		mine.data = append(mine.data, data...)
	case verb == proxy.Error && mine != nil:
		mine.end <- string(e.Args[0])
	}
	return nil
}

func (s *soaker) Binary(*socketio.Socket, []byte, []byte, **ws.Buf) bool { return false }

// Disconnected ends what waits for an echo.
func (s *soaker) Disconnected(_ *socketio.Socket, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		st.end <- fmt.Sprint("disconnected: ", reason)
	}
	clear(s.streams)
}

// exchange dials one of those that stay and compares what comes back. whole is
// false where it shall go away in the middle.
func (s *soaker) exchange(whole bool) {
	to := s.k.stay[s.rng.IntN(len(s.k.stay))].addr
	s.used++
	id := fmt.Sprintf("%s-%d", s.addr[len(s.addr)-8:], s.used)
	st := &echoed{end: make(chan string, 2)}
	s.mu.Lock()
	s.streams[id] = st
	s.mu.Unlock()
	if got := s.call("ss-dial", s.addr, to, id); got != "[]" {
		s.k.fail("dial: %s", got)
		return
	}
	s.emit(proxy.Accept + id + ".listener")
	var sent []byte
	for range 1 + s.rng.IntN(6) {
		data := bytes.Repeat([]byte{byte(s.rng.Uint32()), byte(s.used)}, 1+s.rng.IntN(4<<10))
		sent = append(sent, data...)
		s.chunk(id+".dialer", data)
	}
	if !whole {
		return
	}
	s.emit(proxy.Error+id+".dialer", "=true")
	end := <-st.end
	s.mu.Lock()
	delete(s.streams, id)
	s.mu.Unlock()
	if end != "true" || !bytes.Equal(st.data, sent) {
		s.k.fail("%d of %d bytes came back, then %s", len(st.data), len(sent), end)
	}
	s.k.dials.Add(1)
	s.k.carried.Add(2 * int64(len(sent)))
}

// rest waits a while; false when it is over.
func (s *soaker) rest(ctx context.Context) bool {
	timer := time.NewTimer(time.Duration((0.5 + s.rng.Float64()) * float64(s.k.pause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// staying exchanges until ctx ends.
func (s *soaker) staying(ctx context.Context) {
	for s.rest(ctx) {
		s.exchange(true)
	}
}

// coming and going until ctx ends: by leave, in an orderly way, and in the middle.
func (s *soaker) coming(ctx context.Context) {
	for s.rest(ctx) {
		s.exchange(true)
		switch s.rng.IntN(3) {
		case 0:
			s.emit("ss-leave", s.addr)
		case 1:
			s.exchange(false)
		}
		s.stop()
		if err := s.come(); err != nil {
			s.k.fail("coming back: %v", err)
			return
		}
		s.k.returns.Add(1)
	}
}

// run keeps n clients for some time, one in five of which come and go. look is
// called ten times.
func (k *soak) run(t *testing.T, n int, lasting time.Duration, look func(i int)) {
	var all []*soaker
	for i := range n {
		s, err := k.soaker(i)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, s); i%5 != 4 {
			k.stay = append(k.stay, s)
		}
	}
	var coming sync.WaitGroup
	few := make(chan struct{}, 16)
	for _, s := range all {
		few <- struct{}{}
		coming.Go(func() {
			if err := s.come(); err != nil {
				k.fail("coming: %v", err)
			}
			<-few
		})
	}
	coming.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	for i, s := range all {
		if i%5 != 4 {
			busy.Go(func() { s.staying(ctx) })
		} else {
			busy.Go(func() { s.coming(ctx) })
		}
	}
	for i := range 10 {
		<-time.After(lasting / 10)
		look(i)
	}
	cancel()
	busy.Wait()
	for _, s := range all {
		if s.sock.Err() != nil {
			k.fail("one ended: %v", s.sock.Err())
		}
		busy.Go(s.stop)
	}
	busy.Wait()
}

var soaking = star.Options{Drain: -1, Limits: star.Limits{SessionsPerIP: -1, NewSessionsPerIP: -1, NewSessionBurst: -1, AddressesPerIP: -1}}

// Clients of every kind come, talk and go for minutes: every byte comes back, and
// nothing is left. PARLEY_LONG makes of it thousands of real connections and looks
// at the memory; see TestSoakForLong.
func TestSoak(t *testing.T) {
	bubble(t, soaking, func(t *testing.T, w *world) {
		k := &soak{client: w.client, base: w.base, pause: 3 * time.Second, fail: t.Errorf}
		k.run(t, 20, 40*time.Second, func(int) {
			if n := w.star.Stats().Members; n < 16 || n > 20 {
				t.Errorf("%d members of 20", n)
			}
		})
		<-time.After(time.Minute) // virtual: of sessions that poll the star may hear no goodbye
		if s := w.star.Stats(); s.Members != 0 || s.Sessions != 0 || s.Streams.Dials != 0 || s.Streams.Held != 0 {
			t.Errorf("left: %+v", s)
		}
		if k.dials.Load() < 100 || k.returns.Load() < 20 {
			t.Errorf("only %d dials and %d returns", k.dials.Load(), k.returns.Load())
		}
	})
}

package transport_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
	"github.com/parley-p2p/parley/star/transport"
)

// switchboard is a star that connects whom it wants, and tells each what it wants of
// the other. All of a stream it passes on as it came.
type switchboard struct {
	route  func(from, to string) (callee, claim string) // addresses
	onDial func(s *socketio.Socket, id string)          // instead: what becomes of a dial

	mu    sync.Mutex // guards the above, too
	at    map[string]*socketio.Socket
	pairs map[string][2]*socketio.Socket // by dial
}

func (b *switchboard) connect(*socketio.Socket, *http.Request) (json.RawMessage, error) {
	return json.RawMessage(`{"v":1,"policy":{},"window":65536}`), nil
}

func (b *switchboard) Event(s *socketio.Socket, e *socketio.Event) error {
	var answer wire.Builder
	switch e.Name {
	case "ss-join":
		answer.Ack(nil, e.AckID()).Raw("null")
		if data, _ := e.Text(1); strings.HasPrefix(data, "0801") {
			answer.Str(goodNonce)
		} else {
			answer.Raw("null").Raw("[]")
			addr, _ := e.Text(0)
			b.mu.Lock()
			b.at[addr] = s
			b.mu.Unlock()
		}
		return s.Send(flow.Control, socketio.Msg{Text: answer.Done()})
	case "ss-dial":
		b.dial(s, e)
	default:
		if _, id, _, ok := proxy.SplitName(e.Name); ok {
			var on wire.Builder
			on.Event(nil, wire.NoAck, e.Name)
			for _, a := range e.Args {
				on.Raw(string(a))
			}
			b.pass(s, id, socketio.Msg{Text: on.Done()})
		}
	}
	return nil
}

func (b *switchboard) dial(s *socketio.Socket, e *socketio.Event) {
	from, _ := e.Text(0)
	to, _ := e.Text(1)
	id, _ := e.Text(2)
	ack := e.AckID()
	b.mu.Lock()
	route, onDial := b.route, b.onDial
	b.mu.Unlock()
	done := func() {
		var answer wire.Builder
		_ = s.Send(flow.Control, socketio.Msg{Text: answer.Ack(nil, ack).Done()})
	}
	if onDial != nil {
		done()
		_ = s.Send(flow.Control, socketio.Msg{Text: proxy.EventText(proxy.Accept, id, proxy.Dialer, "")})
		onDial(s, id)
		return
	}
	callee, claim := route(from, to)
	b.mu.Lock()
	other := b.at[callee]
	b.pairs[id] = [2]*socketio.Socket{s, other}
	b.mu.Unlock()
	var ring wire.Builder
	ring.Event(nil, other.Expect(func(socketio.Answer) { done() }), "ss-incomming").Str(id).Str(claim)
	_ = other.Send(flow.Control, socketio.Msg{Text: ring.Done()})
}

// lie changes what it does.
func (b *switchboard) lie(route func(from, to string) (callee, claim string), onDial func(s *socketio.Socket, id string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.route, b.onDial = route, onDial
}

func (b *switchboard) pass(s *socketio.Socket, id string, m socketio.Msg) {
	b.mu.Lock()
	pair := b.pairs[id]
	b.mu.Unlock()
	other := pair[0]
	if s == pair[0] {
		other = pair[1]
	}
	if other != nil {
		_ = other.Send(flow.Bulk, m)
	}
}

func (b *switchboard) Binary(s *socketio.Socket, text, data []byte, _ **ws.Buf) bool {
	id, _, ok := proxy.Route(text)
	if ok {
		b.pass(s, string(id), socketio.Msg{Text: append([]byte(nil), text...), Bin: append([]byte(nil), data...)})
	}
	return ok
}

func (b *switchboard) Disconnected(*socketio.Socket, error) {}

// serve puts it where the star is.
func (b *switchboard) serve(w *world) {
	b.at, b.pairs = make(map[string]*socketio.Socket), make(map[string][2]*socketio.Socket)
	srv := socketio.NewServer(socketio.Options{Handler: b, Connect: b.connect})
	w.serve("star.test:80", srv)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Run(ctx) }()
	w.atEnd(func() { cancel(); <-done })
}

func addrOf(id peer.ID) string { return where + "/ipfs/" + id.String() }

// A star that connects a dial to somebody else, or says that another is calling, is
// found out by the handshake: nobody is taken for who they are not.
func TestAbuse39_StarSwapsPeers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := &switchboard{}
		b.serve(w)
		var nodes []*node
		for range 3 {
			n := w.node(transport.Options{}).listen(w, where)
			n.state(where, transport.Joined)
			nodes = append(nodes, n)
		}
		ada, bo, mallory := nodes[0], nodes[1], nodes[2]

		b.lie(func(from, to string) (string, string) { return to, from }, nil) // an honest one
		here, there := ada.connect(w, bo, where)
		echo(t, here, there, "hello")

		b.lie(func(from, _ string) (string, string) { return addrOf(mallory.id), from }, nil)
		if c, err := ada.Dial(t.Context(), ma.StringCast(where), bo.id); err == nil {
			t.Errorf("dialled %s and got %s", bo.id, c.RemotePeer())
		}

		b.lie(func(_, to string) (string, string) { return to, addrOf(ada.id) }, nil)
		if c, err := mallory.Dial(t.Context(), ma.StringCast(where), bo.id); err == nil {
			if _, err := c.AcceptStream(); err == nil {
				t.Error("a stream under a false name")
			}
		}
		pause(time.Minute)
		if len(bo.conns) != 0 {
			t.Errorf("%s was let in as %s", (<-bo.conns).RemotePeer(), ada.id)
		}
		echo(t, here, there, "the others go on")
	})
}

// A star that sends beyond its credit, grants what makes no sense, or repeats itself
// after the end, loses that connection and nothing else.
func TestAbuse39_StarBreaksTheRulesOfAStream(t *testing.T) {
	chunk := append([]byte{4}, make([]byte, 64<<10)...)
	flood := func(s *socketio.Socket, id string, n int) {
		for range n {
			_ = s.Send(flow.Bulk, socketio.Msg{Text: proxy.QueueText(id, proxy.Listener), Bin: chunk})
		}
	}
	say := func(verb string, kind proxy.Kind, arg string) func(*socketio.Socket, string) {
		return func(s *socketio.Socket, id string) {
			_ = s.Send(flow.Bulk, socketio.Msg{Text: proxy.EventText(verb, id, kind, arg)})
		}
	}
	for name, c := range map[string]struct {
		lie  func(s *socketio.Socket, id string)
		want string
	}{
		"beyond the credit":      {func(s *socketio.Socket, id string) { flood(s, id, 40) }, "more than it had credit"},
		"negative credit":        {say(proxy.Credit, proxy.Dialer, "-5"), "Stream failed"},
		"huge credit":            {say(proxy.Credit, proxy.Dialer, "1099511627776"), "Stream failed"},
		"credit that is none":    {say(proxy.Credit, proxy.Dialer, `{"a":[]}`), "Stream failed"},
		"an end without a cause": {say(proxy.Error, proxy.Listener, "false"), "Stream failed"},
		"an end with an object":  {say(proxy.Error, proxy.Listener, "{}"), "refused: {}"},
		"a clean end, then more": {func(s *socketio.Socket, id string) {
			say(proxy.Error, proxy.Listener, "true")(s, id)
			flood(s, id, 100)
			say(proxy.Error, proxy.Listener, `"again"`)(s, id)
			say(proxy.Accept, proxy.Dialer, "")(s, id)
		}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := &switchboard{onDial: func(*socketio.Socket, string) {}}
				b.serve(w)
				n, other := w.node(transport.Options{}), w.node(transport.Options{})
				good, err := n.DialRaw(t.Context(), ma.StringCast(where), other.id)
				if err != nil {
					t.Fatal(err)
				}
				b.lie(nil, c.lie)
				bad, err := n.DialRaw(t.Context(), ma.StringCast(where), other.id)
				if err != nil {
					t.Fatal(err)
				}
				pause(time.Second) // all of it has come
				for err == nil {
					_, err = bad.Read(make([]byte, 1<<20))
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("read: %v", err)
				}
				_ = good.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := good.Write([]byte("x")); err != nil {
					t.Errorf("the other connection: %v", err)
				}
				if st := n.Status()[0]; st.State != transport.Joined {
					t.Errorf("%+v", st)
				}
				_ = good.Reset()
				_ = bad.Reset()
			})
		})
	}
}

// Incoming dials that make no sense are answered, and those that nobody can take, too.
func TestAbuse39_StrangeIncomingDials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := &switchboard{}
		b.serve(w)
		n := w.node(transport.Options{Limits: transport.Limits{Dials: 2}})
		if _, stop, err := n.ListenRaw(ma.StringCast(where)); err != nil {
			t.Fatal(err)
		} else {
			w.atEnd(stop)
		}
		n.state(where, transport.Joined)
		other := addrOf(w.node(transport.Options{}).id)
		ring := func(args ...string) string {
			var m wire.Builder
			said := make(chan string, 1)
			b.mu.Lock()
			s := b.at[addrOf(n.id)]
			b.mu.Unlock()
			m.Event(nil, s.Expect(func(a socketio.Answer) {
				text := ""
				if len(a.Args) > 0 {
					text, _ = wire.String(a.Args[0])
				}
				said <- text
			}), "ss-incomming")
			for _, a := range args {
				m.Raw(a)
			}
			_ = s.Send(flow.Control, socketio.Msg{Text: m.Done()})
			return <-said
		}
		quoted := func(s string) string { return `"` + s + `"` }
		for name, c := range map[string]struct {
			args []string
			want string
		}{
			"nothing":            {nil, "Invalid arguments"},
			"numbers":            {[]string{"1", "2"}, "Invalid arguments"},
			"no id":              {[]string{`""`, quoted(other)}, "Invalid arguments"},
			"an id too long":     {[]string{quoted(strings.Repeat("x", 129)), quoted(other)}, "Invalid arguments"},
			"from nobody":        {[]string{`"d"`, quoted(where)}, "Dial refused"},
			"from another star":  {[]string{`"d"`, quoted(strings.Replace(other, "star.test", "evil.test", 1))}, "Dial refused"},
			"from the node":      {[]string{`"d"`, quoted(addrOf(n.id))}, "Dial refused"},
			"from what is none":  {[]string{`"d"`, `"/ip4/1.2.3.4/tcp/1"`}, "Dial refused"},
			"from a broken peer": {[]string{`"d"`, quoted(where + "/ipfs/QmX")}, "Dial refused"},
		} {
			if got := ring(c.args...); got != c.want {
				t.Errorf("%s: answered %q, want %q", name, got, c.want)
			}
		}
		for i, want := range []string{"", "Dial id in use", "", "Too many dials"} {
			id := []string{"first", "first", "second", "third"}[i]
			if got := ring(quoted(id), quoted(other)); got != want {
				t.Errorf("dial %d: answered %q, want %q", i, got, want)
			}
		}
	})
}

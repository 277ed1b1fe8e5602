package cluster_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// anywhere is a balancer that knows no sessions: each request goes to the next
// server.
type anywhere struct {
	nodes []*node
	turn  atomic.Int64
	hops  []atomic.Int64 // requests with a session, by server
	tr    http.Transport
}

func balancer(t *testing.T, nodes ...*node) *anywhere {
	b := &anywhere{nodes: nodes, hops: make([]atomic.Int64, len(nodes))}
	t.Cleanup(b.tr.CloseIdleConnections)
	return b
}

func (b *anywhere) RoundTrip(r *http.Request) (*http.Response, error) {
	i := int(b.turn.Add(1)) % len(b.nodes)
	if r.URL.Query().Has("sid") {
		b.hops[i].Add(1)
	}
	r = r.Clone(r.Context())
	r.Host, r.URL.Host = r.URL.Host, b.nodes[i].url.Host
	return b.tr.RoundTrip(r)
}

// client makes one whose every request goes to another server.
func (b *anywhere) client(t *testing.T, o socketio.DialOptions) *testPeer {
	t.Helper()
	o.HTTP = &http.Client{Transport: b}
	return connect(t, &url.URL{Scheme: "http", Host: "star.test"}, o)
}

// Polling needs no sticky balancer: requests of a session that arrive elsewhere are
// passed on, the upgrade to a WebSocket, too.
func TestSessionsArriveAnywhere(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts socketio.DialOptions
	}{
		{"polling", socketio.DialOptions{Transport: socketio.Polling}},
		{"polling with base64", socketio.DialOptions{Transport: socketio.Polling, NoBinary: true}},
		{"upgraded", socketio.DialOptions{Transport: socketio.Polling, Upgrade: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nats := natstest.Start(t, 1).URL()
			var nodes []*node
			for range 3 {
				nodes = append(nodes, start(t, nats, open, cluster.Options{Times: calm}))
			}
			for _, n := range nodes { // leases are known where members are
				n.join("/ip4/9.9.9.9/tcp/" + n.url.Port())
			}
			for _, n := range nodes {
				eventually(t, "members", func() bool { return len(n.star.Members()) == 3 })
			}
			b := balancer(t, nodes...)
			pa, pb := b.client(t, tt.opts), b.client(t, tt.opts)
			pa.join(addrA)
			pb.join(addrB)
			for _, n := range nodes {
				eventually(t, "members", func() bool { return len(n.star.Members()) == 5 })
			}
			pa.dial(addrA, addrB, "d")
			large := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
			pa.chunk("d.dialer", large)
			pb.chunk("d.listener", large)
			if got := pb.received("d.dialer", len(large)); !bytes.Equal(got, large) {
				t.Error("the callee has other bytes")
			}
			if got := pa.received("d.listener", len(large)); !bytes.Equal(got, large) {
				t.Error("the dialer has other bytes")
			}
			pa.emit(proxy.Error+"d.dialer", "=true")
			pb.wait(`["` + proxy.Error + `d.dialer",true]`)
			if tt.opts.Upgrade {
				return
			}
			for i := range b.hops {
				if b.hops[i].Load() == 0 {
					t.Errorf("no request of a session came to server %d", i)
				}
			}
		})
	}
}

// What isn't anybody's session is said so, by whichever server is asked; a request
// is passed on once at most.
func TestAbuse39_SessionsOfNobodyBehindOneName(t *testing.T) {
	a, b := pair(t, quick)
	pb := b.join(addrB)
	a.knows(addrB)
	_ = pb.stop()
	ask := func(sid, header string) string {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, a.url.String()+"/socket.io/?EIO=3&transport=polling&sid="+url.QueryEscape(sid), nil)
		if header != "" {
			r.Header.Set("Parley-Star-Forwarded", header)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const unknown = `{"code":1,"message":"Session ID unknown"}`
	random := strings.Repeat("x", 20)
	for name, got := range map[string]string{
		"of a server that isn't there": ask("????"+random, ""),
		"too short":                    ask("x", ""),
		"of nobody at this server":     ask(a.shared.Prefix()+random, ""),
		"of nobody at the other":       ask(b.shared.Prefix()+random, ""),
		"with a forged header":         ask(b.shared.Prefix()+random, "guess"),
	} {
		if got != unknown {
			t.Errorf("%s: %q", name, got)
		}
	}
	b.kill()
	eventually(t, "the other is gone", func() bool { return ask(b.shared.Prefix()+random, "") == unknown })
}

package parley

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func newKey(t *testing.T) identity.Key {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func join(ctx context.Context, t *testing.T, n *Node, space string, key identity.Key) channel.Member {
	t.Helper()
	m, err := n.Space(space).Join(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// echo answers every content on every channel to a member.
func echo(t *testing.T, m channel.Member, protocol string) {
	t.Helper()
	l, err := m.Listen(protocol)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			ch, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			for {
				msg, err := ch.Receive(context.Background())
				if err != nil || ch.Send(context.Background(), msg) != nil {
					break
				}
			}
			_ = ch.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
}

// openFound opens a channel to an agent whose node may be found only now: Open looks
// for 2 s.
func openFound(ctx context.Context, t *testing.T, m channel.Member, to identity.AgentID, protocol string, opts ...channel.OpenOption) channel.Channel {
	t.Helper()
	ch, err := m.Open(ctx, to, protocol, opts...)
	for errors.Is(err, channel.ErrNoAgent) && ctx.Err() == nil {
		ch, err = m.Open(ctx, to, protocol, opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func exchange(ctx context.Context, t *testing.T, m channel.Member, to identity.AgentID, want network.Path, opts ...channel.OpenOption) channel.Info {
	t.Helper()
	ch := openFound(ctx, t, m, to, "echo/1", opts...)
	defer ch.Close()
	if err := ch.Send(ctx, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	got, err := ch.Receive(ctx)
	if err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	info := ch.Info()
	if info.Path != want || info.Remote != to || !info.Verified {
		t.Errorf("channel is %+v, want path %s", info, want)
	}
	return info
}

// TestSpaceOfTwoNodes: the agents of two nodes find each other by presence in
// their space; one that is also a page is found without having joined anything
// before, and an agent of the own node through memory.
func TestSpaceOfTwoNodes(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	first, second := runNode(t, loopbackConfig(t)), runNode(t, loopbackConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	alice, bob, carol := newKey(t), newKey(t), newKey(t)

	a := join(ctx, t, first, "chess", alice)
	b := join(ctx, t, second, "chess", bob)
	c := join(ctx, t, first, "chess", carol)
	echo(t, b, "echo/1")
	echo(t, c, "echo/1")
	if info := exchange(ctx, t, a, bob.Agent(), network.PathDirect); info.Node != second.ID() {
		t.Errorf("connected to %s, want the node %s", info.Node, second.ID())
	}
	exchange(ctx, t, a, carol.Agent(), network.PathLocal)

	if err := b.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open(ctx, bob.Agent(), "echo/1"); !errors.Is(err, channel.ErrNoAgent) && !errors.Is(err, channel.ErrNoSpace) {
		t.Errorf("opening to an agent that has left: %v", err)
	}
}

// TestSpaceOfAPage: a page's key is an agent, and a connection to the page's own
// host leads to its node's spaces.
func TestSpaceOfAPage(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	first, second := runNode(t, loopbackConfig(t)), runNode(t, loopbackConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key := newKey(t)
	page, err := second.Peer(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = page.Close() })
	m := join(ctx, t, second, "chess", key)
	echo(t, m, "echo/1")
	a := join(ctx, t, first, "chess", newKey(t))
	exchange(ctx, t, a, key.Agent(), network.PathDirect)

	for _, p := range []network.Protocol{channel.Protocol, channel.ProtocolPacked} {
		s, err := first.host.Open(ctx, key.PeerID(), p)
		if err != nil {
			t.Errorf("the page's host: %v", err)
			continue
		}
		_ = s.Reset()
	}
	if node, ok := first.found.NodeOf(ctx, key.PeerID()); !ok || node != second.ID() {
		t.Errorf("the page is at %s, %v, want %s", node, ok, second.ID())
	}
}

// TestRelayOfChannels: a node with relay.profile = "own" serves the nodes that
// name it in p2p.relays, and who finds their agents learns of it.
func TestRelayOfChannels(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg := loopbackConfig(t)
	cfg.Relay.Profile = "own"
	relay := runNode(t, cfg)
	cfg = loopbackConfig(t)
	cfg.P2P.Relays = []string{relay.host.Addrs()[0].String() + "/p2p/" + relay.ID().String()}
	served, other := runNode(t, cfg), runNode(t, loopbackConfig(t))

	a, b := join(ctx, t, other, "chess", newKey(t)), join(ctx, t, served, "chess", newKey(t))
	echo(t, b, "echo/1")
	space := other.Space("chess").Hash()
	for {
		news := other.located.news(space)
		places, err := other.located.Locate(ctx, space, b.Agent())
		if err != nil {
			t.Fatal(err)
		}
		if len(places) == 1 && len(places[0].Relays) == 1 && places[0].Relays[0] == relay.ID() {
			break
		}
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("the agent is said to be at %v, without the relay", places)
		}
	}
	info := exchange(ctx, t, a, b.Agent(), network.PathRelay, channel.Via(relay.ID()))
	if info.Relay != relay.ID() {
		t.Errorf("through %s", info.Relay)
	}
	if m := relay.channels.Metrics().Relay; m.Contracts.Current != 1 || m.Bytes == 0 {
		t.Errorf("the relay counts %+v", m)
	}
	exchange(ctx, t, a, b.Agent(), network.PathDirect)
}

// TestSpaceThroughARelayAlone: two nodes that nobody can dial, and that know
// nothing of each other, have channels through the relay that both use.
func TestSpaceThroughARelayAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg := loopbackConfig(t)
	cfg.Relay.Profile = "own"
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	relay := runNode(t, cfg)
	var nodes []*Node
	for range 2 {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // they don't see each other on this machine
		cfg = loopbackConfig(t)
		cfg.P2P.Listen = []string{listenNone}
		cfg.P2P.Relays = []string{relay.host.Addrs()[0].String() + "/p2p/" + relay.ID().String()}
		nodes = append(nodes, runNode(t, cfg))
	}
	a, b := join(ctx, t, nodes[0], "chess", newKey(t)), join(ctx, t, nodes[1], "chess", newKey(t))
	echo(t, b, "echo/1")
	for relay.channels.Metrics().Relay.Registered < 2 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the agents are not registered")
		}
	}
	if info := exchange(ctx, t, a, b.Agent(), network.PathRelay); info.Relay != relay.ID() {
		t.Errorf("through %s", info.Relay)
	}
	for _, addr := range nodes[0].host.Libp2p().Network().ListenAddresses() {
		if addr.String() != "/p2p-circuit" {
			t.Errorf("a node without sockets listens on %s", addr)
		}
	}
	if _, err := a.Open(ctx, b.Agent(), "echo/1", channel.DirectOnly()); !errors.Is(err, channel.ErrNoAgent) {
		t.Errorf("opening without a relay: %v", err)
	}
}

// TestSpaceOverACircuit: nodes that know each other through a relay's circuits
// have channels over them, and the channel says which relay it is.
func TestSpaceOverACircuit(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // where they learn of each other
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cfg := loopbackConfig(t)
	cfg.Relay.Profile = "own"
	relay := runNode(t, cfg)
	var nodes []*Node
	for range 2 {
		cfg = loopbackConfig(t)
		cfg.P2P.Listen = []string{listenNone}
		cfg.P2P.Relays = []string{relay.host.Addrs()[0].String() + "/p2p/" + relay.ID().String()}
		nodes = append(nodes, runNode(t, cfg))
	}
	for {
		err := nodes[0].host.Connect(ctx, nodes[1].ID())
		if err == nil {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond): // the other one's place at the relay isn't there yet
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
	a, b := join(ctx, t, nodes[0], "chess", newKey(t)), join(ctx, t, nodes[1], "chess", newKey(t))
	echo(t, b, "echo/1")
	info := exchange(ctx, t, a, b.Agent(), network.PathRelay)
	if info.Node != nodes[1].ID() || info.Relay != relay.ID() {
		t.Errorf("to %s through %s, want %s and %s", info.Node, info.Relay, nodes[1].ID(), relay.ID())
	}
	if m := relay.channels.Metrics().Relay; m.Bytes != 0 {
		t.Errorf("the relay of channels carried %d bytes", m.Bytes)
	}
}

func TestRelayPolicyOfConfig(t *testing.T) {
	friend := newKey(t)
	for _, tt := range []struct {
		profile string
		allow   []string
		serves  bool
		bytes   uint64
		anybody bool
	}{
		{profile: "off"},
		{profile: "own", serves: true, anybody: true},
		{profile: "own", allow: []string{allowAll}, serves: true, anybody: true},
		{profile: "own", allow: []string{friend.PeerID().String()}, serves: true},
		{profile: "public", serves: true, bytes: 128 << 10, anybody: true},
	} {
		cfg := DefaultConfig()
		cfg.Relay.Profile, cfg.Relay.Allow = tt.profile, tt.allow
		p, serves := cfg.relayPolicy()
		if serves != tt.serves || p.Bytes != tt.bytes || serves && (p.Contract == nil) != tt.anybody {
			t.Errorf("%s %v: %+v, %v", tt.profile, tt.allow, p, serves)
		}
		if !tt.anybody && serves && (!p.Contract(friend.PeerID()) || p.Contract(newKey(t).PeerID()) || !p.Agent(friend.Agent())) {
			t.Error("the list is not what is asked")
		}
	}
	if asnOf("2001:4860:4860::8888") != 15169 || asnOf("8.8.8.8") != 0 || asnOf("12D3KooW") != 0 {
		t.Errorf("autonomous system of 2001:4860:4860::8888 is %d", asnOf("2001:4860:4860::8888"))
	}
}

// TestChannelsEndInOrder: when a node stops, what its agents have sent arrives at
// the other node, and behind it an error on each channel that was not closed.
func TestChannelsEndInOrder(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	other := runNode(t, loopbackConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stopping, stop := startPatient(t, loopbackConfig(t), patience{time.Minute, time.Minute})
	a, b := join(ctx, t, stopping, "chess", newKey(t)), join(ctx, t, other, "chess", newKey(t))
	l, err := b.Listen("moves/1")
	if err != nil {
		t.Fatal(err)
	}
	var far [2]channel.Channel
	for i := range far {
		ch := openFound(ctx, t, a, b.Agent(), "moves/1")
		if far[i], err = l.Accept(ctx); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if err := ch.Send(ctx, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			_ = ch.Close()
		}
	}
	stop()
	for i, ch := range far {
		received := 0
		for err == nil {
			if _, err = ch.Receive(ctx); err == nil {
				received++
			}
		}
		var e *channel.Error
		if ended := err == io.EOF; received != 200 || ended != (i == 1) || !ended && (!errors.As(err, &e) || !e.Remote) {
			t.Errorf("channel %d: received %d of 200, then %v", i, received, err)
		}
		err = nil
	}
}

// TestChannelsOverWebSocket: two nodes that know nothing of each other but a URL
// and a peer id; pages are refused there.
func TestChannelsOverWebSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	cfg.P2P.MuxNetwork = "home"
	server := runNode(t, cfg)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // so that they don't find each other on this machine
	cfg = loopbackConfig(t)
	address := "ws://localhost:" + strconv.Itoa(server.port) + "/v1/home/mux"
	cfg.P2P.MuxPeers = []string{address + "#" + server.ID().String()}
	client := runNode(t, cfg)
	a, b := join(ctx, t, client, "chess", newKey(t)), join(ctx, t, server, "chess", newKey(t))
	echo(t, b, "echo/1")
	if info := exchange(ctx, t, a, b.Agent(), network.PathDirect); info.Node != server.ID() {
		t.Errorf("connected to %s", info.Node)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http"+strings.TrimPrefix(address, "ws"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "http://localhost:"+strconv.Itoa(server.port))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("a page gets %s", answer.Status)
	}
}

func TestParseMux(t *testing.T) {
	id := newKey(t).PeerID()
	for text, want := range map[string]string{
		"wss://node.example/v1/home/mux#" + id.String(): "wss://node.example/v1/home/mux",
		"ws://localhost:1/v1/x/mux#" + id.String():      "ws://localhost:1/v1/x/mux",
		"wss://node.example/v1/home/mux":                "",
		"https://node.example/#" + id.String():          "",
		"wss:///v1/x/mux#" + id.String():                "",
		"::":                                            "",
	} {
		address, got, err := parseMux(text)
		if address != want || (err == nil) != (want != "") || err == nil && got != id {
			t.Errorf("%q: %q, %s, %v", text, address, got, err)
		}
	}
	for name, want := range map[string]bool{"": true, "home": true, "name-v1.0": true, "a/b": false, "..": false, "ü": false, strings.Repeat("x", 65): false} {
		if goodNetwork(name) != want {
			t.Errorf("network %q", name)
		}
	}
}

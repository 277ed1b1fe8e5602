package parley

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	v2 "github.com/parley-p2p/parley/gateway/v2"
)

// v1Server is a running node as pages see it.
func v1Server(t *testing.T, settings ...func(*Config)) *gatewaytest.Server {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	for _, set := range settings {
		set(&cfg)
	}
	return serverOf(t, runNode(t, cfg))
}

func sendTimeout(d time.Duration) func(*Config) {
	return func(c *Config) { c.Peer.SendTimeout = Duration(d) }
}

// TestV1_FramesOfANode plays the frames of the specification against a whole
// node, so that each answer is the product's and not that of a stand-in.
func TestV1_FramesOfANode(t *testing.T) {
	s := v1Server(t)
	gatewaytest.RunV1(t, s.URL, s.Header)
	t.Run("without files", func(t *testing.T) { gatewaytest.V1WithoutFiles().Run(t, s.URL, s.Header) })
	t.Run("reserved names", func(t *testing.T) { v1Reserved().Run(t, s.URL, s.Header) })
}

// v1Reserved are the protocols of gateway.md §5.5 and the topics of §6.1: only the
// whole node knows them all.
func v1Reserved() gatewaytest.Script {
	var steps strings.Builder
	ask := func(id int, method, name, value, text string) {
		fmt.Fprintf(&steps, "A > {\"requestid\":%d,\"method\":%q,\"params\":{%q:%q,\"data\":1},\"isresponse\":false}\n", id, method, name, value)
		fmt.Fprintf(&steps, "A < {\"requestid\":%d,\"method\":\"\",\"error\":{\"code\":500,\"message\":%q},\"isresponse\":true}\n", id, text)
	}
	steps.WriteString(`
		A > {"requestid":0,"method":"peer","params":{},"isresponse":false}
		A < {"requestid":0,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
`)
	for i, p := range []string{"/p2p-webapp/1.0.0", "/parley/x", "/parley-x", "/http/1.1", "/ipfs/id/1.0.0", "/libp2p/x", "/meshsub/1.1.0", "/floodsub/1.0.0", "/x/y", ""} {
		ask(10+i, "start", "protocol", p, "protocol is reserved: "+p)
	}
	ask(20, "start", "protocol", strings.Repeat("p", 257), "protocol is reserved: "+strings.Repeat("p", 256)+"…")
	for i, method := range []string{"subscribe", "publish"} {
		ask(30+i, method, "topic", "/parley/presence", "topic is reserved: /parley/presence")
		ask(40+i, method, "topic", "parley/space/0123", "topic is reserved: parley/space/0123")
	}
	return gatewaytest.Script{Name: "reserved", Steps: steps.String()}
}

// TestV1_ListPeersOfNoTopic: every member of every topic that the node knows, the
// page itself left out (gateway.md §2.4).
func TestV1_ListPeersOfNoTopic(t *testing.T) {
	s := v1Server(t)
	a, b, c := gatewaytest.Join1(t, s), gatewaytest.Join1(t, s), gatewaytest.Join1(t, s)
	a.Call("subscribe", `{"topic":"one"}`)
	b.Call("subscribe", `{"topic":"one"}`)
	c.Call("subscribe", `{"topic":"two"}`)
	var got struct{ Peers []string }
	if err := json.Unmarshal(a.Call("listpeers", `{"topic":""}`), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{b.ID, c.ID}
	slices.Sort(want)
	slices.Sort(got.Peers)
	if !slices.Equal(got.Peers, want) {
		t.Errorf("listed %v, want %v", got.Peers, want)
	}
}

// TestV1_OneOfTwoEqualKeys: two sockets ask for one key at the same moment, on a
// whole node (gateway.md §2.7).
func TestV1_OneOfTwoEqualKeys(t *testing.T) {
	s := v1Server(t)
	for range 20 {
		key := newKey(t).String()
		both := [2]*gatewaytest.Page1{gatewaytest.Open1(t, s), gatewaytest.Open1(t, s)}
		var ids [2]int64
		for i, p := range both {
			ids[i] = p.Request("peer", `{"peerkey":"`+key+`"}`)
		}
		in := 0
		for i, p := range both {
			f := p.Response(ids[i])
			if f.Error == nil {
				in++
			} else if f.Error.Code != 500 || f.Error.Message != "peer ID already in use (possible duplicate browser tab)" {
				t.Errorf("answered %+v", *f.Error)
			}
		}
		if in != 1 {
			t.Fatalf("%d of two got in", in)
		}
		for _, p := range both {
			_ = p.WS.Close(websocket.StatusNormalClosure, "")
		}
	}
}

// TestV1_SharedPeer: with gateway.sharePeers each tab has its own protocols and
// topics, a message goes to every one that started its protocol, and the peer ends
// with the last (gateway.md §2.7).
func TestV1_SharedPeer(t *testing.T) {
	s := v1Server(t, func(c *Config) { c.Gateway.SharePeers = true }, sendTimeout(3*time.Second))
	one, bob := gatewaytest.Join1(t, s), gatewaytest.Join1(t, s)
	two := gatewaytest.Open1(t, s)
	two.Call("peer", `{"peerkey":"`+one.Key+`"}`)
	one.Call("start", `{"protocol":"/both"}`)
	two.Call("start", `{"protocol":"/both"}`)
	two.Call("start", `{"protocol":"/second"}`)
	two.Call("subscribe", `{"topic":"room"}`)
	bob.Call("subscribe", `{"topic":"room"}`)

	send := func(protocol string) {
		t.Helper()
		bob.Call("send", `{"peer":"`+one.ID+`","protocol":"`+protocol+`","data":"`+protocol+`","ack":0}`)
	}
	// Topics and protocols have no order among each other.
	want := func(p *gatewaytest.Page1, all ...string) {
		t.Helper()
		var came []string
		for range all {
			f := p.Next()
			var params struct{ Protocol, PeerID string }
			if err := json.Unmarshal(f.Params, &params); err != nil {
				t.Fatal(err)
			}
			came = append(came, f.Method+" "+params.Protocol+params.PeerID)
		}
		if slices.Sort(came); !slices.Equal(came, all) {
			t.Errorf("came %q, want %q", came, all)
		}
	}
	send("/both")
	send("/second")
	want(one, "peerData /both")
	want(two, "peerChange "+bob.ID, "peerData /both", "peerData /second")

	_ = two.WS.Close(websocket.StatusNormalClosure, "")
	send("/both")
	want(one, "peerData /both")
	_ = one.WS.Close(websocket.StatusNormalClosure, "")
	last := bob.Response(bob.Request("send", `{"peer":"`+one.ID+`","protocol":"/both","data":1,"ack":9}`))
	for last.Error == nil { // it crossed the close, which the node was still reading
		last = bob.Response(bob.Request("send", `{"peer":"`+one.ID+`","protocol":"/both","data":1,"ack":9}`))
	}
	if !strings.HasPrefix(last.Error.Message, "peer unreachable: "+one.ID+": ") {
		t.Errorf("after the last session: %+v", *last.Error)
	}
}

// TestV1_NodeThatStops answers what is pending and then closes with 1001
// (gateway.md §2.1, §3 row 8).
func TestV1_NodeThatStops(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	n, stop := startNode(t, loopbackConfig(t))
	s := serverOf(t, n)
	p := gatewaytest.Join1(t, s)
	const absent = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	first := p.Request("send", `{"peer":"`+absent+`","protocol":"/x","data":1,"ack":0}`)
	second := p.Request("send", `{"peer":"`+absent+`","protocol":"/x","data":2,"ack":1}`)
	p.Call("listpeers", `{"topic":"x"}`) // both are under way
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	for _, id := range []int64{first, second} {
		if f := p.Response(id); f.Error == nil || f.Error.Code != 500 || f.Error.Message != "peer closed" {
			t.Errorf("request %d: %+v", id, f)
		}
	}
	if code, reason := p.Closed(); code != 1001 || reason == "" {
		t.Errorf("closed with %d %q", code, reason)
	}
	<-stopped
}

func TestV1_FailedSendsOfANode(t *testing.T) {
	s := v1Server(t, sendTimeout(3*time.Second)) // in which the last one must arrive
	gatewaytest.V1Unreachable().Run(t, s.URL, s.Header)
}

func TestV1_LimitsOfANode(t *testing.T) {
	// The last one waits until the one to nobody is given up.
	s := v1Server(t, func(c *Config) { c.Limits.MaxMessage, c.Limits.Outbox = KiB, KiB }, sendTimeout(5*time.Second))
	gatewaytest.V1Limits().Run(t, s.URL, s.Header)
}

// TestV1_SendThatTimesOut: the other page has the message, and says nothing to it.
func TestV1_SendThatTimesOut(t *testing.T) {
	s := v1Server(t, sendTimeout(3*time.Second)) // in which it must arrive
	mute, old := gatewaytest.Join2(t, s, v2.HelloFrame{}), gatewaytest.Join1(t, s)
	mute.Call("start", map[string]any{"protocol": "/mute"})
	e := old.Fail("send", `{"peer":"`+mute.Welcome.Peer+`","protocol":"/mute","data":1,"ack":0}`)
	if e.Code != 500 || e.Message != "send timed out" {
		t.Errorf("answered %+v", e)
	}
	// It may or may not have arrived, says the specification; here it did. News of
	// paths may come before.
	for mute.Next().Kind != v2.KindMessage {
	}
}

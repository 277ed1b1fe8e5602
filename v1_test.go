package parley

import (
	"testing"
	"time"

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
}

func TestV1_FailedSendsOfANode(t *testing.T) {
	s := v1Server(t, sendTimeout(time.Second))
	gatewaytest.V1Unreachable().Run(t, s.URL, s.Header)
}

func TestV1_LimitsOfANode(t *testing.T) {
	s := v1Server(t, func(c *Config) { c.Limits.MaxMessage, c.Limits.Outbox = KiB, KiB })
	gatewaytest.V1Limits().Run(t, s.URL, s.Header)
}

// TestV1_SendThatTimesOut: the other page has the message, and says nothing to it.
func TestV1_SendThatTimesOut(t *testing.T) {
	s := v1Server(t, sendTimeout(time.Second))
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

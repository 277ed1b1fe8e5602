package gateway_test

import (
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/network"
)

func TestV1_Frames(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.Reserved = []network.Protocol{"/p2p-webapp/1.0.0", "/parley/x"}
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b))
	gatewaytest.RunV1(t, s.URL, s.Header)
	t.Run("without files", func(t *testing.T) { gatewaytest.V1WithoutFiles().Run(t, s.URL, s.Header) })
}

func TestV1_FramesOfFailedSends(t *testing.T) {
	b := gatewaytest.NewBackend()
	b.SendTimeout = 50 * time.Millisecond
	s := gatewaytest.Start(t, gatewaytest.WithBackend(b))
	gatewaytest.V1Unreachable().Run(t, s.URL, s.Header)
}

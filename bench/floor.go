package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// floor is what the machine can do with nothing of parley in between: a bare
// WebSocket and a bare libp2p stream over TCP, both on loopback.
type floor struct {
	ws     *websocket.Conn
	from   host.Host // the side that opens streams
	stream network.Stream
	close  []func()
}

func newFloor(ctx context.Context) (*floor, error) {
	f := &floor{}
	srv := httptest.NewServer(http.HandlerFunc(echoWebSocket))
	f.close = append(f.close, srv.Close)
	ws, _, err := websocket.Dial(ctx, strings.Replace(srv.URL, "http", "ws", 1),
		&websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return f, err
	}
	ws.SetReadLimit(-1)
	f.ws = ws
	f.close = append(f.close, func() { _ = ws.CloseNow() })
	return f, f.openStream(ctx)
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}

func (f *floor) openStream(ctx context.Context) error {
	var hosts [2]host.Host
	for i := range hosts {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
		if err != nil {
			return err
		}
		hosts[i] = h
		f.close = append(f.close, func() { _ = h.Close() })
	}
	hosts[1].SetStreamHandler("/echo", func(s network.Stream) { _, _ = io.Copy(s, s); _ = s.Close() })
	hosts[1].SetStreamHandler("/drain", func(s network.Stream) { drainAndAnswer(s) })
	if err := hosts[0].Connect(ctx, peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
		return err
	}
	f.from = hosts[0]
	s, err := hosts[0].NewStream(ctx, hosts[1].ID(), "/echo")
	f.stream = s
	f.close = append(f.close, func() { _ = s.Reset() })
	return err
}

func drainAndAnswer(s io.ReadWriteCloser) {
	n, _ := io.Copy(io.Discard, s)
	if n > 0 {
		_, _ = s.Write([]byte{1})
	}
	_ = s.Close()
}

func (f *floor) Close() {
	for i := len(f.close) - 1; i >= 0; i-- {
		f.close[i]()
	}
}

// roundTrip is B: one WebSocket echo, one stream echo, one WebSocket echo.
func (f *floor) roundTrip(ctx context.Context, msg []byte) (time.Duration, error) {
	start := time.Now()
	if err := f.echoSocket(ctx, msg); err != nil {
		return 0, err
	}
	if err := f.echoStream(msg); err != nil {
		return 0, err
	}
	if err := f.echoSocket(ctx, msg); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (f *floor) echoSocket(ctx context.Context, msg []byte) error {
	if err := f.ws.Write(ctx, websocket.MessageBinary, msg); err != nil {
		return err
	}
	_, _, err := f.ws.Read(ctx)
	return err
}

func (f *floor) echoStream(msg []byte) error {
	if _, err := f.stream.Write(msg); err != nil {
		return err
	}
	_, err := io.ReadFull(f.stream, make([]byte, len(msg)))
	return err
}

// streamRate writes total bytes to a bare stream in pieces of size and gives
// bytes a second until the other side has them all.
func (f *floor) streamRate(ctx context.Context, size int, total int64) (float64, error) {
	s, err := f.from.NewStream(ctx, f.stream.Conn().RemotePeer(), "/drain")
	if err != nil {
		return 0, err
	}
	piece := make([]byte, size)
	start := time.Now()
	for sent := int64(0); sent < total; sent += int64(size) {
		if _, err := s.Write(piece); err != nil {
			return 0, err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return 0, err
	}
	return float64(total) / time.Since(start).Seconds(), s.Close()
}

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
	ma "github.com/multiformats/go-multiaddr"
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
	if err := f.dial(ctx, strings.Replace(srv.URL, "http", "ws", 1)); err != nil {
		return f, err
	}
	h, err := f.newHost()
	if err != nil {
		return f, err
	}
	h.SetStreamHandler("/echo", func(s network.Stream) { _, _ = io.Copy(s, s); _ = s.Close() })
	h.SetStreamHandler("/drain", func(s network.Stream) { drainAndAnswer(s) })
	return f, f.openStream(ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
}

// newFloorBetween is the same with the echoes in another process, as pages and
// nodes are.
func newFloorBetween(ctx context.Context) (*floor, error) {
	f := &floor{}
	p, err := startBare(ctx)
	if err != nil {
		return f, err
	}
	f.close = append(f.close, p.stop)
	if err := f.dial(ctx, p.addr.URL+"/echo"); err != nil {
		return f, err
	}
	addr, err := ma.NewMultiaddr(p.addr.Addrs[0])
	if err != nil {
		return f, err
	}
	return f, f.openStream(ctx, peer.AddrInfo{ID: p.addr.Peer, Addrs: []ma.Multiaddr{addr}})
}

func (f *floor) dial(ctx context.Context, url string) error {
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return err
	}
	ws.SetReadLimit(-1)
	f.ws = ws
	f.close = append(f.close, func() { _ = ws.CloseNow() })
	return nil
}

func (f *floor) newHost() (host.Host, error) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err == nil {
		f.close = append(f.close, func() { _ = h.Close() })
	}
	return h, err
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

func (f *floor) openStream(ctx context.Context, to peer.AddrInfo) error {
	h, err := f.newHost()
	if err != nil {
		return err
	}
	if err := h.Connect(ctx, to); err != nil {
		return err
	}
	f.from = h
	if f.stream, err = h.NewStream(ctx, to.ID, "/echo"); err != nil {
		return err
	}
	f.close = append(f.close, func() { _ = f.stream.Reset() })
	return nil
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

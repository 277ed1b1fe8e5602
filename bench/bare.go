package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/bench/page"
)

// A bare process stands where a node would: it echoes on a WebSocket and on a
// libp2p stream, and passes WebSocket messages on over a stream, both ways. It
// has the libraries of a node and nothing of its protocol: no outbox, no order
// over lost connections, no acknowledgement, no limits.

// bareAddress is what such a process prints when it is ready.
type bareAddress struct {
	URL   string // ws://…
	Peer  peer.ID
	Addrs []string
}

// runBare is the process; it ends when its standard input does.
func runBare() error {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	defer h.Close()
	b := &bare{host: h, streams: make(chan network.Stream, 1)}
	h.SetStreamHandler("/echo", func(s network.Stream) { _, _ = io.Copy(s, s); _ = s.Close() })
	h.SetStreamHandler("/pass", func(s network.Stream) { b.streams <- s })
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echoWebSocket)
	mux.HandleFunc("/pass", b.pass)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(ln, mux) }() // ends with the process
	addr := bareAddress{URL: "ws://" + ln.Addr().String(), Peer: h.ID()}
	for _, a := range h.Addrs() {
		addr.Addrs = append(addr.Addrs, a.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(addr); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type bare struct {
	host    host.Host
	streams chan network.Stream
}

// pass joins a WebSocket with a stream: one that it opens to the process in the
// query, or the next that comes in.
func (b *bare) pass(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	s, err := b.stream(r)
	if err != nil {
		return
	}
	defer s.Reset()
	go func() {
		defer c.CloseNow()
		_ = toSocket(r.Context(), s, c)
	}()
	_ = toStream(r.Context(), c, s)
}

func (b *bare) stream(r *http.Request) (network.Stream, error) {
	q := r.URL.Query()
	if !q.Has("peer") {
		return <-b.streams, nil
	}
	id, err := peer.Decode(q.Get("peer"))
	if err != nil {
		return nil, err
	}
	addr, err := ma.NewMultiaddr(q.Get("addr"))
	if err != nil {
		return nil, err
	}
	if err := b.host.Connect(r.Context(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}); err != nil {
		return nil, err
	}
	return b.host.NewStream(r.Context(), id, "/pass")
}

func toStream(ctx context.Context, c *websocket.Conn, s io.Writer) error {
	buf := make([]byte, 128<<10)
	for {
		_, r, err := c.Reader(ctx)
		if err != nil {
			return err
		}
		n := 4
		for err == nil && n < len(buf) {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("message too large, or %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n-4))
		if _, err := s.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func toSocket(ctx context.Context, s io.Reader, c *websocket.Conn) error {
	br := bufio.NewReaderSize(s, 4<<10)
	buf := make([]byte, 128<<10)
	for {
		if _, err := io.ReadFull(br, buf[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(buf)
		if _, err := io.ReadFull(br, buf[:n]); err != nil {
			return err
		}
		if err := c.Write(ctx, websocket.MessageBinary, buf[:n]); err != nil {
			return err
		}
	}
}

// bareProcess is such a process, seen from outside.
type bareProcess struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr bareAddress
}

func startBare(ctx context.Context) (*bareProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "bare")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &bareProcess{cmd: cmd, in: in}
	return p, json.NewDecoder(out).Decode(&p.addr)
}

func (p *bareProcess) stop() {
	_ = p.in.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// bareWay is WebSocket → process → stream → process → WebSocket.
type bareWay struct {
	processes [2]*bareProcess
	sockets   [2]*page.Socket
}

func newBareWay(ctx context.Context) (w *bareWay, err error) {
	w = &bareWay{}
	for i := range w.processes {
		if w.processes[i], err = startBare(ctx); err != nil {
			return w, err
		}
	}
	to := w.processes[1].addr
	if w.sockets[1], err = page.DialSocket(ctx, to.URL+"/pass", nil); err != nil {
		return w, err
	}
	w.sockets[0], err = page.DialSocket(ctx, w.processes[0].addr.URL+"/pass?peer="+to.Peer.String()+"&addr="+to.Addrs[0], nil)
	return w, err
}

func (w *bareWay) close() {
	for _, s := range w.sockets {
		if s != nil {
			_ = s.Close()
		}
	}
	for _, p := range w.processes {
		if p != nil {
			p.stop()
		}
	}
}

// many sends count messages, each answered by the other end with a byte, up to
// inFlight of them unanswered, and gives messages a second.
func (w *bareWay) many(size, inFlight, count int) (float64, error) {
	inFlight = min(inFlight, maxUnsettled/size)
	failed := make(chan error, 2)
	slots := make(chan struct{}, inFlight)
	go func() { failed <- w.answer(count) }()
	go func() { failed <- w.collect(count, slots) }()
	msg := make([]byte, size)
	began := time.Now()
	for range count {
		slots <- struct{}{}
		if err := w.sockets[0].Write(msg); err != nil {
			return 0, err
		}
	}
	for range 2 {
		if err := <-failed; err != nil {
			return 0, err
		}
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

func (w *bareWay) answer(count int) (err error) {
	var msg []byte
	for range count {
		if msg, err = w.sockets[1].Read(msg[:0]); err != nil {
			return err
		}
		if err = w.sockets[1].Write([]byte{1}); err != nil {
			return err
		}
	}
	return nil
}

func (w *bareWay) collect(count int, slots <-chan struct{}) (err error) {
	var msg []byte
	for range count {
		if msg, err = w.sockets[0].Read(msg[:0]); err != nil {
			return err
		}
		<-slots
	}
	return nil
}

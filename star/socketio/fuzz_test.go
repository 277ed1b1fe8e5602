package socketio_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// Whatever frames a client sends, the server neither panics nor keeps a session,
// a buffer or a goroutine. Frames are separated by newlines; one that begins with
// 0x04 is binary.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("420[\"x\",1]\n2\n6\n41"))
	f.Add([]byte("451-[\"x\",{\"_placeholder\":true,\"num\":0}]\n\x04abc\n430[]"))
	f.Add([]byte("452-[\"x\",{\"_placeholder\":true,\"num\":1}]\n\x04a\nb4YWJj\n44/x,1\n40/y"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := newEcho()
		w := newWorld(t, socketio.Options{Handler: h, Times: socketio.Times{Linger: 5 * time.Millisecond}})
		defer w.stop()
		c := w.raw("")
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				m, err := c.Read()
				m.Buf.Free()
				if err != nil {
					return
				}
			}
		})
		for _, frame := range bytes.Split(raw, []byte("\n")) {
			op := ws.Text
			if len(frame) > 0 && frame[0] == 4 {
				op = ws.Binary
			}
			b := c.Batch()
			b.Add(op, frame)
			err := b.Flush(nil)
			b.Done()
			if err != nil {
				break
			}
		}
		b := c.Batch()
		b.Add(ws.Close, nil)
		b.Flush(nil) // the server may have closed already
		b.Done()
		<-h.ended
		c.NetConn().Close()
		reader.Wait()
	})
}

// Whatever a client posts, the same.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`10:420["x",1]1:26:42["y"]2:411:1`), false)
	f.Add([]byte("\x00\x02\xff41"), true)
	f.Fuzz(func(t *testing.T, body []byte, octets bool) {
		h := newEcho()
		w := newWorld(t, socketio.Options{Handler: h, Times: socketio.Times{Linger: 5 * time.Millisecond}})
		defer w.stop()
		sid := w.poller("")
		contentType := "text/plain"
		if octets {
			contentType = "application/octet-stream"
		}
		if status, _, _ := w.do("POST", polling+sid, contentType, string(body)); status != 200 && status != 400 {
			t.Errorf("status %d", status)
		}
	})
}

var fuzzURL = &url.URL{Scheme: "http", Host: "x"}

// What a server sends can't hurt a client: it ends, and leaves nothing.
func FuzzServer(f *testing.F) {
	f.Add([]byte("42[\"x\"]\n431[1]\n3\n451-[\"a\",{\"_placeholder\":true,\"num\":0}]\n\x04b\n41"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := startest.NewNet()
		var running sync.WaitGroup
		hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := ws.Accept(w, r, 1000, &ws.Memory{}); err == nil {
				running.Go(func() { serveFuzz(c, raw) })
			}
		})}
		running.Go(func() { hs.Serve(n) })
		tr := &http.Transport{DialContext: n.Dial}
		var mem ws.Memory
		w := &world{t: t, net: n, client: &http.Client{Transport: tr}}
		c := newCollector()
		cl, err := socketio.Dial(context.Background(), fuzzURL, socketio.DialOptions{Handler: c, HTTP: w.client, Memory: &mem, Linger: 5 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		_ = cl.Run(context.Background()) // ends in every case
		hs.Close()
		n.Close()
		running.Wait()
		tr.CloseIdleConnections()
		if used := mem.Used(); used != 0 {
			t.Errorf("%d bytes are still lent", used)
		}
	})
}

func serveFuzz(c *ws.Conn, raw []byte) {
	defer c.NetConn().Close()
	b := c.Batch()
	b.Add(ws.Text, []byte(`0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":5000}`))
	b.Add(ws.Text, []byte("40"))
	for _, frame := range bytes.Split(raw, []byte("\n")) {
		op := ws.Text
		if len(frame) > 0 && frame[0] == 4 {
			op = ws.Binary
		}
		b.Add(op, frame)
		if b.Full() {
			b.Flush(nil)
		}
	}
	b.Add(ws.Close, nil)
	go drainConn(c.NetConn())
	b.Flush(nil)
}

func drainConn(nc net.Conn) {
	var b [1024]byte
	for {
		if _, err := nc.Read(b[:]); err != nil {
			return
		}
	}
}

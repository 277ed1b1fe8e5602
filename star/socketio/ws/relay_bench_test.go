//go:build unix

package ws_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lxzan/gws"

	"github.com/parley-p2p/parley/star/socketio/ws"
)

// BenchmarkRelay carries a text frame and a binary frame a message from one
// socket to another, as a star does with a chunk, with our framing and with gws.
// The load is the same in both; cpu/op is the whole process, load included
// (docs/decisions/0015-star-websocket.md).
func BenchmarkRelay(b *testing.B) {
	for _, n := range []int{100, 1 << 10, 64 << 10, 512 << 10} {
		for name, relay := range map[string]http.Handler{"own": &ownRelay{}, "gws": newGwsRelay()} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { benchRelay(b, relay, n) })
		}
	}
}

func benchRelay(b *testing.B, relay http.Handler, n int) {
	srv := httptest.NewServer(relay)
	defer srv.Close()
	var mem ws.Memory
	addr := strings.TrimPrefix(srv.URL, "http://")
	from, to := rawClient(b, addr, "/from", &mem), rawClient(b, addr, "/to", &mem)
	defer from.NetConn().Close()
	defer to.NetConn().Close()
	head := []byte(`451-["socket.io-pull-stream.queue.7d444840-9dc0-11d1-b245-5ffdce74fad2.dialer",{"_placeholder":true,"num":0}]`)
	data := append([]byte{4}, payload(n)...)
	perBatch := max(1, (64<<10)/n)

	b.SetBytes(int64(n))
	before := cpu()
	b.ResetTimer()
	var sender sync.WaitGroup
	sender.Go(func() {
		batch := from.Batch()
		for i := range b.N {
			batch.Add(ws.Text, head)
			batch.Add(ws.Binary, data)
			if (i+1)%perBatch == 0 || i == b.N-1 || batch.Full() {
				if batch.Flush(nil) != nil {
					return
				}
			}
		}
	})
	for i := 0; i < 2*b.N; i++ {
		m, err := to.Read()
		if err != nil {
			b.Fatal(err)
		}
		m.Buf.Free()
	}
	sender.Wait()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func rawClient(b *testing.B, addr, path string, mem *ws.Memory) *ws.Conn {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path)
	var answer []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(answer), "\r\n\r\n"); {
		if _, err := nc.Read(one); err != nil {
			b.Fatal(err)
		}
		answer = append(answer, one[0])
	}
	return ws.NewConn(nc, false, nil, 2<<20, mem)
}

// ownRelay reads, queues and writes with this package.
type ownRelay struct {
	mem ws.Memory
	out chan ws.Message
}

func (s *ownRelay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/from" {
		s.out = make(chan ws.Message, 256)
	}
	c, err := ws.Accept(w, r, 2<<20, &s.mem)
	if err != nil {
		return
	}
	hello := c.Batch()
	hello.Flush(nil)
	hello.Done()
	if r.URL.Path == "/from" {
		go s.read(c, s.out)
	} else {
		go s.write(c, s.out)
	}
}

func (s *ownRelay) read(c *ws.Conn, out chan ws.Message) {
	defer close(out)
	for {
		m, err := c.Read()
		if err != nil {
			return
		}
		if m.Buf == nil {
			m.Buf = s.mem.Copy(m.Data)
			m.Data = m.Buf.Bytes()
		}
		out <- m
	}
}

func (s *ownRelay) write(c *ws.Conn, out chan ws.Message) {
	var held []*ws.Buf
	for m := range out {
		b := c.Batch()
		for more := true; more; {
			b.Add(m.Op, m.Data)
			held = append(held, m.Buf)
			if more = !b.Full() && b.Size() < 256<<10; !more {
				break
			}
			select {
			case m, more = <-out:
			default:
				more = false
			}
		}
		b.Flush(nil)
		b.Done()
		for _, h := range held {
			h.Free()
		}
		held = held[:0]
	}
}

// gwsRelay does the same with gws and its own queue of a writer goroutine.
type gwsRelay struct {
	gws.BuiltinEventHandler
	up  *gws.Upgrader
	out chan *gws.Message
}

func newGwsRelay() *gwsRelay {
	s := &gwsRelay{}
	s.up = gws.NewUpgrader(s, &gws.ServerOption{ReadMaxPayloadSize: 2 << 20, CheckUtf8Enabled: true, ReadBufferSize: 16 << 10})
	return s
}

func (s *gwsRelay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/from" {
		s.out = make(chan *gws.Message, 256)
	}
	c, err := s.up.Upgrade(w, r)
	if err != nil {
		return
	}
	if r.URL.Path == "/from" {
		go c.ReadLoop()
	} else {
		go s.write(c, s.out)
	}
}

func (s *gwsRelay) OnMessage(_ *gws.Conn, m *gws.Message) { s.out <- m }
func (s *gwsRelay) OnClose(_ *gws.Conn, _ error)          { close(s.out) }

func (s *gwsRelay) write(c *gws.Conn, out chan *gws.Message) {
	for m := range out {
		c.WriteMessage(m.Opcode, m.Bytes())
		m.Close()
	}
}

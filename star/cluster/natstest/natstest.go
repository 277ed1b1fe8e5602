// Package natstest runs NATS servers with JetStream inside a test, alone or as a
// cluster, and cuts connections to them. It is for tests.
//
//	n := natstest.Start(t, 3)
//	gate := &natstest.Gate{}
//	shared, err := cluster.New(ctx, cluster.Options{URL: n.URL(), Dialer: gate})
//	gate.Cut()      // packets vanish, as with a pulled cable
//	n.Kill(0)
package natstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Servers are NATS servers that know each other.
type Servers struct {
	t    testing.TB
	opts []*server.Options
	list []*server.Server
}

// ready bounds the start of a server.
const ready = 30 * time.Second

// Start runs n servers until the test ends. change may set more options.
func Start(t testing.TB, n int, change ...func(*server.Options)) *Servers {
	t.Helper()
	s := &Servers{t: t, list: make([]*server.Server, n)}
	ports := FreePorts(t, 2*n)
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
	}
	for i := range n {
		o := &server.Options{ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[i], JetStream: true, StoreDir: t.TempDir(),
			NoLog: true, NoSigs: true, DontListen: false}
		if n > 1 {
			o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[n+i], NoAdvertise: true}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		}
		for _, f := range change {
			f(o)
		}
		s.opts = append(s.opts, o)
		s.run(i)
	}
	t.Cleanup(func() {
		for i := range s.list {
			s.Kill(i)
		}
	})
	for i := range n {
		s.await(i)
	}
	return s
}

func (s *Servers) run(i int) {
	srv, err := server.NewServer(s.opts[i].Clone())
	if err != nil {
		s.t.Fatal(err)
	}
	s.list[i] = srv
	srv.Start()
}

// Lead makes a server the leader of the stream of a bucket.
func (s *Servers) Lead(bucket string, i int) {
	s.t.Helper()
	limit := time.NewTimer(ready)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		switch now := s.Leader(bucket); now {
		case i:
			return
		case -1:
		default:
			_ = s.list[now].JetStreamStepdownStream(server.DEFAULT_GLOBAL_ACCOUNT, "KV_"+bucket) // the next look tells
		}
		select {
		case <-look.C:
		case <-limit.C:
			s.t.Fatalf("NATS server %d does not lead %s", i, bucket)
		}
	}
}

func (s *Servers) await(i int) {
	if !s.list[i].ReadyForConnections(ready) {
		s.t.Fatalf("NATS server %d did not start", i)
	}
}

// URL names all servers, for a client.
func (s *Servers) URL() string { return s.As("nats://") }

// As is URL with another beginning, as "tls://" or "nats://user:password@".
func (s *Servers) As(scheme string) string {
	var list []string
	for _, o := range s.opts {
		list = append(list, fmt.Sprintf("%s127.0.0.1:%d", scheme, o.Port))
	}
	return strings.Join(list, ",")
}

// Name is what clients see a server as.
func (s *Servers) Name(i int) string { return s.opts[i].ServerName }

// Kill ends a server.
func (s *Servers) Kill(i int) {
	if srv := s.list[i]; srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		s.list[i] = nil
	}
}

// Restart starts a killed server again, with what it had stored. change may set
// other options.
func (s *Servers) Restart(i int, change ...func(*server.Options)) {
	for _, f := range change {
		f(s.opts[i])
	}
	s.run(i)
	s.await(i)
}

// Leader is the server that leads the stream of a bucket; -1 while none does.
func (s *Servers) Leader(bucket string) int {
	for i, srv := range s.list {
		if srv != nil && (!srv.JetStreamIsClustered() || srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "KV_"+bucket)) {
			return i
		}
	}
	return -1
}

// FreePorts gives ports that nobody listens on. They are below those that systems
// take for outgoing connections, so that none of these has one when a server that was
// killed starts again.
func FreePorts(t testing.TB, n int) (ports []int) {
	const lowest, highest = 10_000, 32_000
	for tries := 0; len(ports) < n; tries++ {
		port := lowest + rand.IntN(highest-lowest)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if tries > 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, port)
	}
	return ports
}

// Gate is a dialer whose connections can be cut. The zero Gate is open.
type Gate struct {
	mu    sync.Mutex
	cut   chan struct{} // closed by Heal; nil while open
	conns map[*gated]bool
}

// Dial connects.
func (g *Gate) Dial(network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut != nil {
		return nil, net.ErrClosed
	}
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	conn := &gated{Conn: c, g: g}
	if g.conns == nil {
		g.conns = map[*gated]bool{}
	}
	g.conns[conn] = true
	return conn, nil
}

// Cut makes all that is sent vanish, and refuses new connections.
func (g *Gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut == nil {
		g.cut = make(chan struct{})
	}
}

// Heal ends Cut; the connections of before are broken.
func (g *Gate) Heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut == nil {
		return
	}
	for c := range g.conns {
		_ = c.Conn.Close()
	}
	clear(g.conns)
	close(g.cut)
	g.cut = nil
}

func (g *Gate) wall() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cut
}

// gated is a connection of a Gate.
type gated struct {
	net.Conn
	g *Gate
}

// Read waits while the gate is cut: what came meanwhile is lost.
func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.g.wall() == nil {
		return n, err
	}
	for err == nil {
		_, err = c.Conn.Read(p)
	}
	return 0, err
}

// Write loses what is written while the gate is cut.
func (c *gated) Write(p []byte) (int, error) {
	if c.g.wall() != nil {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Close closes the connection.
func (c *gated) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

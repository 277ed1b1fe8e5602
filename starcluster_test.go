package parley

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/transport"
)

// asStar is the variable that makes the test binary a star: its settings, one a
// line, as KEY=VALUE.
const asStar = "TEST_AS_STAR"

// beStar is a star in a process of its own, until its input ends.
func beStar(settings string) int {
	cfg := DefaultConfig()
	for line := range strings.SplitSeq(settings, "\n") {
		name, text, _ := strings.Cut(line, "=")
		if err := cfg.Set(name, text); err != nil {
			fmt.Fprintln(os.Stdout, err)
			return 2
		}
	}
	srv, err := NewStar(cfg.Star, nil, "")
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 2
	}
	fmt.Fprintln(os.Stdout, srv.URI())
	ctx, end := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); end() }()
	if err := srv.Run(ctx); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	return 0
}

// starProcess is such a star.
type starProcess struct {
	cmd  *exec.Cmd
	url  string
	kill func() // as a power cut does
}

func startStarProcess(t *testing.T, settings ...string) *starProcess {
	t.Helper()
	settings = append([]string{"star.host=127.0.0.1", "star.port=0", "star.admin=", "star.drain=0s"}, settings...)
	p := &starProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), asStar+"="+strings.Join(settings, "\n"))
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.kill = sync.OnceFunc(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait(); _ = in.Close() })
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if p.url = strings.TrimSpace(line); err != nil || !strings.HasPrefix(p.url, "http://") {
		t.Fatalf("the star says %q, %v", line, err)
	}
	return p
}

// members asks a star how many there are at all stars, and at this one; -1 where it
// doesn't answer.
func (p *starProcess) members(t *testing.T) (all, here int) {
	t.Helper()
	var figures struct{ Members int }
	if err := json.Unmarshal(fetch(p.url+"/status.json"), &figures); err != nil {
		return -1, -1
	}
	for line := range strings.SplitSeq(string(fetch(p.url+"/metrics")), "\n") {
		if n, err := fmt.Sscanf(line, "rendezvous_peers %d", &here); n == 1 && err == nil {
			return figures.Members, here
		}
	}
	return -1, -1
}

func fetch(url string) []byte {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return text
}

// starNames is one name for several stars: a connection goes to the next of them
// that is there.
type starNames struct {
	hosts []string
	turn  atomic.Int64
}

const clusterStar = "/dns4/star.test/tcp/80/ws/p2p-websocket-star"

func (b *starNames) dial(ctx context.Context, network, _ string) (c net.Conn, err error) {
	first := int(b.turn.Add(1)) - 1
	for i := range b.hosts {
		var d net.Dialer
		if c, err = d.DialContext(ctx, network, b.hosts[(first+i)%len(b.hosts)]); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// starMember is a libp2p host that is reached over the stars alone.
type starMember struct {
	host.Host
	stars *transport.Transport
}

const starEcho = "/parley-test/echo/1"

func (b *starNames) member(t *testing.T) *starMember {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &starMember{}
	m.stars, err = transport.New(key, transport.Options{Dialer: b.dial, Star: func(string) transport.StarOptions { return transport.StarOptions{} }})
	if err != nil {
		t.Fatal(err)
	}
	m.Host, err = libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.Transport(m.stars.Attach), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics(), libp2p.Ping(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	m.SetStreamHandler(starEcho, func(s network.Stream) {
		if _, err := io.Copy(s, s); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
	if err := m.Network().Listen(ma.StringCast(clusterStar)); err != nil {
		t.Fatal(err)
	}
	await(t, "joined", m.joined)
	return m
}

func (m *starMember) joined() bool {
	st := m.stars.Status()
	return len(st) == 1 && st[0].State == transport.Joined
}

// flow is a stream under load: what is sent comes back.
type starFlow struct {
	name   string
	passed atomic.Int64
	ended  chan struct{}
	err    error // once ended
	stop   context.CancelFunc
}

// run dials, again until it works, and keeps a stream going until it ends.
func (m *starMember) run(t *testing.T, name string, to *starMember) *starFlow {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	f := &starFlow{name: name, ended: make(chan struct{}), stop: stop}
	var s network.Stream
	var why error
	defer func() {
		if t.Failed() {
			t.Logf("%s: the last try: %v", name, why)
		}
	}()
	await(t, name+": a stream", func() bool {
		once, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		m.Network().(*swarm.Swarm).Backoff().Clear(to.ID())
		if why = m.Connect(once, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{ma.StringCast(clusterStar)}}); why == nil {
			s, why = m.NewStream(once, to.ID(), starEcho)
		}
		return why == nil
	})
	go func() {
		defer close(f.ended)
		f.err = f.pump(ctx, s)
		_ = s.Reset()
	}()
	t.Cleanup(func() { stop(); _ = s.Reset(); <-f.ended })
	return f
}

// pump sends blocks of random bytes and compares what comes back.
func (f *starFlow) pump(ctx context.Context, s network.Stream) error {
	block, back := make([]byte, 4<<10), make([]byte, 4<<10)
	random := rand.NewChaCha8([32]byte{1})
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		_, _ = random.Read(block)
		if _, err := s.Write(block); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, back); err != nil {
			return err
		}
		if string(block) != string(back) {
			return errors.New("other bytes came back")
		}
		f.passed.Add(int64(len(block)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *starFlow) over() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// goesOn waits until more has passed, or the stream has ended.
func (f *starFlow) goesOn(t *testing.T) (on bool) {
	t.Helper()
	before := f.passed.Load()
	await(t, f.name+" goes on or ends", func() bool {
		on = f.passed.Load() > before+16<<10
		return on || f.over()
	})
	return on
}

// failed checks that a stream that ended did so with an error, never as if it had
// come to its end.
func (f *starFlow) failed(t *testing.T) {
	t.Helper()
	await(t, f.name+" ends", f.over)
	if f.err == nil || f.err == io.EOF || strings.Contains(f.err.Error(), "other bytes") {
		t.Errorf("%s ended with %v", f.name, f.err)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// TestStarsBehindOneName: three star processes over three NATS servers, members
// that are reached over them alone. Then a star and a NATS server are killed under
// load: only streams that cross what was killed end, each with an error, and the
// members of the dead star are back at another one soon.
func TestStarsBehindOneName(t *testing.T) {
	nats := natstest.Start(t, 3)
	names := &starNames{}
	var stars []*starProcess
	for range 3 {
		s := startStarProcess(t, "star.cluster="+nats.URL(), "star.clusterName=test")
		stars, names.hosts = append(stars, s), append(names.hosts, strings.TrimPrefix(s.url, "http://"))
	}
	for _, s := range stars {
		await(t, "a lease", func() bool { return strings.Contains(string(fetch(s.url+"/metrics")), "parley_star_lease_valid 1") })
	}
	var m []*starMember // m[i] is at star i%3
	for range 6 {
		m = append(m, names.member(t))
	}
	for i, s := range stars {
		await(t, "all members at all stars", func() bool {
			all, here := s.members(t)
			return all == 6 && here == 2
		})
		t.Logf("star %d is %s", i, s.url)
	}
	local0, local1 := m[0].run(t, "within star 0", m[3]), m[1].run(t, "within star 1", m[4])
	cross := []*starFlow{m[0].run(t, "star 0 to 1", m[1]), m[4].run(t, "star 1 to 0", m[3])}
	dying := []*starFlow{m[0].run(t, "star 0 to 2", m[2]), m[5].run(t, "star 2 to 1", m[1]), m[2].run(t, "within star 2", m[5])}
	for _, f := range append(append([]*starFlow{local0, local1}, cross...), dying...) {
		if !f.goesOn(t) {
			t.Fatalf("%s ended: %v", f.name, f.err)
		}
	}

	stars[2].kill()
	nats.Kill(max(nats.Leader("STAR_MEMBERS_test"), 0))
	killed := time.Now()
	said := map[int]string{}
	for _, i := range []int{2, 5} {
		await(t, "back at another star", func() bool {
			st := m[i].stars.Status()
			if text := fmt.Sprint(st[0].State, " ", st[0].Error); text != said[i] {
				said[i] = text
				t.Logf("%v: member %d is %s", time.Since(killed).Round(time.Millisecond), i, text)
			}
			return m[i].joined() && time.Since(st[0].Since) < time.Since(killed)
		})
	}
	for _, s := range stars[:2] {
		await(t, "all members are known", func() bool {
			all, _ := s.members(t)
			if all >= 0 && all < 4 {
				t.Errorf("%d members are known, and 4 were never away", all)
			}
			return all == 6
		})
	}
	took := time.Since(killed)
	t.Logf("all members were back %v after the kill", took.Round(time.Millisecond))
	if took > 10*time.Second { // what the issue allows
		t.Errorf("a member was lost for %v", took)
	}
	for _, f := range dying {
		f.failed(t)
	}
	for _, f := range []*starFlow{local0, local1} {
		if !f.goesOn(t) {
			t.Errorf("%s ended with %v, and crosses nothing that was killed", f.name, f.err)
		}
	}
	for _, f := range cross { // they may have had something on its way in the NATS server
		if !f.goesOn(t) {
			f.failed(t)
			t.Logf("%s ended: %v", f.name, f.err)
		}
	}
	_, here0 := stars[0].members(t)
	_, here1 := stars[1].members(t)
	if here0+here1 != 6 {
		t.Errorf("%d and %d members at the two stars left: not each once", here0, here1)
	}
	m[0].run(t, "again to a member of the dead star", m[2]).goesOn(t)
	m[5].run(t, "again from one", m[1]).goesOn(t)
}

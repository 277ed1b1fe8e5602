//go:build unix

package transport_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libtransport "github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/internal/npmtest"
	"github.com/parley-p2p/parley/star/internal/startest"
	"github.com/parley-p2p/parley/star/transport"
)

// The acceptance tests B of star.md §15: this client on the original server, with the
// libraries of today and of 2019. They run on loopback in real time.

// onLoopback are options of nodes that reach servers of this machine.
func onLoopback() transport.Options { return transport.Options{Dialer: (&net.Dialer{}).DialContext} }

// eachStack runs f with both.
func eachStack(t *testing.T, f func(t *testing.T, w *world, stack npmtest.Stack)) {
	npmtest.Need(t)
	for _, stack := range npmtest.Stacks {
		t.Run(string(stack), func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t), stack)
		})
	}
}

// slow says whether the tests that take minutes run in full.
func slow() bool { return os.Getenv("PARLEY_LONG") != "" }

// recorded is a key of the recordings, as peer-id writes it.
func recorded(t testing.TB, name string) (id map[string]any, who peer.ID) {
	t.Helper()
	for _, i := range startest.Load(t).Identities {
		if i.Name == name {
			who, err := peer.Decode(i.PeerID)
			if err != nil {
				t.Fatal(err)
			}
			return map[string]any{"id": i.JSON.ID, "privKey": i.JSON.PrivKey, "pubKey": i.JSON.PubKey}, who
		}
	}
	t.Fatalf("no identity %q in the recordings", name)
	return nil, ""
}

// old starts an original client that listens at a server.
func old(t *testing.T, stack npmtest.Stack, at, mode string) (*npmtest.Peer, peer.ID) {
	t.Helper()
	id, who := recorded(t, "A")
	p := npmtest.NewPeer(t, stack)
	p.Do(map[string]any{"do": "listen", "address": at, "id": id, "with": mode})
	p.Wait("listening")
	return p, who
}

// B-1: keys of all three types join, and members see each other by list and ws-peer.
func TestB_1_JoinAndDiscovery(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		at := npmtest.Serve(t, stack, nil).Multiaddr()
		var all []*node
		for _, kind := range []string{"RSA", "Ed25519", "secp256k1"} {
			n := w.nodeWith(keyOf(t, kind), onLoopback()).listen(w, at)
			st := n.state(at, transport.Joined)
			if st.Extended {
				t.Errorf("%s: extensions on an original server", kind)
			}
			all = append(all, n)
		}
		for i, n := range all {
			for j, other := range all {
				if i == j {
					continue
				}
				if life := n.seen(other.id); life < time.Minute { // j < i: from the list; else: from ws-peer
					t.Errorf("%d knows %d for %v", i, j, life)
				}
			}
		}
		here, there := all[1].connect(w, all[0], at)
		echo(t, here, there, "hello")
		here, there = all[2].connect(w, all[1], at)
		echo(t, here, there, "hello")
	})
}

// B-2: Noise and yamux over the original server: many streams, much data, half-close
// and reset.
func TestB_2_NoiseAndYamux(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		at := npmtest.Serve(t, stack, nil).Multiaddr()
		o := onLoopback()
		o.Star = func(string) transport.StarOptions { return transport.StarOptions{} } // no budget: 1 GiB goes by
		a, b := w.node(o).listen(w, at), w.node(o).listen(w, at)
		a.state(at, transport.Joined)
		b.state(at, transport.Joined)
		here, there := a.connect(w, b, at)

		t.Run("100 streams", func(t *testing.T) {
			serving := echoAll(there, 100)
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() { echoOnce(t, here, strings.Repeat(fmt.Sprintf("stream %d ", i), 500)) })
			}
			wg.Wait()
			if err := <-serving; err != nil {
				t.Error(err)
			}
		})
		size := int64(4 << 20)
		if slow() {
			size = 1 << 30
		}
		t.Run("bulk", func(t *testing.T) { bulk(t, here, there, size) })
		t.Run("bulk back", func(t *testing.T) { bulk(t, there, here, size/4) })
		t.Run("half-close", func(t *testing.T) { halfClose(t, here, there) })
		t.Run("reset", func(t *testing.T) {
			s, err := here.OpenStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write([]byte("x"))
			in, err := there.AcceptStream()
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Reset()
			if _, err := io.ReadAll(in); !errors.Is(err, network.ErrReset) {
				t.Errorf("read after a reset: %v", err)
			}
			echo(t, here, there, "the connection goes on")
		})
	})
}

// echoAll echoes n streams; the channel tells of its end.
func echoAll(there libtransport.CapableConn, n int) <-chan error {
	end := make(chan error, 1)
	go func() {
		var wg sync.WaitGroup
		var err error
		for range n {
			var s network.MuxedStream
			if s, err = there.AcceptStream(); err != nil {
				break
			}
			wg.Go(func() {
				_, _ = io.Copy(s, s)
				_ = s.CloseWrite()
			})
		}
		wg.Wait()
		end <- err
	}()
	return end
}

// echoOnce sends text over a new stream of one that echoes.
func echoOnce(t *testing.T, here libtransport.CapableConn, text string) {
	s, err := here.OpenStream(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	go func() {
		_, _ = io.WriteString(s, text)
		_ = s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Errorf("echoed %d bytes of %d, %v", len(got), len(text), err)
	}
}

// bulk sends size bytes one way; they arrive as they were.
func bulk(t *testing.T, here, there libtransport.CapableConn, size int64) {
	sent := make(chan []byte, 1)
	go func() {
		defer close(sent)
		s, err := here.OpenStream(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		sum, block := sha256.New(), make([]byte, 1<<20)
		_, _ = rand.Read(block)
		for left := size; left > 0; {
			block[left%1000] ^= byte(left >> 20)
			n := min(left, int64(len(block)))
			_, _ = sum.Write(block[:n])
			if _, err := s.Write(block[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			left -= n
		}
		_ = s.CloseWrite()
		sent <- sum.Sum(nil)
	}()
	s, err := there.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, s)
	if want := <-sent; err != nil || n != size || string(sum.Sum(nil)) != string(want) {
		t.Errorf("%d of %d bytes came, %v", n, size, err)
	}
}

// halfClose ends one direction of a stream, then the other.
func halfClose(t *testing.T, here, there libtransport.CapableConn) {
	s, err := here.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(s, "question")
	_ = s.CloseWrite()
	in, err := there.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); err != nil || string(got) != "question" {
		t.Fatalf("%q, %v", got, err)
	}
	_, _ = io.WriteString(in, "answer")
	_ = in.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
}

// B-3: raw streams with the original client, each dialling the other: echo, 1 MiB,
// half-close, and the three ways to end. B-4: no chunk is near 1,000,000 bytes.
func TestB_3_RawStreamsWithTheOriginalClient(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		at := npmtest.Serve(t, stack, nil).Multiaddr()
		rawStreams(t, w, stack, at, at)
	})
}

// rawStreams has a node at one star and an original client at another, or the same,
// dial each other with every kind of stream.
func rawStreams(t *testing.T, w *world, stack npmtest.Stack, at, oldAt string) {
	n := w.node(onLoopback())
	arrived, stop, err := n.ListenRaw(ma.StringCast(at))
	if err != nil {
		t.Fatal(err)
	}
	w.atEnd(stop)
	n.state(at, transport.Joined)
	p, who := old(t, stack, oldAt, "echo")
	theirs, own := ma.StringCast(at), oldAt+"/ipfs/"+n.id.String()
	for mode, check := range map[string]func(t *testing.T, p *npmtest.Peer, c *transport.Conn){
		"echo":                           rawEcho,
		"late":                           rawLate,
		fmt.Sprintf("bytes:%d", 1<<20+1): rawBytes,
		"true":                           rawEnd(""),
		"string":                         rawEnd("the star refused: went wrong"),
		"object":                         rawEnd("the star refused: {}"),
	} {
		p.Do(map[string]any{"do": "serve", "with": mode})
		p.Wait("serving")
		t.Run(mode+" dialled", func(t *testing.T) {
			c, err := n.DialRaw(t.Context(), theirs, who)
			if err != nil {
				t.Fatal(err)
			}
			check(t, p, c)
			_ = c.Close()
		})
		t.Run(mode+" dialling", func(t *testing.T) {
			p.Do(map[string]any{"do": "dial", "address": own, "with": mode})
			p.Wait("dialled")
			c := <-arrived
			check(t, p, c)
			_ = c.Close()
		})
	}
}

func rawEcho(t *testing.T, _ *npmtest.Peer, c *transport.Conn) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = c.Write([]byte("hello"))
		_, _ = c.Write(nil)
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello"+string(data) {
		t.Errorf("echoed %d bytes, %v", len(got), err)
	}
}

// rawLate ends its own direction first; the other goes on.
func rawLate(t *testing.T, p *npmtest.Peer, c *transport.Conn) {
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	sum := sha256.Sum256(data)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
	end := p.Wait("end")
	if end.Bytes != len(data) || end.SHA256 != hex.EncodeToString(sum[:]) || end.Error != "" {
		t.Errorf("the other side got %+v", end)
	}
	if end.Largest > 64<<10 { // B-4
		t.Errorf("a chunk of %d bytes", end.Largest)
	}
}

// rawBytes gets much, and ends with an error, which the other side reads as a string.
func rawBytes(t *testing.T, p *npmtest.Peer, c *transport.Conn) {
	n, sum := 0, true
	buf := make([]byte, 10_000)
	for {
		m, err := c.Read(buf)
		for i, b := range buf[:m] {
			sum = sum && b == byte((n+i)*7)
		}
		n += m
		if err != nil {
			if err != io.EOF {
				t.Errorf("read: %v", err)
			}
			break
		}
	}
	if n != 1<<20+1 || !sum {
		t.Errorf("%d bytes, as they were: %v", n, sum)
	}
	_ = c.Reset()
	if end := p.Wait("end"); end.Error != "Stream failed" {
		t.Errorf("the other side saw %+v", end)
	}
}

// rawEnd wants an end: "" is a clean one.
func rawEnd(want string) func(*testing.T, *npmtest.Peer, *transport.Conn) {
	return func(t *testing.T, p *npmtest.Peer, c *transport.Conn) {
		got, err := io.ReadAll(c)
		if err == nil && want != "" || err != nil && err.Error() != want || string(got) != "part" {
			t.Errorf("%q, %v; want the end %q", got, err, want)
		}
		if err != nil && identity.CodeOf(err) != identity.CodeRefused {
			t.Errorf("code %v", identity.CodeOf(err))
		}
		_ = c.CloseWrite()
		if end := p.Wait("end"); end.Error != "" {
			t.Errorf("the other side saw %+v", end)
		}
	}
}

// B-4: what the 2019 server says of its heartbeat is obeyed: one that stands still is
// left its 5 s after the next ping, not after the 20 s of others. (The open packet's
// numbers are those of every session; the key `parley=1` in the query does no harm, as
// every other test here shows.)
func TestB_4_HeartbeatOfTheOldServer(t *testing.T) {
	if !slow() {
		t.Skip("waits for a ping at 25 s: set PARLEY_LONG")
	}
	npmtest.Need(t)
	t.Parallel()
	w := newWorld(t)
	server := npmtest.Serve(t, npmtest.Old, nil)
	at := server.Multiaddr()
	n := w.node(onLoopback()).listen(w, at)
	n.state(at, transport.Joined)
	began := time.Now()
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.lost()
	if took := time.Since(began); took < 25*time.Second || took > 44*time.Second {
		t.Errorf("a server that stands still was left after %v", took)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	n.state(at, transport.Joined)
}

// B-5: the server is killed; connections end with an error, and both sides come back by
// themselves.
func TestB_5_ServerIsKilledAndComesBack(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		server := npmtest.Serve(t, stack, map[string]any{"port": natstest.FreePorts(t, 1)[0]}) // nobody takes it meanwhile
		at := server.Multiaddr()
		a, b := w.node(onLoopback()).listen(w, at), w.node(onLoopback()).listen(w, at)
		a.state(at, transport.Joined)
		b.state(at, transport.Joined)
		here, there := a.connect(w, b, at)
		echo(t, here, there, "before")
		broken := make(chan error, 2)
		for _, c := range []libtransport.CapableConn{here, there} {
			go func() { _, err := c.AcceptStream(); broken <- err }()
		}
		server.Kill()
		for range 2 {
			if err := <-broken; err == nil {
				t.Error("a connection outlived its star")
			}
		}
		server.Again()
		a.state(at, transport.Joined)
		b.state(at, transport.Joined)
		here, there = a.connect(w, b, at)
		echo(t, here, there, "after")
	})
}

// B-6: an open server is refused unless allowed, and taken where it is.
func TestB_6_OpenServer(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		at := npmtest.Serve(t, stack, map[string]any{"cryptoChallenge": false}).Multiaddr()
		n := w.node(onLoopback()).listen(w, at)
		if st := n.state(at, transport.Refused); !strings.Contains(st.Error.Error(), "no proof") {
			t.Errorf("refused for %v", st.Error)
		}
		o := onLoopback()
		o.Star = func(string) transport.StarOptions { return transport.StarOptions{AllowOpen: true} }
		a, b := w.node(o).listen(w, at), w.node(o).listen(w, at)
		a.state(at, transport.Joined)
		b.state(at, transport.Joined)
		here, there := a.connect(w, b, at)
		echo(t, here, there, "hello")
	})
}

// B-6: beside dead, hanging and lying servers the good one works, and nothing waits
// for them. B-7: a nonce of foreign form is not signed.
func TestB_6_GoodServerAmongBadOnes(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		good := npmtest.Serve(t, stack, nil).Multiaddr()
		lying := npmtest.Serve(t, stack, map[string]any{"nonce": "I owe you my house, signed by whoever signs this text. 72 characters ok."}).Multiaddr()
		hanging := listenAndHang(t)
		dead := "/ip4/127.0.0.1/tcp/1/ws/p2p-websocket-star"
		began := time.Now()
		a := w.node(onLoopback())
		for _, at := range []string{dead, hanging, lying, good} {
			a.listen(w, at)
		}
		if took := time.Since(began); took >= 10*time.Second { // that is how long a hanging one is waited for
			t.Errorf("listening took %v", took)
		}
		b := w.node(onLoopback()).listen(w, good)
		a.state(good, transport.Joined)
		b.state(good, transport.Joined)
		here, there := a.connect(w, b, good)
		echo(t, here, there, "works")
		if st := a.state(lying, transport.Refused); !strings.Contains(st.Error.Error(), "no challenge") {
			t.Errorf("the lying server: %v", st.Error)
		}
		if st := a.state(dead, transport.Waiting); identity.CodeOf(st.Error) != identity.CodeUnreachable {
			t.Errorf("the dead server: %v", st.Error)
		}
		if addrs := a.Addrs(); len(addrs) != 1 || addrs[0].String() != good {
			t.Errorf("advertised: %v", addrs)
		}
	})
}

// listenAndHang takes connections and says nothing.
func listenAndHang(t *testing.T) (at string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/ws/p2p-websocket-star", l.Addr().(*net.TCPAddr).Port)
}

// B-7: a callee that never answers ends the dial with its own error after 15 s (here
// sooner, unless there is time), {} and a reason are refusals, and nobody is not found.
func TestB_7_DialsThatAreNotTaken(t *testing.T) {
	eachStack(t, func(t *testing.T, w *world, stack npmtest.Stack) {
		at := npmtest.Serve(t, stack, nil).Multiaddr()
		p, who := old(t, stack, at, "echo")
		n := w.node(onLoopback()).listen(w, at)
		n.state(at, transport.Joined)
		for how, want := range map[string]string{"object": "the star refused: {}", "string": "the star refused: not today"} {
			p.Do(map[string]any{"do": "answer", "how": how})
			p.Wait("answering")
			_, err := n.Dial(t.Context(), ma.StringCast(at), who)
			if identity.CodeOf(err) != identity.CodeRefused || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", how, err)
			}
		}
		if _, err := n.Dial(t.Context(), ma.StringCast(at), w.node(onLoopback()).id); !errors.Is(err, transport.ErrPeerNotFound) {
			t.Errorf("nobody: %v", err)
		}
		p.Do(map[string]any{"do": "answer", "how": "never"})
		p.Wait("answering")
		o, patience := onLoopback(), 15*time.Second
		if !slow() {
			patience = 3 * time.Second
			o.Times.Dial = patience
		}
		n = w.node(o).listen(w, at)
		n.state(at, transport.Joined)
		began := time.Now()
		_, err := n.Dial(t.Context(), ma.StringCast(at), who)
		if took := time.Since(began); !errors.Is(err, transport.ErrDialTimedOut) || took < patience {
			t.Errorf("never answered: %v after %v", err, took)
		}
	})
}

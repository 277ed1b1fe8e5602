// Package npmtest runs the original star programs, unmodified, for tests and
// measurements: libp2p-websocket-star-rendezvous@0.4.1 and libp2p-websocket-star@0.10.2
// of tests/star/originals, which are installed when they are not there.
//
//	server := npmtest.Serve(t, npmtest.Recent, nil)
//	peer := npmtest.NewPeer(t, npmtest.Recent)
//	peer.Do(map[string]any{"do": "listen", "address": server.Multiaddr(), …})
//	peer.Wait("listening")
//
// Tests are skipped, saying so, where there is no Node.
package npmtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Stack is the libraries that a program runs with.
type Stack string

// The stacks.
const (
	Recent Stack = "recent" // what its package resolves today
	Old    Stack = "2019"   // of its own time
)

// Stacks are all of them.
var Stacks = []Stack{Recent, Old}

// patience is for one answer of a program, on a machine that does much else.
const patience = 2 * time.Minute

func folder() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..", "..", "tests", "star", "originals")
}

var install = sync.OnceValue(func() error {
	out, err := exec.Command("node", filepath.Join(folder(), "install.mjs")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("install the original star programs: %w\n%s", err, out)
	}
	return nil
})

// Need installs the programs, and skips the test where that can't be done.
func Need(t testing.TB) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("the original star programs need %s, which is not here", name)
		}
	}
	if err := install(); err != nil {
		t.Fatal(err)
	}
}

// process is one of the programs: lines go in and come out.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed at the end
	stop  func()
}

func start(t testing.TB, script string, args ...string) *process {
	t.Helper()
	Need(t)
	p := &process{t: t, cmd: exec.Command("node", append([]string{filepath.Join(folder(), script)}, args...)...), lines: make(chan string, 4096)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	})
	p.stop = sync.OnceFunc(func() {
		_ = p.cmd.Process.Kill()
		for range p.lines { // so that the reader ends
		}
		reading.Wait()
		_ = p.cmd.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// line waits for a line that fits.
func (p *process) line(what string, fits func(string) bool) string {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case text, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the original program ended before %s", what)
			}
			if fits(text) {
				return text
			}
		case <-limit.C:
			p.t.Fatalf("the original program never said: %s", what)
		}
	}
}

// Server is an original server that runs.
type Server struct {
	*process
	stack   Stack
	options map[string]any
	url     *url.URL
}

// Serve starts a server on a free port of 127.0.0.1. options are those of its
// library, and nonce (tests/star/originals/server.cjs).
func Serve(t testing.TB, stack Stack, options map[string]any) *Server {
	t.Helper()
	text, err := json.Marshal(options)
	if err != nil || options == nil {
		text = []byte("{}")
	}
	s := &Server{process: start(t, "server.cjs", string(stack), string(text)), stack: stack, options: options}
	const prefix = "Listening on: "
	line := s.line("where it listens", func(text string) bool { return strings.HasPrefix(text, prefix) })
	if s.url, err = url.Parse(strings.TrimPrefix(line, prefix)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Port is where it listens.
func (s *Server) Port() string { return s.url.Port() }

// Multiaddr is its star address, without an id.
func (s *Server) Multiaddr() string {
	return "/ip4/127.0.0.1/tcp/" + s.Port() + "/ws/p2p-websocket-star"
}

// Kill ends it at once.
func (s *Server) Kill() { s.stop() }

// Signal sends it a signal.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Again starts one at the same port, after its end.
func (s *Server) Again() *Server {
	s.t.Helper()
	options := map[string]any{}
	for name, value := range s.options {
		options[name] = value
	}
	var port int
	if _, err := fmt.Sscan(s.Port(), &port); err != nil {
		s.t.Fatal(err)
	}
	options["port"] = port
	return Serve(s.t, s.stack, options)
}

// Peer is an original client that runs (tests/star/originals/client.cjs).
type Peer struct{ *process }

// Said is an event that a peer tells.
type Said struct {
	Event   string `json:"event"`
	Address string `json:"address"`
	Error   string `json:"error"`
	Bytes   int    `json:"bytes"`
	Largest int    `json:"largest"` // chunk
	SHA256  string `json:"sha256"`
}

// NewPeer starts a client, which listens nowhere yet.
func NewPeer(t testing.TB, stack Stack) *Peer {
	t.Helper()
	return &Peer{start(t, "client.cjs", string(stack))}
}

// Do gives it a command.
func (p *Peer) Do(command map[string]any) {
	p.t.Helper()
	text, err := json.Marshal(command)
	if err == nil {
		_, err = p.in.Write(append(text, '\n'))
	}
	if err != nil {
		p.t.Fatalf("the original client doesn't listen: %v", err)
	}
}

// Wait gives the next event of a name; others before it are passed over, but errors
// that nobody waits for fail the test.
func (p *Peer) Wait(event string) Said {
	p.t.Helper()
	var s Said
	p.line(event, func(text string) bool {
		s = Said{}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			p.t.Fatalf("the original client said %q", text)
		}
		if s.Event == "error" && event != "error" {
			p.t.Fatalf("the original client: %s", s.Error)
		}
		return s.Event == event
	})
	return s
}

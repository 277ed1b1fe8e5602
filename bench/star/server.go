package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kind says whose server it is.
type kind string

const (
	reference kind = "reference"
	parley    kind = "parley"
)

// build makes the programs ready: parley's server, and the original one from npm;
// missing says why there is no such.
func (b *bench) build(ctx context.Context) (missing string, err error) {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return "", fmt.Errorf("where is the repository: %w", err)
	}
	b.root = strings.TrimSpace(string(out))
	if b.programs, err = os.MkdirTemp("", "parley-bench-"); err != nil {
		return "", err
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Stderr = b.root, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
		return nil
	}
	if err := run("go", "build", "-o", filepath.Join(b.programs, "starserver"), "./star/internal/starserver"); err != nil {
		return "", err
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("the npm server is not measured: %s is missing", program), nil
		}
	}
	if err := run("node", "tests/star/originals/install.mjs"); err != nil {
		return fmt.Sprintf("the npm server is not measured: %v", err), nil
	}
	return "", nil
}

// fixedNonce is every nonce of the original server, where it is fixed.
const fixedNonce = "11111111-2222-4333-8444-55555555555566666666-7777-4888-9999-aaaaaaaaaaaa"

// setting is how a server is to be; limits are lifted in any case.
type setting struct {
	challenge bool
	announce  bool // tell members of each other
}

// server is a running one.
type server struct {
	kind kind
	base *url.URL
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// start runs a server on a free port of loopback.
func (b *bench) start(k kind, set setting) (*server, error) {
	cmd := b.command(k, set)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{kind: k, cmd: cmd, in: in, out: bufio.NewReader(out)}
	text, err := s.out.ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(text), "Listening on: ")
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s did not start: %q", k, text), err, s.stop())
	}
	s.base, err = url.Parse(at)
	return s, err
}

func (b *bench) command(k kind, set setting) *exec.Cmd {
	if k == reference {
		interval := 10_000
		if !set.announce {
			interval = 1 << 30
		}
		options, _ := json.Marshal(map[string]any{"cryptoChallenge": set.challenge, "nonce": fixedNonce, "refreshPeerListIntervalMS": interval})
		return exec.Command("node", filepath.Join(b.root, "tests/star/originals/server.cjs"), "recent", string(options))
	}
	limits := map[string]int{}
	for _, name := range []string{"SessionsPerIP", "Sessions", "NewSessionsPerIP", "NewSessionBurst", "AddressesPerSession", "AddressesPerKey",
		"AddressesPerIP", "Addresses", "Joins", "JoinBurst", "ServerJoins", "Dials", "DialBurst", "Events", "EventBurst"} {
		limits[name] = -1
	}
	many := 1 << 20
	options := map[string]any{"OpenJoins": !set.challenge, "Limits": limits, "Announce": "off",
		"Streams": map[string]int{"DialsOfDialer": many, "Unanswered": many, "DialsOfCallee": many, "Dials": many}}
	if set.announce {
		options["Announce"] = "all"
	}
	text, _ := json.Marshal(options)
	return exec.Command(filepath.Join(b.programs, "starserver"), "-fixed-nonces", string(text))
}

// with runs f with a fresh server.
func (b *bench) with(ctx context.Context, k kind, set setting, f func(s *server) error) error {
	s, err := b.start(k, set)
	if err != nil {
		return err
	}
	err = f(s)
	return errors.Join(err, s.stop(), ctx.Err())
}

// each runs f with a fresh server of each kind.
func (b *bench) each(ctx context.Context, set setting, f func(s *server) error) error {
	for _, k := range b.kinds {
		if err := b.with(ctx, k, set, f); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

func (s *server) stop() error {
	_ = s.in.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	return nil
}

// cpu is the CPU time that the server has used: the scheduler's own account of its
// threads, since ticks count short work wrongly.
func (s *server) cpu() time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	var total time.Duration
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has just ended
		}
		ran, _, _ := strings.Cut(string(raw), " ")
		n, _ := strconv.ParseInt(ran, 10, 64)
		total += time.Duration(n)
	}
	return total
}

// rss is the memory of the server, in bytes.
func (s *server) rss() float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(raw))[1])
	return float64(pages * os.Getpagesize())
}

// ask sends a line to parley's server and gives the answer.
func (s *server) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		return "", err
	}
	answer, err := s.out.ReadString('\n')
	return strings.TrimSpace(answer), err
}

// heap is what parley's server holds after a collection; of the original one it
// is the whole memory, since it can't be asked.
func (s *server) heap() (float64, error) {
	if s.kind == reference {
		time.Sleep(time.Second) // for its collector
		return s.rss(), nil
	}
	answer, err := s.ask("gc")
	if err != nil {
		return 0, err
	}
	var bytes float64
	_, err = fmt.Sscanf(answer, "heap %g", &bytes)
	return bytes, err
}

// profiled runs f while parley's server is profiled, where that is wanted.
func (b *bench) profiled(s *server, name string, f func() error) error {
	if b.profile == "" || s.kind != parley {
		return f()
	}
	file := filepath.Join(b.profile, name+".prof")
	_, err1 := s.ask("cpu " + file)
	err2 := f()
	_, err3 := s.ask("cpu " + file)
	return errors.Join(err1, err2, err3)
}

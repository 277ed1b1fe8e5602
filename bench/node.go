package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/parley-p2p/parley/bench/page"
)

// environment is where a run happens: a binary and a folder for its nodes.
type environment struct {
	binary string
	dir    string
	nodes  int
}

func newEnvironment(ctx context.Context, binary string) (*environment, error) {
	dir, err := os.MkdirTemp("", "parley-bench-")
	if err != nil {
		return nil, err
	}
	if binary == "" {
		binary = filepath.Join(dir, "bin", "parley") // "parley" there is the nodes' registry
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/parley")
		build.Dir, build.Stderr = "..", os.Stderr
		if err := build.Run(); err != nil {
			return nil, errors.Join(fmt.Errorf("build parley: %w", err), os.RemoveAll(dir))
		}
	}
	return &environment{binary: binary, dir: dir}, nil
}

func (e *environment) Close() { _ = os.RemoveAll(e.dir) }

// node is a running parley process.
type node struct {
	cmd *exec.Cmd
	url string // http://127.0.0.1:PORT
	up  time.Duration
}

var printedURL = regexp.MustCompile(`http://(?:localhost|127\.0\.0\.1):(\d+)`)

// start runs a node and waits until it has printed its address. Nodes of one
// environment share a registry and so find each other.
func (e *environment) start(ctx context.Context, args ...string) (*node, error) {
	e.nodes++
	data := filepath.Join(e.dir, "data-"+strconv.Itoa(e.nodes))
	site := filepath.Join(e.dir, "site")
	if err := os.MkdirAll(site, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(site, "index.html"), []byte("<!doctype html><title>bench</title>"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, e.binary, append([]string{"serve", site, "--no-open", "--linger", "--auth", "none",
		"--port", "0", "--data", data}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+e.dir, "PARLEY_P2P_DHT=false", "PARLEY_P2P_MDNS=false",
		"PARLEY_P2P_LISTEN=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	log, err := os.Create(data + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n := &node{cmd: cmd}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := printedURL.FindStringSubmatch(lines.Text()); m != nil {
			n.url = "http://127.0.0.1:" + m[1]
			break
		}
	}
	if n.url == "" {
		return nil, fmt.Errorf("node printed no address; see %s", log.Name())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	if _, err := n.get("/"); err != nil {
		return nil, err
	}
	n.up = time.Since(began)
	return n, nil
}

func (n *node) stop() error {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	return n.cmd.Wait()
}

func (n *node) get(path string) (string, error) {
	resp, err := http.Get(n.url + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return string(body), err
}

// page opens a session with a fresh key on the node.
func (n *node) page(ctx context.Context) (*page.Page, error) {
	return dialPage(ctx, n.url)
}

func dialPage(ctx context.Context, url string) (*page.Page, error) {
	return page.Dial(ctx, strings.Replace(strings.TrimSuffix(url, "/"), "http", "ws", 1)+"/ws", page.Options{})
}

// usage is what a process takes from the machine.
type usage struct {
	rss        int64 // bytes
	fds        int
	goroutines int
	cpu        time.Duration // since its start
}

func (n *node) usage() (usage, error) {
	proc := filepath.Join("/proc", strconv.Itoa(n.cmd.Process.Pid))
	var u usage
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			u.rss = kb << 10
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return u, err
	}
	u.fds = len(fds)
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return u, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	if f := strings.Fields(rest); len(f) > 12 {
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		u.cpu = time.Duration(user+system) * 10 * time.Millisecond
	}
	metrics, err := n.get("/_parley/metrics")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(metrics) {
		if v, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			u.goroutines, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return u, nil
}

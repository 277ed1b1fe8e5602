//go:build linux

package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/gateway/gatewaytest"
	"github.com/parley-p2p/parley/internal/labtest"
)

// patience bounds every wait: only a test that fails waits so long.
const patience = 90 * time.Second

// node is a parley that runs on a host of the lab.
type node struct {
	*labtest.Host
	t      testing.TB
	id     string
	server *gatewaytest.Server
	args   []string
	env    []string
	cmd    *exec.Cmd // the last that was started

	mu   sync.Mutex
	said strings.Builder // what it wrote, for a test that fails
}

// fixed are listen addresses with a port that is known before the start.
const fixed = "p2p.listen=/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1"

// alone keeps a node from finding others by itself.
var alone = []string{"--set", "p2p.mdns=false", "--set", "p2p.dht=false"}

// run starts a node and returns when it takes pages and peers.
func run(t testing.TB, h *labtest.Host, args ...string) *node {
	t.Helper()
	return begin(t, h, args...)()
}

// begin is run in two steps, so that several nodes can start at once.
func begin(t testing.TB, h *labtest.Host, args ...string) (started func() *node) {
	t.Helper()
	folder := t.TempDir()
	n := &node{Host: h, t: t}
	n.args = append([]string{"serve", "--no-open", "--linger", "--port", "10000", "--auth", "none", "--data", filepath.Join(folder, "data")}, args...)
	if os.Getenv("PARLEY_LAB_VERBOSE") != "" {
		n.args = append(n.args, "-vv")
	}
	n.env = append(os.Environ(), "XDG_RUNTIME_DIR="+h.Dir, "HOME="+folder) // nodes of one host are one user's
	n.server = &gatewaytest.Server{Header: http.Header{},
		Client: &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}}
	t.Cleanup(func() {
		if t.Failed() {
			n.mu.Lock()
			defer n.mu.Unlock()
			t.Logf("%s (%s) wrote:\n%s", h.Name, n.id, n.said.String())
		}
	})
	ready := n.start()
	return func() *node {
		t.Helper()
		if n.id = <-ready; n.id == "" {
			t.Fatalf("%s has not started", h.Name)
		}
		return n
	}
}

// start starts the program. The channel gives its peer id when it has started.
func (n *node) start() <-chan string {
	n.t.Helper()
	cmd := exec.Command(program, n.args...) //nolint:gosec // built by TestMain
	cmd.Env, cmd.Stderr = n.env, n
	n.cmd = cmd
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	n.Start(cmd)
	ready := make(chan string, 1)
	go func() { // ends with the program
		defer close(ready)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			_, _ = fmt.Fprintln(n, lines.Text())
			if m := openLine.FindStringSubmatch(lines.Text()); m != nil {
				n.server.URL = "http://127.0.0.1:" + m[1]
			}
			if m := peerLine.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
	}()
	return ready
}

// What a node greets with: its address for pages, then its id.
var (
	openLine = regexp.MustCompile(`^\s+open\s+http://localhost:(\d+)`)
	peerLine = regexp.MustCompile(`^\s+peer\s+(\S+)`)
)

// stop ends the node in order.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("%s ended: %v", n.Name, err)
	}
}

// Write takes what the node writes.
func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said.Write(p)
}

// at is the node's address with the fixed port.
func (n *node) at(transport string) string {
	ip := "ip4"
	if n.Addr().Is6() {
		ip = "ip6"
	}
	return fmt.Sprintf("/%s/%s/%s/p2p/%s", ip, n.Addr(), transport, n.id)
}

// addresses are what the node listens on for peers and announces.
func (n *node) addresses() (out []string) {
	for _, row := range n.panel("addresses") {
		if row[0] == "peers" {
			out = append(out, row[1].(string))
		}
	}
	return out
}

// panel gives the rows of a panel of the node's status.
func (n *node) panel(id string) [][]any {
	n.t.Helper()
	res, err := n.server.Client.Get(n.server.URL + "/_parley/status.json")
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	var status struct {
		Panels []struct {
			ID    string
			Facts []struct {
				Name  string
				Value any
			}
			Table struct{ Rows [][]any }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
		n.t.Fatal(err)
	}
	for _, p := range status.Panels {
		if p.ID == id {
			rows := p.Table.Rows
			for _, f := range p.Facts {
				rows = append(rows, []any{f.Name, f.Value})
			}
			return rows
		}
	}
	n.t.Fatalf("%s has no panel %s", n.Name, id)
	return nil
}

// fact gives a fact of the panel of addresses.
func (n *node) fact(name string) string {
	n.t.Helper()
	for _, row := range n.panel("addresses") {
		if row[0] == name {
			return row[1].(string)
		}
	}
	n.t.Fatalf("%s has no fact %s", n.Name, name)
	return ""
}

// metric gives a metric of the node, 0 for one that isn't there yet.
func (n *node) metric(name string) (value float64) {
	n.t.Helper()
	res, err := n.server.Client.Get(n.server.URL + "/_parley/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err = fmt.Sscan(text, &value)
		}
	}
	if err != nil || lines.Err() != nil {
		n.t.Fatal(err, lines.Err())
	}
	return value
}

// relayed waits until the node announces an address through a relay.
func (n *node) relayed(relay *node) {
	n.t.Helper()
	until(n.t, n.Name+" has a place at the relay", func() bool {
		for _, a := range n.addresses() {
			if strings.Contains(a, relay.id+"/p2p-circuit") {
				return true
			}
		}
		return false
	})
}

// until waits for a condition that nobody tells of.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-end.C:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

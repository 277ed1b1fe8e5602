package parley

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// TestSpaceOverAStar: agents whose nodes have nothing but a star in common open
// channels, which the star can't read.
func TestSpaceOverAStar(t *testing.T) {
	s := startStar(t)
	first, second := runNode(t, starConfig(t, s.at)), runNode(t, starConfig(t, s.at))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a, b := join(ctx, t, first, "chess", newKey(t)), join(ctx, t, second, "chess", newKey(t))
	echo(t, b, "echo/1")
	if info := exchange(ctx, t, a, b.Agent(), network.PathStar); info.Node != second.ID() {
		t.Errorf("connected to %s", info.Node)
	}
	ch, err := a.Open(ctx, b.Agent(), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	if err := ch.Send(ctx, []byte(hidden)); err != nil {
		t.Fatal(err)
	}
	if got, err := ch.Receive(ctx); err != nil || string(got) != hidden {
		t.Errorf("got %q, %v", got, err)
	}
	s.check()
}

// childEnv makes this test's binary the other process of
// TestSpaceOfTwoProcesses.
const childEnv = "PARLEY_TEST_CHILD"

// TestSpaceOfTwoProcesses: the nodes are two programs; what one agent writes, the
// other reads to its end, and the end of a process ends the channel.
func TestSpaceOfTwoProcesses(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		beChild(t)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpaceOfTwoProcesses$") //nolint:gosec // this very program
	child.Env = append(os.Environ(), childEnv+"=1", "XDG_RUNTIME_DIR="+t.TempDir())
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the child has not started")
	}
	address, agent, ok := strings.Cut(lines.Text(), " ")
	id, err := identity.ParsePeerID(agent)
	if !ok || err != nil {
		t.Fatalf("the child says %q, %v", lines.Text(), err)
	}
	to, err := identity.AgentOf(id)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	cfg := loopbackConfig(t)
	cfg.P2P.Connect = []string{address}
	a := join(ctx, t, runNode(t, cfg), "chess", newKey(t))
	exchange(ctx, t, a, to, network.PathDirect)
	ch, err := a.Open(ctx, to, "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // more than the credit, both ways
		msg := strings.Repeat(string(rune('a'+i%26)), 1+i*300)
		if err := ch.Send(ctx, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		if got, err := ch.Receive(ctx); err != nil || string(got) != msg {
			t.Fatalf("content %d: got %d bytes, %v", i, len(got), err)
		}
	}
	_ = in.Close()
	if _, err := ch.Receive(ctx); err == nil || err == io.EOF {
		t.Errorf("the channel to a process that has ended gives %v", err)
	}
	for lines.Scan() {
		t.Log("child:", lines.Text())
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
}

// beChild runs a node with an agent that echoes until its input ends, and prints
// where it is.
func beChild(t *testing.T) {
	n, stop := startNode(t, loopbackConfig(t))
	key := newKey(t)
	m := join(t.Context(), t, n, "chess", key)
	echo(t, m, "echo/1")
	if _, err := fmt.Fprintf(os.Stdout, "%s/p2p/%s %s\n", n.host.Addrs()[0], n.ID(), key.PeerID()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Error(err)
	}
	stop() // with a channel open
}

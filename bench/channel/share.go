package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/parley-p2p/parley/channel"
	"github.com/parley-p2p/parley/identity"
)

// Three processes, so that the work of each node can be told from the others':
//
//	source (this process) ──▶ target                direct
//	source ──▶ relay ──▶ target                     relayed
//
// A child is this program with -role; it prints where it listens, and its own
// processor time for every line it reads.

// shareBytes are sent on each path in each round.
const shareBytes = 192 << 20

func roleKey(role string) (identity.Key, error) {
	seed := [32]byte{}
	copy(seed[:], "bench "+role)
	return identity.KeyFromSeed(seed)
}

// securedBy is what secures the connections: TLS, which two nodes of parley agree
// on, or Noise.
func securedBy(name string, key identity.Key) (sec.SecureTransport, error) {
	if name == "tls" {
		return libtls.New(libtls.ID, key.Libp2p(), nil)
	}
	return noise.New(noise.ID, key.Libp2p(), nil)
}

// newRole makes the node of a role and takes connections for it.
func newRole(ctx context.Context, role, by string) (e *end, address string, err error) {
	key, err := roleKey(role)
	if err != nil {
		return nil, "", err
	}
	node, err := channel.New(channel.Config{Network: lonely{key.PeerID()}, Key: key, Limits: wide})
	if err != nil {
		return nil, "", err
	}
	go func() { _ = node.Run(ctx) }()
	e = &end{key: key, node: node}
	if e.member, err = node.Space("bench").Join(ctx, key); err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	secure, err := securedBy(by, key)
	if err != nil {
		return nil, "", err
	}
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			if c, err := secure.SecureInbound(ctx, raw, ""); err == nil {
				go func() {
					_ = node.Serve(ctx, channel.Carrier{Stream: c, Local: c.LocalPeer(), Remote: c.RemotePeer()})
				}()
			}
		}
	}()
	return e, l.Addr().String(), nil
}

// dial connects to another role's process.
func (e *end) dial(ctx context.Context, role, by, address string) error {
	key, err := roleKey(role)
	if err != nil {
		return err
	}
	secure, err := securedBy(by, e.key)
	if err != nil {
		return err
	}
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	c, err := secure.SecureOutbound(ctx, raw, key.PeerID())
	if err != nil {
		return err
	}
	go func() {
		_ = e.node.Serve(ctx, channel.Carrier{Stream: c, Dialer: true, Local: c.LocalPeer(), Remote: c.RemotePeer()})
	}()
	before := e.node.Metrics().Connections.Current
	return waitFor(ctx, func() bool { return e.node.Metrics().Connections.Current > before || before > 0 })
}

// runRole is a child's life.
func runRole(ctx context.Context, role, by, relay string) error {
	e, address, err := newRole(ctx, role, by)
	if err != nil {
		return err
	}
	if role == "relay" {
		err = e.node.RelayFor(channel.RelayPolicy{})
	} else {
		err = e.receive(ctx, by, relay)
	}
	if err != nil {
		return err
	}
	fmt.Println(address)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(int64(processorTime()))
	}
	return nil
}

// receive reads what comes on every channel, directly and through the relay.
func (e *end) receive(ctx context.Context, by, relay string) error {
	l, err := e.member.Listen("x")
	if err != nil {
		return err
	}
	go func() {
		for {
			ch, err := l.Accept(ctx)
			if err != nil {
				return
			}
			go func() {
				_, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{ch}, make([]byte, piece))
				_, _ = ch.Write([]byte{1}) // everything is there
				_ = ch.Close()
			}()
		}
	}()
	if err := e.dial(ctx, "relay", by, relay); err != nil {
		return err
	}
	key, err := roleKey("relay")
	if err != nil {
		return err
	}
	go func() { _ = e.node.UseRelay(ctx, key.PeerID()) }()
	return waitFor(ctx, func() bool { return len(e.node.Relays()) > 0 })
}

// processorTime is what this process has used of the machine.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	address string
}

func startChild(ctx context.Context, role, by, relay string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, "-role", role, "-by", by, "-relay", relay)}
	if profile := flag.Lookup("cpuprofile").Value.String(); profile != "" {
		c.cmd.Args = append(c.cmd.Args, "-cpuprofile", profile+"."+role)
	}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if c.out = bufio.NewScanner(out); !c.out.Scan() {
		return nil, fmt.Errorf("%s ended before it began", role)
	}
	c.address = c.out.Text()
	return c, nil
}

func (c *child) processorTime() (time.Duration, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return 0, err
	}
	if !c.out.Scan() {
		return 0, errors.New("a child is gone")
	}
	n, err := strconv.ParseInt(strings.TrimSpace(c.out.Text()), 10, 64)
	return time.Duration(n), err
}

func (c *child) end() {
	_ = c.in.Close()
	_ = c.cmd.Wait() // it ends with its input
}

func measureShare(ctx context.Context) (string, error) {
	over := map[string][2][3][]float64{}
	for _, by := range []string{"tls", "noise"} {
		direct, relayed, err := measureShareOver(ctx, by)
		if err != nil {
			return "", err
		}
		over[by] = [2][3][]float64{direct, relayed}
	}
	return shareTable(over["tls"], over["noise"]), nil
}

// measureShareOver gives what each node worked on a direct and on a relayed path.
func measureShareOver(ctx context.Context, by string) (direct, relayed [3][]float64, err error) {
	relay, err := startChild(ctx, "relay", by, "")
	if err != nil {
		return direct, relayed, err
	}
	defer relay.end()
	target, err := startChild(ctx, "target", by, relay.address)
	if err != nil {
		return direct, relayed, err
	}
	defer target.end()
	e, _, err := newRole(ctx, "source", by)
	if err != nil {
		return direct, relayed, err
	}
	if err := e.dial(ctx, "target", by, target.address); err != nil {
		return direct, relayed, err
	}
	if err := e.dial(ctx, "relay", by, relay.address); err != nil {
		return direct, relayed, err
	}
	relayKey, err := roleKey("relay")
	if err != nil {
		return direct, relayed, err
	}
	for range rounds {
		if err := e.send(ctx, relay, target, &direct); err != nil {
			return direct, relayed, err
		}
		if err := e.send(ctx, relay, target, &relayed, channel.Via(relayKey.PeerID())); err != nil {
			return direct, relayed, err
		}
	}
	return direct, relayed, nil
}

// send sends shareBytes and adds what each node worked for it, in milliseconds a
// GiB: source, relay, target.
func (e *end) send(ctx context.Context, relay, target *child, into *[3][]float64, opts ...channel.OpenOption) error {
	key, err := roleKey("target")
	if err != nil {
		return err
	}
	before, err := allTimes(relay, target)
	if err != nil {
		return err
	}
	ch, err := e.member.Open(ctx, key.Agent(), "x", opts...)
	if err != nil {
		return err
	}
	buf := make([]byte, piece)
	for sent := 0; sent < shareBytes; sent += len(buf) {
		if _, err := ch.Write(buf); err != nil {
			return err
		}
	}
	_ = ch.Close()
	if err := waitFor(ctx, func() bool { return ch.Err() != nil || isDone(ch) }); err != nil {
		return err
	}
	after, err := allTimes(relay, target)
	for i := range after {
		into[i] = append(into[i], float64((after[i]-before[i]).Milliseconds())*float64(1<<30)/shareBytes)
	}
	return err
}

func isDone(ch channel.Channel) bool {
	select {
	case <-ch.Done():
		return true
	default:
		return false
	}
}

func allTimes(relay, target *child) (t [3]time.Duration, err error) {
	t[0] = processorTime()
	if t[1], err = relay.processorTime(); err != nil {
		return t, err
	}
	t[2], err = target.processorTime()
	return t, err
}

// shareTable takes what was worked directly and relayed, over TLS and over Noise.
func shareTable(tls, noise [2][3][]float64) string {
	row := func(name string, v [3][]float64) []string {
		return []string{name, fmt.Sprintf("%.0f", median(v[0])), fmt.Sprintf("%.0f", median(v[1])), fmt.Sprintf("%.0f", median(v[2]))}
	}
	slowest := func(v [3][]float64) float64 { return max(median(v[0]), median(v[1]), median(v[2])) }
	share := func(v [2][3][]float64) float64 { return slowest(v[0]) / slowest(v[1]) }
	one := share(tls)
	return table("What a relay costs", "Three processes, over libp2p's TLS, which two nodes of parley agree on, and over its Noise: processor time of each node "+
		"in milliseconds a GiB, medians of "+fmt.Sprint(rounds)+" rounds. Where each node has a core of its own, the busiest one decides what a relayed "+
		"channel reaches of a direct one's throughput.",
		[]string{"", "source", "relay", "target"},
		row("direct, TLS", tls[0]), row("relayed, TLS", tls[1]), row("direct, Noise", noise[0]), row("relayed, Noise", noise[1]),
		[]string{"share of direct, TLS, one core a node", fmt.Sprintf("%.0f %%", 100*one), "≥ 60 %: " + verdict(one >= 0.6), ""},
		[]string{"share of direct, Noise, one core a node", fmt.Sprintf("%.0f %%", 100*share(noise)), "", ""})
}

package host

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// PathInfo says how a peer is reached, and what failed.
type PathInfo struct {
	Peer    identity.PeerID
	Path    network.Path
	Address string        // the remote multiaddr in use; empty for none
	RTT     float64       // milliseconds, by the last ping; 0 when not known
	Tried   []PathAttempt // what failed last, newest last; at most maxTried
}

// PathAttempt is one failed way to a peer.
type PathAttempt struct {
	Path  network.Path
	Error string // with the address; at most maxErrorText bytes
}

// Bounds of what is kept about failures.
const (
	maxTried      = 16  // failures of one peer
	maxTriedPeers = 512 // peers of one endpoint; the ones longest without a failure are forgotten
	maxErrorText  = 256
	maxListed     = 6 // addresses that an error lists
)

// Path tells how a peer is reached now and why not otherwise.
func (e *endpoint) Path(id identity.PeerID) PathInfo {
	info := PathInfo{Peer: id, Path: network.PathNone, Tried: e.tried.of(id)}
	if id == e.Local() {
		info.Path = network.PathSelf
		return info
	}
	for _, c := range e.swarm.ConnsToPeer(id) {
		p := e.node.pathOf(c)
		if info.Path == network.PathNone || pathRank(p) < pathRank(info.Path) {
			info.Path, info.Address = p, c.RemoteMultiaddr().String()
		}
	}
	if info.Path == network.PathNone && e.node.page(id) != nil {
		info.Path = network.PathLocal
	}
	if info.Address != "" {
		info.RTT = float64(e.roundTrip(id).Microseconds()) / 1000
	}
	return info
}

var pathOrder = []network.Path{network.PathSelf, network.PathLocal, network.PathDirect, network.PathPunch,
	network.PathRelay, network.PathStar, network.PathNone}

func pathRank(p network.Path) int {
	for i, q := range pathOrder {
		if p == q {
			return i
		}
	}
	return len(pathOrder)
}

// pathOf classifies a connection. A circuit through the page's own node is what
// the connection to that node is.
func (n *Node) pathOf(c libnet.Conn) network.Path {
	stat := c.Stat()
	if link, ok := stat.Extra[linkKey{}].(*circuitLink); ok {
		switch {
		case link.via == nil:
			return network.PathLocal
		case link.own:
			return n.pathOf(link.via)
		}
		return network.PathRelay
	}
	switch path := pathOfAddr(c.RemoteMultiaddr()); {
	case path == network.PathDirect && n.wasPunched(c):
		return network.PathPunch
	case path == network.PathRelay && !stat.Limited:
		return n.pathThrough(c)
	default:
		return path
	}
}

// pathThrough classifies a circuit that the node's own host made: one to a page
// through the page's node is what the connection to that node is. A relay that
// carries others knows no such page.
func (n *Node) pathThrough(c libnet.Conn) network.Path {
	relay, err := relayOf(c.RemoteMultiaddr())
	homes, ok := n.finder().(interface {
		HomeOf(page identity.PeerID) (node identity.PeerID, ok bool)
	})
	if err != nil || !ok {
		return network.PathRelay
	}
	best := network.PathRelay
	if home, known := homes.HomeOf(c.RemotePeer()); known && home == relay.ID {
		for _, to := range n.host.Network().ConnsToPeer(relay.ID) {
			if p := pathOfAddr(to.RemoteMultiaddr()); p == network.PathDirect && n.wasPunched(to) {
				best = better(best, network.PathPunch)
			} else {
				best = better(best, p)
			}
		}
	}
	return best
}

func better(a, b network.Path) network.Path {
	if pathRank(b) < pathRank(a) {
		return b
	}
	return a
}

func pathOfAddr(a ma.Multiaddr) network.Path {
	switch {
	case a == nil:
		return network.PathNone
	case isStar(a):
		return network.PathStar
	case isCircuit(a):
		return network.PathRelay
	}
	return network.PathDirect
}

// explain makes an *identity.Error of what Open met.
func (e *endpoint) explain(ctx context.Context, err error) error {
	var known *identity.Error
	switch {
	case errors.As(err, &known):
		return known
	case e.ctx.Err() != nil || errors.Is(err, swarm.ErrSwarmClosed):
		return errClosed
	case isNotSupported(err):
		return &identity.Error{Code: identity.CodeNotStarted, Text: "protocol not started by peer", Err: err}
	case errors.Is(err, libnet.ErrResourceLimitExceeded):
		return &identity.Error{Code: identity.CodeLimit, Text: "too many streams or connections: " + cut(err.Error()), Err: err}
	case errors.Is(ctx.Err(), context.Canceled):
		return &identity.Error{Code: identity.CodeCancelled, Text: "cancelled", Err: err}
	}
	return &identity.Error{Code: identity.CodeUnreachable, Text: reason(err), Err: err}
}

var errClosed = &identity.Error{Code: identity.CodeClosed, Text: "network closed"}

// reason is the sentence that says why a peer wasn't reached.
func reason(err error) string {
	var dial *swarm.DialError
	switch {
	case errors.Is(err, swarm.ErrNoAddresses):
		return errNoAddresses.Error()
	case errors.As(err, &dial) && len(dial.DialErrors) > 0:
		var parts []string
		for i, d := range dial.DialErrors {
			if i == maxListed {
				parts = append(parts, fmt.Sprintf("and %d more", len(dial.DialErrors)-i+dial.Skipped))
				break
			}
			parts = append(parts, attemptText(d))
		}
		return strings.Join(parts, "; ")
	case errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer.Error()
	}
	return cut(err.Error())
}

func attemptText(d swarm.TransportError) string {
	cause := d.Cause.Error()
	if isCircuit(d.Address) {
		return cut("dial " + d.Address.String() + ": " + cause) // says what failed on the way to the relay
	}
	// The innermost message is what a person needs; the layers above repeat the
	// address.
	for inner := errors.Unwrap(d.Cause); inner != nil; inner = errors.Unwrap(inner) {
		cause = inner.Error()
	}
	return cut("dial " + d.Address.String() + ": " + cause)
}

func cut(s string) string {
	s = strings.ReplaceAll(s, "\n", " ")
	if len(s) <= maxErrorText {
		return s
	}
	return s[:maxErrorText-3] + "..."
}

// attempts is a bounded table of failures.
type attempts struct {
	mu    sync.Mutex
	peers map[identity.PeerID]*list.Element
	order *list.List // of *triedPeer, oldest failure first
}

type triedPeer struct {
	id    identity.PeerID
	tried []PathAttempt
}

func newAttempts() *attempts {
	return &attempts{peers: make(map[identity.PeerID]*list.Element), order: list.New()}
}

// record notes each address of a failed dial.
func (t *attempts) record(id identity.PeerID, err error) {
	var found []PathAttempt
	var dial *swarm.DialError
	if errors.As(err, &dial) && len(dial.DialErrors) > 0 {
		for _, d := range dial.DialErrors {
			found = append(found, PathAttempt{Path: pathOfAddr(d.Address), Error: attemptText(d)})
		}
	} else {
		found = append(found, PathAttempt{Path: network.PathNone, Error: reason(err)})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	el, ok := t.peers[id]
	if !ok {
		el = t.order.PushBack(&triedPeer{id: id})
		t.peers[id] = el
	}
	t.order.MoveToBack(el)
	p := el.Value.(*triedPeer)
	p.tried = slices.DeleteFunc(p.tried, func(old PathAttempt) bool { return slices.Contains(found, old) })
	p.tried = append(p.tried, found...)
	if n := len(p.tried) - maxTried; n > 0 {
		p.tried = append([]PathAttempt(nil), p.tried[n:]...)
	}
	if t.order.Len() > maxTriedPeers {
		oldest := t.order.Remove(t.order.Front()).(*triedPeer)
		delete(t.peers, oldest.id)
	}
}

func (t *attempts) of(id identity.PeerID) []PathAttempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	el, ok := t.peers[id]
	if !ok {
		return nil
	}
	return append([]PathAttempt(nil), el.Value.(*triedPeer).tried...)
}

package channel

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
	"github.com/parley-p2p/parley/wire"
)

// The protocols that a node accepts streams of, best first.
const (
	Protocol       network.Protocol = "/parley/mux/1.0.0"
	ProtocolPacked network.Protocol = "/parley/mux-packed/1.0.0"
)

// Config is what a Node is made with. Zero values are the defaults.
type Config struct {
	Network network.Network // required
	Key     identity.Agent  // the node's own key; needed to relay for others
	Locator Locator         // nil: agents are dialled as peers
	// Own reports whether another peer id than Network's leads to this node too,
	// such as a page's (Accept); nil: none does. It must not block.
	Own func(id identity.PeerID) bool
	// Dial makes a connection to a node that Network does not reach, such as over a
	// WebSocket of which the URL is known; nil: there is no other way.
	Dial func(ctx context.Context, node identity.PeerID) (Carrier, error)
	// Path tells how a connected node is reached now; nil: as its connection
	// began. It must not block, nor call the node.
	Path   func(id identity.PeerID) network.Path
	Limits Limits

	// Quiet answers "no such space" and "no such agent" alike, after the same
	// work, so that strangers can't list who is here.
	Quiet bool
	// AllowUnproven takes system channels from peers that can't prove who they
	// are: document-only ones, and those over carriers without authenticated ends.
	AllowUnproven bool
	// Logger gets what an operator may want to know; nil logs nothing.
	Logger *slog.Logger
}

// Limits are a node's limits, docs/spec/channels.md §8 and §9. Zero values are the
// defaults, given behind each; all are shown by Node.Metrics.
type Limits struct {
	Connections int // in all; 4,096
	PerAddress  int // connections from one address; 64
	Members     int // agents times spaces joined; 1,024
	Backlog     int // channels that wait for Accept, per listener; 128

	Channels     int           // open on a connection; 1,024
	CreateRate   float64       // creates a second on a connection; 100
	CreateBurst  float64       // 200
	ErrorRate    float64       // channel errors a second that a peer may cause; 64
	Window       int           // first credit of a channel, bytes; 245,760
	MaxWindow    int           // what a window may grow to; 4 MiB
	MaxContent   int           // largest content taken on app channels; 65,536
	Unread       int           // received and not read on a connection, bytes; 16 MiB
	OnlyHello    time.Duration // a connection with nothing but hellos; 30 s
	NoChannels   time.Duration // a connection without channels; 5 min
	Keepalive    time.Duration // ping after this time without traffic; 15 s
	WriteTimeout time.Duration // a write without progress ends the connection; 60 s
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Connections, 4096)
	set(&l.PerAddress, 64)
	set(&l.Members, 1024)
	set(&l.Backlog, 128)
	return l
}

func (l Limits) conn() conn.Limits {
	c := conn.Limits{
		Window: l.Window, MaxWindow: l.MaxWindow, MaxContent: l.MaxContent, Channels: l.Channels,
		CreateRate: l.CreateRate, CreateBurst: l.CreateBurst, ErrorRate: l.ErrorRate, Unread: l.Unread,
		UnreadSoft: l.Unread / 2, OnlyHello: l.OnlyHello, NoChannels: l.NoChannels, Keepalive: l.Keepalive,
		WriteTimeout: l.WriteTimeout,
	}
	return c.WithDefaults()
}

// Locator finds agents of a space, and tells others about this node's. The root
// makes it from presence and page records (docs/spec/channels.md §5).
type Locator interface {
	// Locate lists where an agent may be, best first; none is no error. ctx bounds
	// the search.
	Locate(ctx context.Context, space SpaceHash, agent identity.AgentID) ([]Location, error)
	// Announce tells that agent is in the space on this node, until Withdraw, and
	// through which relays it is reached. A later call replaces the relays. It
	// must not wait.
	Announce(space SpaceHash, agent identity.Agent, relays []identity.PeerID)
	// Withdraw ends an announcement. It must not wait.
	Withdraw(space SpaceHash, agent identity.AgentID)
}

// Location is a place where an agent may be reached.
type Location struct {
	Node   identity.PeerID   // the node it is on
	Relays []identity.PeerID // channel relays that know it
}

// Carrier is an ordered stream of bytes that becomes a connection by Node.Serve.
type Carrier struct {
	// Stream carries the records. Each Write is a whole number of them. Close must
	// end a Read and a Write that wait. Where it has a CloseWrite, that ends the own
	// direction when the connection ends in order.
	Stream io.ReadWriteCloser
	Dialer bool          // this end opened it
	Format wire.Encoding // Unpacked, or Packed for document-only peers
	// Local and Remote are the peer ids that the carrier has authenticated; empty
	// where it has not. Without them every channel is unproven.
	Local, Remote identity.PeerID
	// Claimed is who should be at the other end where Remote is empty, for example
	// the node whose URL was dialled. Channels to it and its agents are opened on
	// this connection, all unproven.
	Claimed identity.PeerID
	Address string          // the other end's network address, for the limit of connections; Remote where empty
	Path    network.Path    // how it runs; PathDirect where empty
	Relay   identity.PeerID // who carries it, where Path is PathRelay; "" where not known
}

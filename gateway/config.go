package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// Config bounds what pages may do. The zero value of a field is its default.
type Config struct {
	MaxFrame      int           // bytes of a WebSocket message once a page has its peer; 32 MiB
	MaxMessage    int           // bytes of one message; 8 MiB (limits.maxMessage)
	SessionBuffer int           // bytes that wait for one page; 4 MiB
	Outbox        int           // unsettled bytes of a page for one peer and protocol, told to v2 pages; 16 MiB (limits.outbox)
	OutboxTotal   int           // unsettled bytes of a page in all; twice Outbox
	Requests      int           // unsettled requests and sends of a page at once; 1,024
	RequestRate   int           // requests a second of a page, without sends; 20,000
	Protocols     int           // protocols that a page listens to; 1,024
	Topics        int           // topics that a page is in; 1,000
	Sessions      int           // sessions in all; 10,000 (limits.sessions)
	PerOrigin     int           // sessions of one origin other than the node's own; 64 (limits.sessionsPerOrigin)
	Grace         time.Duration // how long a v2 session lives without a socket; 30 s

	SharePeers bool   // v1 pages with one key share its peer, as v2 pages always do
	Version    string // of the node, told to v2 pages
	Keys       Keys   // keeps v2 keys; nil: each session gets a new one

	// Activity is told how many pages there are whenever that changes: a page
	// counts until its socket is closed in order (1000, 1001) or, where it was
	// lost, until its grace is over. It must not block nor call the Gateway.
	Activity func(pages int)

	Log *slog.Logger // nil: nothing is logged
}

// Keys keeps the keys of v2 pages by origin (G-S8). The private key leaves the
// node only by exportKey.
type Keys interface {
	// Key gives the key of an identity, and makes and keeps it when there is none.
	// Origin is "" for the node's own pages, whatever the port, and for programs;
	// identity is 1 to 64 characters of A-Z a-z 0-9 . _ -.
	Key(ctx context.Context, origin, identity string) (identity.Key, error)
}

// What isn't worth a setting.
const (
	firstFrame    = 64 << 10         // bytes of a message before the page has its peer
	helloWait     = 10 * time.Second // for the first frame of a v2 socket
	keepBuffer    = 8 << 10          // bytes of memory that a writer keeps from one batch to the next
	ackFrames     = 32               // received is sent after so many frames,
	ackBytes      = 64 << 10         // so many bytes,
	ackDelay      = 50 * time.Millisecond
	maxDeliveries = 16384 // unsettled deliveries of a page
	maxHandling   = 1024  // of these, in one conversation
	spareSockets  = 256   // sockets beyond Sessions that may resume one or be told 1013
	sendOverhead  = 256   // bytes that an unsettled send counts for besides its data
	maxName       = 256   // bytes of a topic or protocol
	maxHeld       = 1024  // events of a topic that wait for its subscribe to be answered
	maxMembers    = 65536 // members that a v1 session remembers to tell joins from changes
	badPerMinute  = 20    // malformed v1 frames
)

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxFrame, 32<<20)
	def(&c.MaxMessage, 8<<20)
	def(&c.SessionBuffer, 4<<20)
	def(&c.Outbox, 16<<20)
	def(&c.OutboxTotal, 2*c.Outbox)
	def(&c.Requests, 1024)
	def(&c.RequestRate, 20_000)
	def(&c.Protocols, 1024)
	def(&c.Topics, 1000)
	def(&c.Sessions, 10_000)
	def(&c.PerOrigin, 64)
	if c.Grace <= 0 {
		c.Grace = 30 * time.Second
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Activity == nil {
		c.Activity = func(int) {}
	}
	return c
}

package peer

import (
	"log/slog"
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Config has the limits of messages. Zero fields get the defaults.
type Config struct {
	MaxMessage  int // bytes of one message; 8 MiB, as the gateway's frames carry it
	Outbox      int // unsettled bytes to one (peer, protocol); 16 MiB
	OutboxTotal int // unsettled bytes of one peer; 64 MiB

	// SendTimeout is how long a message waits without progress in its
	// conversation before it is given up; 10 s. Progress is, until a session has
	// the message, that others are taken; then, that others are settled.
	SendTimeout time.Duration

	Window    int // bytes on the way to us at first; 256 KiB, the most that a sender may assume
	MaxWindow int // bytes on the way to us when the page keeps up; 4 MiB

	IdleStream time.Duration // a stream without traffic is closed; 2 min
	Backoff    time.Duration // between attempts to reach a peer, doubling …; 250 ms
	BackoffMax time.Duration // … up to this; 4 s
	Remember   time.Duration // what was taken is remembered after a stream's end; 10 min

	MaxConversations int // outgoing ones of one peer at once; 4096
	MaxInboxes       int // incoming ones of one peer that are remembered; 4096
	MaxRemoteInboxes int // … and of one remote; 64
	MaxStreams       int // incoming message streams of one peer at once; 2048
	MaxRemoteStreams int // … and from one remote; 64

	StreamRate  float64 // streams a second that a remote may open; 50
	StreamBurst int     // … and at once; 200

	Offences      int           // bad frames within OffenceWindow until a remote is refused; 10
	OffenceWindow time.Duration // 1 min
	Refusal       time.Duration // how long it is refused, doubling …; 1 min
	RefusalMax    time.Duration // … up to this; 10 min

	// Reserved ids that pages can't have, besides the fixed ones of
	// gateway.md §5.5: the node's own file protocol where it is configured.
	Reserved []network.Protocol

	// Log gets what an operator may want to know; nothing by default.
	Log *slog.Logger

	plainOnly bool // for tests: speak the reference's framing alone
}

func (c Config) withDefaults() Config {
	set(&c.MaxMessage, 8<<20)
	set(&c.Outbox, 16<<20)
	set(&c.OutboxTotal, 64<<20)
	set(&c.SendTimeout, 10*time.Second)
	set(&c.Window, firstWindow)
	set(&c.MaxWindow, 4<<20)
	set(&c.IdleStream, 2*time.Minute)
	set(&c.Backoff, 250*time.Millisecond)
	set(&c.BackoffMax, 4*time.Second)
	set(&c.Remember, 10*time.Minute)
	set(&c.MaxConversations, 4096)
	set(&c.MaxInboxes, 4096)
	set(&c.MaxRemoteInboxes, 64)
	set(&c.MaxStreams, 2048)
	set(&c.MaxRemoteStreams, 64)
	set(&c.StreamRate, 50)
	set(&c.StreamBurst, 200)
	rule := flow.DefaultOffences()
	set(&c.Offences, rule.Count)
	set(&c.OffenceWindow, rule.Within)
	set(&c.Refusal, rule.Refusal)
	set(&c.RefusalMax, rule.Most)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("component", "peer")
	return c
}

func set[T int | float64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate names the first limit that makes no sense.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.MaxMessage < 0 || c.MaxMessage > 1<<30:
		return identity.Errorf(identity.CodeMalformed, "peer.MaxMessage is %d, not in 1 … 1 GiB", c.MaxMessage)
	case c.Outbox < 0 || c.OutboxTotal < 0 || c.Window < 0 || c.MaxWindow < c.Window:
		return identity.Errorf(identity.CodeMalformed, "peer: outboxes and windows must be positive, MaxWindow at least Window")
	case c.SendTimeout < 0 || c.IdleStream < 0 || c.Backoff < 0 || c.BackoffMax < c.Backoff:
		return identity.Errorf(identity.CodeMalformed, "peer: times must be positive, BackoffMax at least Backoff")
	}
	return nil
}

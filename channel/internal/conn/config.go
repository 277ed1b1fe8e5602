package conn

import (
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

// Sizes and times that the protocol fixes, docs/spec/channels.md §4, §8, §11, §13.
const (
	minCost            = 32        // credit the smallest content costs
	systemWindow       = 1 << 20   // credit of system channels, both ways
	systemContent      = 512 << 10 // largest content of system channels
	relayWindow        = 32 << 10  // first credit of relayed channels, both ways
	RelayContent       = 16 << 10  // largest content of relayed channels
	MaxCredit          = 16 << 20  // outstanding credit never above this
	MaxIDSize          = 1024      // bytes of a space hash, of an agent
	defaultWindow      = 256 << 10 // of a peer whose hello gives none
	ownWindow          = 240 << 10 // with what lies around its contents, a reader that stopped holds 256 KiB at most
	defaultContent     = 64 << 10
	defaultChannels    = 1024
	minWindow          = 16 << 10
	maxContentLimit    = 1_044_480
	sendQueue          = 256 << 10 // contents of one channel that wait for the connection
	documentQueue      = 256 << 10 // contents of one channel from a document-only peer
	endedFor           = 30 * time.Second
	helloWait          = 5 * time.Second
	creditViolations   = 3
	maxErrorText       = 1 << 10
	controlQueue       = 64 << 10 // answers that wait; past it errors are dropped
	unansweredPings    = 3
	catchUp            = time.Second // readers have this long before a full connection costs a channel
	reservedID         = mux.WholeConnection
	unknownTagInterval = time.Second
)

// Limits are the limits of one connection, docs/spec/channels.md §8 and §9. Zero
// values are the defaults.
type Limits struct {
	Window       int           // first credit of a channel that the peer creates, bytes; 245,760
	MaxWindow    int           // what a window may grow to, bytes; 4 MiB
	MaxContent   int           // largest content taken, bytes; 65,536
	Channels     int           // open at once; 1,024
	CreateRate   float64       // creates a second; 100
	CreateBurst  float64       // 200
	ErrorRate    float64       // channel errors a second that the peer may cause; 64
	Unread       int           // bytes received and not read, of all channels; 16 MiB
	UnreadSoft   int           // from here on no credit to channels with unread data; 8 MiB
	OnlyHello    time.Duration // a connection with nothing but hellos; 30 s
	NoChannels   time.Duration // a connection without channels; 5 min
	Keepalive    time.Duration // ping after this time without traffic; 15 s
	WriteTimeout time.Duration // a write that makes no progress ends the connection; 60 s
}

// WithDefaults fills in what is zero and brings the rest into its range.
func (l Limits) WithDefaults() Limits {
	def(&l.MaxContent, defaultContent)
	l.MaxContent = min(l.MaxContent, maxContentLimit)
	def(&l.Window, ownWindow)
	l.Window = min(max(l.Window, minWindow, 2*l.MaxContent), MaxCredit) // a content must fit into half of it, or it may wait for ever
	def(&l.MaxWindow, 4<<20)
	l.MaxWindow = min(max(l.MaxWindow, l.Window), MaxCredit)
	def(&l.Channels, defaultChannels)
	def(&l.CreateRate, 100)
	def(&l.CreateBurst, 200)
	def(&l.ErrorRate, 64)
	def(&l.Unread, 16<<20)
	def(&l.UnreadSoft, 8<<20)
	def(&l.OnlyHello, 30*time.Second)
	def(&l.NoChannels, 5*time.Minute)
	def(&l.Keepalive, 15*time.Second)
	def(&l.WriteTimeout, time.Minute)
	return l
}

func def[T int | float64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Config is what a connection is made with.
type Config struct {
	Dialer        bool // this end opened it
	Encoding      wire.Encoding
	Local, Remote identity.PeerID // authenticated by the carrier; empty where it is not
	Loopback      bool            // both ends are this node: no binding, and proofs are not needed
	Features      uint64          // what the own hello says
	Limits        Limits
	Metrics       *Metrics
	Buffers       *Buffers
	Nonce         [32]byte // fresh and random
}

// peer is what the other end said in its hello, with the defaults filled in.
type peer struct {
	documentOnly bool
	features     uint64
	window       int64
	maxContent   int
	maxChannels  int
}

func peerOf(h *mux.Parameters) peer {
	p := peer{features: h.Features, window: int64(h.InitialWindow), maxContent: int(h.MaxContent), maxChannels: int(h.MaxChannels)}
	if p.window == 0 {
		p.window = defaultWindow
	}
	p.window = min(max(p.window, minWindow), MaxCredit)
	if p.maxContent == 0 {
		p.maxContent = defaultContent
	}
	p.maxContent = min(p.maxContent, maxContentLimit)
	if p.maxChannels == 0 {
		p.maxChannels = defaultChannels
	}
	return p
}

package parley

import (
	"log/slog"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/site"
)

// Config is everything a node can be told. Begin with DefaultConfig, or with
// LoadConfig where a file and the environment have a say; New refuses a Config
// that Validate refuses.
//
// The tags are the names of the configuration file (gateway.md §9). The manual
// has every key with its default.
type Config struct {
	Server    ServerConfig    `toml:"server"`
	HTTP      site.HTTP       `toml:"http"`
	WebSocket WebSocketConfig `toml:"websocket"`
	Behavior  BehaviorConfig  `toml:"behavior"`
	Files     site.Files      `toml:"files"`
	P2P       P2PConfig       `toml:"p2p"`
	Gateway   GatewayConfig   `toml:"gateway"`
	Node      NodeConfig      `toml:"node"`
	Relay     RelayConfig     `toml:"relay"`
	Star      StarConfig      `toml:"star"`
	Peer      PeerConfig      `toml:"peer"`
	Limits    LimitsConfig    `toml:"limits"`

	// What no file can say.

	// Site is what pages are served from; nil serves none, and the node never
	// exits by itself. The node does not close it.
	Site *site.Site `toml:"-"`
	// Log takes what the node has to tell; nil for nothing.
	Log *slog.Logger `toml:"-"`
	// Version is the program's, for status and pages; "" takes the build's own.
	Version string `toml:"-"`
	// Ready is called once, when the node accepts pages and peers. It must not
	// block.
	Ready func(Started) `toml:"-"`
	// OpenBrowser is called after Ready where Behavior.AutoOpenBrowser says so;
	// nil opens none. Where it succeeded and no page comes, the node ends after
	// a minute.
	OpenBrowser func(url string) error `toml:"-"`
	// OwnsProcess says that the process is there for the node alone, so that it
	// may set how Go collects garbage: less often while busy, and at once when
	// there is nothing to do. GOGC or GOMEMLIMIT in the environment win.
	OwnsProcess bool `toml:"-"`
}

// Started says where a node that has started can be found.
type Started struct {
	URL       string          // "http://localhost:10000/"; "" where no page can connect
	LaunchURL string          // URL with what a person needs to get in. A secret: not for logs
	Peer      identity.PeerID // the node's own id
	Listening []string        // the addresses really listened on, HTTP and p2p: "127.0.0.1:10000", "/ip4/…"
	Data      string          // the data folder
	Star      string          // the star server's URL; "" where the node has none
}

// ServerConfig is the node's HTTP server.
type ServerConfig struct {
	Listen         string        `toml:"listen"`         // a name or address; "localhost" is both 127.0.0.1 and ::1
	Hosts          []string      `toml:"hosts"`          // further names that a request may ask for
	Port           int           `toml:"port"`           // the first port to try; 0 for any free one
	PortRange      int           `toml:"portRange"`      // how many ports to try from there
	MaxHeaderBytes Size          `toml:"maxHeaderBytes"` // of a request
	Timeouts       TimeoutConfig `toml:"timeouts"`
	TLS            TLSConfig     `toml:"tls"`
}

// TimeoutConfig bounds an HTTP request. WebSockets have their own limits.
type TimeoutConfig struct {
	Read       Duration `toml:"read"`
	Write      Duration `toml:"write"` // large files get more, by their size
	Idle       Duration `toml:"idle"`
	ReadHeader Duration `toml:"readHeader"`
}

// TLSConfig names the PEM files of a certificate. Without them the node speaks
// plain HTTP, on loopback only.
type TLSConfig struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// WebSocketConfig is what an upgrade has to fulfil.
type WebSocketConfig struct {
	CheckOrigin     bool     `toml:"checkOrigin"`    // false only on loopback, with a warning
	AllowedOrigins  []string `toml:"allowedOrigins"` // besides the node's own
	ReadBufferSize  Size     `toml:"readBufferSize"`
	WriteBufferSize Size     `toml:"writeBufferSize"`
}

// BehaviorConfig is how the program behaves on a desk.
type BehaviorConfig struct {
	AutoExitTimeout Duration `toml:"autoExitTimeout"` // after the last page left; 0 never exits
	AutoOpenBrowser bool     `toml:"autoOpenBrowser"`
	Linger          bool     `toml:"linger"`    // stay when the last page left
	Verbosity       int      `toml:"verbosity"` // 0 warnings, 1 what happens, 2 details
}

// P2PConfig is the node among other nodes.
type P2PConfig struct {
	ProtocolName          string   `toml:"protocolName"`
	FileUpdateNotifyTopic string   `toml:"fileUpdateNotifyTopic"`
	IPFSGetTimeout        Duration `toml:"ipfsGetTimeout"`
	StreamTimeout         Duration `toml:"streamTimeout"`
	MDNS                  bool     `toml:"mdns"`
	PortMapping           bool     `toml:"portMapping"`
	DHT                   bool     `toml:"dht"`
	Bootstrap             []string `toml:"bootstrap"`  // multiaddrs with /p2p/; empty: the public list
	Relays                []string `toml:"relays"`     // multiaddrs with /p2p/
	Stars                 []string `toml:"stars"`      // star servers: /dns4/star.example/tcp/443/wss/p2p-websocket-star
	OpenStars             []string `toml:"openStars"`  // those of them that ask for no proof, and are used all the same
	StarRoots             []string `toml:"starRoots"`  // star=file: whose certificates count there, instead of the system's
	StarBudget            Size     `toml:"starBudget"` // of one connection over a star; 0: none
	Namespace             string   `toml:"namespace"`  // prefixes topics and records
	Router                string   `toml:"router"`     // "node"; "page" is refused in this version
	Listen                []string `toml:"listen"`     // multiaddrs; empty: all transports, all interfaces, free ports
	Connect               []string `toml:"connect"`    // multiaddrs with /p2p/, kept connected
	MuxNetwork            string   `toml:"muxNetwork"` // take channels of nodes by WebSocket at /v1/NAME/mux; "": no
	MuxPeers              []string `toml:"muxPeers"`   // nodes whose channels go so: wss://node.example/v1/NAME/mux#PEER-ID
}

// GatewayConfig is what a page's session may use.
type GatewayConfig struct {
	MaxFrame      Size     `toml:"maxFrame"`
	SessionBuffer Size     `toml:"sessionBuffer"` // what waits for a slow page
	SharePeers    bool     `toml:"sharePeers"`    // v1 pages with one key share its peer, as v2 pages do
	Auth          string   `toml:"auth"`          // "link", or "none" on loopback
	Grace         Duration `toml:"grace"`         // how long a v2 session outlives its socket
}

// NodeConfig is where the node keeps what is its own.
type NodeConfig struct {
	Data string `toml:"data"` // the data folder; "": one by the site's name
}

// RelayConfig says for whom the node is a relay.
type RelayConfig struct {
	Profile string   `toml:"profile"` // "off", "own" or "public"
	Allow   []string `toml:"allow"`   // peer ids, or allowAll
}

// allowAll in relay.allow is everybody.
const allowAll = "*"

// allowed gives relay.allow as ids; none is everybody. Validate has seen that they
// can be read.
func (c RelayConfig) allowed() (ids []identity.PeerID) {
	for _, text := range c.Allow {
		if id, err := identity.ParsePeerID(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// PeerConfig is about messages between peers.
type PeerConfig struct {
	SendTimeout Duration `toml:"sendTimeout"` // how long a send looks for a way
}

// LimitsConfig bounds what one page or peer can take.
type LimitsConfig struct {
	MaxMessage        Size `toml:"maxMessage"`
	Outbox            Size `toml:"outbox"` // unsettled bytes for one (peer, protocol)
	Sessions          int  `toml:"sessions"`
	SessionsPerOrigin int  `toml:"sessionsPerOrigin"` // of origins other than the node's own
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{
		Server: ServerConfig{
			Listen: "localhost", // nobody else's machine
			Port:   10000, PortRange: 100,
			MaxHeaderBytes: MiB, // as the reference; nothing of ours needs more than a few KiB
			Timeouts: TimeoutConfig{
				Read:       seconds(15),
				Write:      seconds(15),
				Idle:       seconds(60),
				ReadHeader: seconds(5), // a slow header is an attack, not a slow line
			},
		},
		HTTP:  site.DefaultHTTP(),
		Files: site.DefaultFiles(),
		WebSocket: WebSocketConfig{
			CheckOrigin:    true, // the reference never checked
			ReadBufferSize: KiB, WriteBufferSize: KiB,
		},
		Behavior: BehaviorConfig{
			AutoExitTimeout: seconds(5), // longer than a reload
			AutoOpenBrowser: true,
		},
		P2P: P2PConfig{
			ProtocolName:   "/p2p-webapp/1.0.0",
			IPFSGetTimeout: seconds(3), StreamTimeout: seconds(30),
			MDNS: true, DHT: true, PortMapping: true,
			StarBudget: 256 * MiB, // a star is somebody else's line
			Router:     "node",    // one for all pages: with its own a page costs megabytes
		},
		Gateway: GatewayConfig{
			MaxFrame:      32 * MiB, // a 24 MiB file as base64
			SessionBuffer: 4 * MiB,
			Auth:          "link",
			Grace:         seconds(30), // a laptop's lid, a lift
		},
		Relay: RelayConfig{Profile: "off"},
		Star:  defaultStar(),
		Peer:  PeerConfig{SendTimeout: seconds(10)},
		Limits: LimitsConfig{
			MaxMessage:        8 * MiB,
			Outbox:            16 * MiB, // two of the largest messages
			Sessions:          10000,
			SessionsPerOrigin: 64,
		},
	}
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

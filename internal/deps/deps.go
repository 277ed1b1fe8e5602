// Package deps pins the dependency set while the packages that use it are being written.
package deps

import (
	_ "capnproto.org/go/capnp/v3"
	_ "github.com/coder/websocket"
	_ "github.com/flynn/noise"
	_ "github.com/fsnotify/fsnotify"
	_ "github.com/fxamacker/cbor/v2"
	_ "github.com/libp2p/go-libp2p"
	_ "github.com/libp2p/go-libp2p-kad-dht"
	_ "github.com/libp2p/go-libp2p-pubsub"
	_ "github.com/libp2p/go-libp2p/x/simlibp2p"
	_ "github.com/lxzan/gws"
	_ "github.com/marcopolo/simnet"
	_ "github.com/nats-io/nats.go"
	_ "github.com/pelletier/go-toml/v2"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/spf13/cobra"
	_ "go.uber.org/goleak"
	_ "golang.org/x/crypto/blake2b"
	_ "golang.org/x/sync/errgroup"
	_ "pgregory.net/rapid"
)

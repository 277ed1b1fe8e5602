package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/parley-p2p/parley/star/transport"
)

const bulk = "/bench/bulk"

// end is a libp2p host that has a star alone.
type end struct {
	host.Host
	stars *transport.Transport
	up    chan struct{} // has a value when addresses may have changed
}

func newEnd() (*end, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	e := &end{up: make(chan struct{}, 1)}
	e.stars, err = transport.New(key, transport.Options{
		Star: func(string) transport.StarOptions { return transport.StarOptions{} }, // no budget
		Changed: func() {
			select {
			case e.up <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, err
	}
	e.Host, err = libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.NoTransports, libp2p.Transport(e.stars.Attach),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics())
	return e, err
}

// listen joins a star and gives the address there.
func (e *end) listen(ctx context.Context, s *server) (ma.Multiaddr, error) {
	at, err := ma.NewMultiaddr(fmt.Sprintf("/ip4/%s/tcp/%s/ws/p2p-websocket-star", s.base.Hostname(), s.base.Port()))
	if err == nil {
		err = e.Network().Listen(at)
	}
	if err != nil {
		return nil, err
	}
	for {
		if all := e.stars.Addrs(); len(all) > 0 {
			return all[0], nil
		}
		select {
		case <-e.up:
		case <-time.After(10 * time.Second):
			return nil, fmt.Errorf("not joined: %+v", e.stars.Status())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// measureNoise carries bytes between two hosts that meet on the star: encrypted and
// multiplexed by libp2p, and both ends in this process.
func measureNoise(ctx context.Context, b *bench) ([]row, error) {
	rates := figures{}
	if !slices.Contains(b.kinds, parley) {
		return nil, nil
	}
	err := b.with(ctx, parley, setting{challenge: true}, func(s *server) error {
		to, err := newEnd()
		if err != nil {
			return err
		}
		defer to.Close()
		from, err := newEnd()
		if err != nil {
			return err
		}
		defer from.Close()
		at, err := to.listen(ctx, s)
		if err != nil {
			return err
		}
		to.SetStreamHandler(bulk, func(st network.Stream) { // says when it has all
			_, _ = io.Copy(io.Discard, st)
			_ = st.Close()
		})
		if err := from.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{at}}); err != nil {
			return err
		}
		var all []float64
		err = b.profiled(s, "noise", func() error {
			for range b.runs + 1 {
				r, err := from.send(ctx, to.ID(), 128<<20)
				if err != nil {
					return err
				}
				all = append(all, r)
			}
			return nil
		})
		if err == nil {
			rates[parley] = median(all[1:]) // after one to warm up
		}
		return err
	})
	return []row{line("a stream through the star with Noise and yamux", least(150e6), rates, mbs)}, err
}

// send carries n bytes over a stream, and gives how many a second.
func (e *end) send(ctx context.Context, to peer.ID, n int) (float64, error) {
	st, err := e.NewStream(ctx, to, bulk)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	_ = st.SetDeadline(time.Now().Add(60 * time.Second))
	piece := make([]byte, 64<<10)
	start := time.Now()
	for left := n; left > 0; left -= len(piece) {
		if _, err := st.Write(piece); err != nil {
			return 0, err
		}
	}
	if err := st.CloseWrite(); err != nil {
		return 0, err
	}
	_, err = io.ReadAll(st)
	return float64(n) / time.Since(start).Seconds(), err
}

package peertest

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func echo(n *Libp2p) {
	n.Handle("/echo", func(_ context.Context, s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
}

func ask(from, to *Libp2p, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s, err := from.Open(ctx, to.Local(), "/echo")
	if err != nil {
		return err
	}
	defer s.Close()
	_ = s.SetReadDeadline(time.Now().Add(within))
	if _, err := s.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, 5))
	return err
}

func TestSimPartitionHealRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := NewSim(t, SimConfig{Hosts: 3, Delay: 50 * time.Millisecond, Loss: 0.05, Seed: 1})
		defer sim.Close()
		a, b := sim.Host(0), sim.Host(1)
		if err := ask(a, b, 5*time.Second); identity.CodeOf(err) != identity.CodeNotStarted {
			t.Fatalf("before the handler is there: %v", err)
		}
		echo(b)
		start := time.Now()
		if err := ask(a, b, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 200*time.Millisecond {
			t.Fatalf("two round trips of 100 ms took %v", d)
		}
		sim.Partition(0, 1)
		if err := ask(a, b, 5*time.Second); err == nil {
			t.Fatal("a partition lets something through")
		}
		sim.Heal(0, 1)
		if err := ask(a, b, 20*time.Second); err != nil {
			t.Fatalf("after healing: %v", err)
		}
		b = sim.Restart(1)
		echo(b)
		time.Sleep(time.Second) // the old host's farewell is still on its way
		err := ask(a, b, 20*time.Second)
		for range 5 {
			if err == nil {
				break
			}
			err = ask(a, b, 20*time.Second) // the first ones may still end with the old connection
		}
		if err != nil {
			t.Fatalf("after the restart: %v", err)
		}
	})
}

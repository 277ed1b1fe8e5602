package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// double behaves as the reference does (gateway.md §5.2), faults included: one
// stream for both ways, one that arrives replaces and closes the old; acks
// before anybody has the message; ignores acks; knows no duplicates.
type double struct {
	t   testing.TB
	net network.Network
	ctx context.Context
	end context.CancelFunc

	mu     sync.Mutex
	stream network.Stream
	got    []string
	sent   int
	wg     sync.WaitGroup
}

func newDouble(t testing.TB, net network.Network) *double {
	ctx, end := context.WithCancel(context.Background())
	d := &double{t: t, net: net, ctx: ctx, end: end}
	net.Handle(chat, func(_ context.Context, s network.Stream) {
		d.mu.Lock()
		if d.stream != nil {
			_ = d.stream.Close()
		}
		d.stream = s
		d.mu.Unlock()
		d.read(s)
	})
	return d
}

func (d *double) close() {
	d.end()
	d.mu.Lock()
	if d.stream != nil {
		_ = d.stream.Reset()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *double) read(s network.Stream) {
	br := bufio.NewReader(s)
	for {
		_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
		f, err := readRefFrame(br, 1<<20)
		if err != nil {
			_ = s.Close()
			d.mu.Lock()
			if d.stream == s {
				d.stream = nil
			}
			d.mu.Unlock()
			return
		}
		if f.Type == refAck {
			continue
		}
		_, _ = s.Write(appendRefAck(nil, f.ID))
		d.mu.Lock()
		d.got = append(d.got, string(f.Data))
		d.mu.Unlock()
	}
}

// send sends a JSON text as the reference does: three attempts, and it never
// learns what became of it.
func (d *double) send(to identity.PeerID, text string) {
	d.t.Helper()
	d.mu.Lock()
	d.sent++
	id := fmt.Sprintf("%d-%d", time.Now().UnixNano(), d.sent)
	d.mu.Unlock()
	body, err := json.Marshal(map[string]any{"type": "data", "id": id, "data": []byte(text)})
	if err != nil {
		d.t.Error(err)
	}
	head := []byte{byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}
	for attempt := range 3 {
		s, err := d.open(to)
		if err == nil {
			if _, err = s.Write(head); err == nil { // two writes, as the reference
				_, err = s.Write(body)
			}
		}
		if err == nil {
			break
		}
		time.Sleep(time.Duration(2*attempt+2) * time.Second)
	}
	time.Sleep(10 * time.Millisecond)
}

// open gives the one stream, or opens it.
func (d *double) open(to identity.PeerID) (network.Stream, error) {
	d.mu.Lock()
	s := d.stream
	d.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := d.net.Open(d.ctx, to, chat)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.stream = s
	d.mu.Unlock()
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		d.read(s)
	}()
	return s, nil
}

func (d *double) texts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.got...)
}

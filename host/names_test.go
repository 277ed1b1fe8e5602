package host

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// deadDNS answers nothing, or at once when it has an answer.
type deadDNS struct {
	asked  int
	answer []ma.Multiaddr
}

func (d *deadDNS) ResolveDNSAddr(ctx context.Context, _ peer.ID, a ma.Multiaddr, _, limit int) ([]ma.Multiaddr, error) {
	return d.ResolveDNSComponent(ctx, a, limit)
}

func (d *deadDNS) ResolveDNSComponent(ctx context.Context, _ ma.Multiaddr, _ int) ([]ma.Multiaddr, error) {
	d.asked++
	if d.answer != nil {
		return d.answer, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestDeadDNSHoldsUpLittle: a name without an answer costs three seconds, and then
// nothing for a while; a caller who goes away says nothing about the name.
func TestDeadDNSHoldsUpLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &deadDNS{}
		n := newNames()
		n.MultiaddrDNSResolver = dns
		name := ma.StringCast("/dns4/relay.example/tcp/4001")
		ask := func(patience time.Duration) (took time.Duration, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			_, err = n.ResolveDNSComponent(ctx, name, 10)
			return time.Since(began), err
		}
		if took, err := ask(time.Second); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller went away: %s, %v", took, err)
		}
		if took, err := ask(time.Minute); took != nameWait || !errors.Is(err, errSilentName) {
			t.Errorf("no answer: %s, %v", took, err)
		}
		if took, err := ask(time.Minute); took != 0 || !errors.Is(err, errSilentName) || dns.asked != 2 {
			t.Errorf("again at once: %s, %v, asked %d times", took, err, dns.asked)
		}
		time.Sleep(nameSilent)
		dns.answer = []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/4001")}
		if took, err := ask(time.Minute); took != 0 || err != nil || dns.asked != 3 {
			t.Errorf("later: %s, %v, asked %d times", took, err, dns.asked)
		}
	})
}

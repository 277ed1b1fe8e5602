package channel

import (
	"testing"
	"testing/synctest"
	"time"
)

func limitOf(t testing.TB, n *Node, name string) LimitUse {
	t.Helper()
	for _, u := range n.Limits() {
		if u.Name == name {
			return u
		}
	}
	t.Fatalf("no limit %q is shown", name)
	return LimitUse{}
}

// TestLimitsAreShown: an operator sees every limit of docs/spec/channels.md §9 with
// its default; a set one shows as set.
func TestLimitsAreShown(t *testing.T) {
	n := newTestNet(t)
	a := n.start(t, 1, nil)
	b := n.start(t, 2, func(c *Config) { c.Limits.Channels, c.Limits.OnlyHello = 7, time.Minute })
	for name, most := range map[string]float64{
		"channel.channels": 1024, "channel.createRate": 100, "channel.ids": 1024, "channel.record": 1 << 20, "channel.errorRate": 64,
		"channel.onlyHello": 30, "channel.noChannels": 300, "channel.perAddress": 64, "channel.connections": 4096,
	} {
		if u := limitOf(t, a.Node, name); u.Max != most || u.Refused != 0 || u.Current > 0 {
			t.Errorf("%+v, want at most %v", u, most)
		}
	}
	if u, v := limitOf(t, b.Node, "channel.channels"), limitOf(t, b.Node, "channel.onlyHello"); u.Max != 7 || v.Max != 60 {
		t.Errorf("set ones are shown as %+v and %+v", u, v)
	}
}

// TestLimitsCount: what is used of a limit, and how often it said no.
func TestLimitsCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNet(t)
		b := n.start(t, 2, func(c *Config) { c.Limits.Channels, c.Limits.Connections, c.Limits.Members = 2, 1, 1 })
		a := n.start(t, 1, nil)
		alice, bob := a.join(t, "chess", a.key), b.join(t, "chess", b.key)
		listen(t, bob, "x")
		mustOpen(t, alice, bob, "x")
		mustOpen(t, alice, bob, "x", Optimistic())
		_, err := n.start(t, 3, nil).join(t, "chess", testKey(t, 3)).Open(t.Context(), bob.Agent(), "x")
		if err == nil {
			t.Fatal("a second connection was taken")
		}
		_, err = b.Space("go").Join(t.Context(), b.key)
		wantErr(t, err, ErrLimit)
		synctest.Wait()
		for name, want := range map[string]LimitUse{
			"channel.channels": {Current: 2, Max: 2}, "channel.connections": {Current: 1, Max: 1, Refused: 1},
			"channel.members": {Current: 1, Max: 1, Refused: 1},
		} {
			if got := limitOf(t, b.Node, name); got.Current != want.Current || got.Max != want.Max || got.Refused != want.Refused {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	})
}

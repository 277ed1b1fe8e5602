package transport

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/star/address"
)

const ownAddr = "/dns4/star.test/tcp/80/ws/p2p-websocket-star/ipfs/12D3KooWAddr"

// Only challenges of known form, and for this address, are signed.
func TestS_10_OnlyOwnChallengesAreSigned(t *testing.T) {
	uuid, random := "0b1f4c52-6a52-4a3e-9a0e-1f2d3c4b5a69", strings.Repeat("aZ09-_x", 7)[:43]
	for name, c := range map[string]struct {
		nonce string
		want  bool
	}{
		"two UUIDs":            {uuid + uuid, true},
		"parley's":             {"parley-star/1 " + ownAddr + " " + random, true},
		"of another address":   {"parley-star/1 " + strings.Replace(ownAddr, "star.test", "other.test", 1) + " " + random, false},
		"address prefix":       {"parley-star/1 " + ownAddr + "x " + random, false},
		"random too short":     {"parley-star/1 " + ownAddr + " " + random[1:], false},
		"random with a space":  {"parley-star/1 " + ownAddr + " " + random[1:] + " ", false},
		"other version":        {"parley-star/2 " + ownAddr + " " + random, false},
		"one UUID":             {uuid, false},
		"upper case":           {strings.ToUpper(uuid + uuid), false},
		"72 characters":        {strings.Repeat("a", 72), false},
		"a libp2p record":      {"libp2p-peer-record", false},
		"empty":                {"", false},
		"UUIDs and more":       {uuid + uuid + "0", false},
		"dashes out of place":  {"-" + uuid[1:] + uuid, false},
		"noise of a handshake": {"noise-libp2p-static-key:" + strings.Repeat("k", 48), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := signable(c.nonce, ownAddr); got != c.want {
				t.Errorf("signable is %v", got)
			}
		})
	}
}

// Every string of star.md §6.6 is one error; all else is a refusal that quotes it.
func TestWhatAStarSays(t *testing.T) {
	for text, want := range said {
		if err := refusal([]byte(`"` + text + `"`)); !errors.Is(err, want) || identity.CodeOf(err) == identity.CodeInternal {
			t.Errorf("%q became %v", text, err)
		}
	}
	if len(said) != 27 {
		t.Errorf("%d strings are known", len(said))
	}
	for arg, want := range map[string]string{
		`{}`: "the star refused: {}", `7`: "the star refused: 7", `"no \u0007way"`: "the star refused: no way",
		`"` + strings.Repeat("x", 1000) + `"`: "the star refused: " + strings.Repeat("x", 256),
	} {
		if err := refusal([]byte(arg)); identity.CodeOf(err) != identity.CodeRefused || err.Error() != want {
			t.Errorf("%.20s became %v", arg, err)
		}
	}
}

// A day's budget comes back when the day is over, and when a clock went back.
func TestBudgetOfTheNextDay(t *testing.T) {
	s, day := newSpending(Budget{Day: 100}), time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		n    int64
		at   time.Duration
		want bool
	}{{60, 0, true}, {60, time.Hour, false}, {1, 23 * time.Hour, false}, {60, 24 * time.Hour, true}, {40, 25 * time.Hour, true},
		{1, 26 * time.Hour, false}, {100, 0, true}, {1, 0, false}} {
		if got := s.spend(c.n, day.Add(c.at)); got != c.want {
			t.Errorf("%d at %v: %v", c.n, c.at, got)
		}
	}
}

// What a star claims of members never panics, and is on the star's own host.
func FuzzClaimed(f *testing.F) {
	f.Add("/dns4/star.test/tcp/80/ws/p2p-websocket-star/ipfs/12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA")
	f.Add("/ip4/1.2.3.4/tcp/80/ws/p2p-websocket-star/ipfs/QmX")
	on := address.Star{Kind: "dns4", Host: "star.test", Port: "80"}
	f.Fuzz(func(t *testing.T, text string) {
		id, s, ok := claimed(text, on)
		if ok && (id == "" || !strings.EqualFold(s.Host, on.Host)) {
			t.Errorf("%q was believed as %s at %s", text, id, s)
		}
	})
}

// Neither does a nonce.
func FuzzNonce(f *testing.F) {
	f.Add("parley-star/1 " + ownAddr + " x")
	f.Fuzz(func(t *testing.T, nonce string) {
		if signable(nonce, ownAddr) && len(nonce) != 72 && !strings.Contains(nonce, ownAddr) {
			t.Errorf("%q would be signed", nonce)
		}
	})
}

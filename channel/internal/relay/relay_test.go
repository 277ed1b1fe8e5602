package relay

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-p2p/parley/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPolicyFor: the list names agents and peers, in either form; nobody else is
// served. The protocol itself is tested in package channel.
func TestPolicyFor(t *testing.T) {
	key := func(seed byte) identity.Key {
		k, err := identity.KeyFromSeed([32]byte{seed})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	friend, stranger := key(1), key(2)
	p := Policy{}.For(friend.PeerID())
	for _, tt := range []struct {
		name string
		key  identity.Key
		want bool
	}{{"named", friend, true}, {"not named", stranger, false}} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Contract(tt.key.PeerID()); got != tt.want {
				t.Errorf("a contract: %v", got)
			}
			if got := p.Agent(tt.key.Agent()); got != tt.want {
				t.Errorf("as an agent: %v", got)
			}
		})
	}
	if d := p.withDefaults(); d.Contracts != 128 || d.PerAddress != 8 || d.PerASN != 32 || d.Bridges != 16 || d.Buffer != 384<<20 || d.Duration.Hours() != 1 {
		t.Errorf("defaults %+v", d)
	}
}

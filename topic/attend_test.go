package topic

import (
	"testing"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

func TestAttendKeepsToItsTopics(t *testing.T) {
	n := newNode(t)
	p, err := n.Attend(newKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Subscribe(t.Context(), "room", nil); identity.CodeOf(err) != identity.CodeMalformed {
		t.Errorf("a topic of pages: %v", err)
	}
	if err := p.Publish(t.Context(), "room", network.Content{Type: network.JSON, Data: []byte("1")}); identity.CodeOf(err) != identity.CodeReserved {
		t.Errorf("a publication: %v", err)
	}
	page := n.Join(newKey(t), nil)
	if _, err := page.Subscribe(t.Context(), SpacePrefix+"00", nil); identity.CodeOf(err) != identity.CodeReserved {
		t.Errorf("a page in a topic of parley's: %v", err)
	}
}

// TestAttend: an agent that only signs is a member, and Where says on which node
// and with what state, as long as it is there.
func TestAttend(t *testing.T) {
	a, b := newNode(t), newNode(t)
	connect(t, a, b)
	name, key := SpacePrefix+"00", newKey(t)
	heard := make(chan bool, 8)
	watcher, err := a.Attend(newKey(t), attendSink(heard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watcher.Subscribe(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	p, err := b.Attend(key, attendSink(make(chan bool, 8)))
	if err != nil {
		t.Fatal(err)
	}
	state := []byte{0x81, 0x61, 'r'} // ["r"]
	if _, err := p.Subscribe(t.Context(), name, state); err != nil {
		t.Fatal(err)
	}
	if !<-heard {
		t.Fatal("a member went that never came")
	}
	got := a.Where(name, key.PeerID())
	if len(got) != 1 || got[0].Node != b.router.ID() || string(got[0].State) != string(state) {
		t.Errorf("Where is %v, want the other node with its state", got)
	}
	p.Leave()
	if <-heard {
		t.Error("it came again")
	}
	if got := a.Where(name, key.PeerID()); len(got) != 0 {
		t.Errorf("Where is %v after it left", got)
	}
}

// attendSink is told who came and went.
type attendSink chan bool

func (attendSink) Publish(network.Publication)                      {}
func (s attendSink) Presence(_ string, _ network.Member, here bool) { s <- here }

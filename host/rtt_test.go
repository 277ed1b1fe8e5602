package host

import (
	"testing"
	"time"
)

// A round trip is measured by a ping when somebody asks, once in a while, and
// not at all for who isn't connected.
func TestRoundTripIsMeasured(t *testing.T) {
	a, b := newNode(t, Config{}), newNode(t, Config{})
	tell(a.net, b.Local(), b.Addrs())
	if got := a.Path(b.Local()); got.RTT != 0 {
		t.Errorf("before a connection: %+v", got)
	}
	if len(a.net.trips.peers) != 0 {
		t.Error("who isn't connected was asked")
	}
	if err := a.Connect(t.Context(), b.Local()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var first timed
	for ctx := deadline(t); first.took == 0; { // a ping may be lost: the other has too many at the moment, or is slow
		if ctx.Err() != nil {
			t.Fatal("no ping is answered")
		}
		a.net.trips.peers = nil // it is due
		_ = a.Path(b.Local())
		a.net.serving.Wait()
		first = a.net.trips.peers[b.Local()]
	}
	if first.asked.Before(began) || time.Since(first.asked) < 0 {
		t.Errorf("asked at %v, began at %v", first.asked, began)
	}
	first.asked = time.Now().Add(time.Hour) // so that it stays fresh, however slow the machine
	a.net.trips.peers[b.Local()] = first
	if got := a.Path(b.Local()); first.took <= 0 || got.RTT != float64(first.took.Microseconds())/1000 {
		t.Errorf("measured %s, told %f ms", first.took, got.RTT)
	}
	a.net.serving.Wait()
	if again := a.net.trips.peers[b.Local()]; again != first || a.net.trips.pinging != 0 {
		t.Errorf("asked again at once: %+v, then %+v; %d under way", first, again, a.net.trips.pinging)
	}
	for range 2 * maxTimed {
		a.net.trips.note(newKey(t).PeerID(), first)
	}
	if n := len(a.net.trips.peers); n != maxTimed {
		t.Errorf("%d are remembered", n)
	}
}

package cluster_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/parley-p2p/parley/star/cluster"
	"github.com/parley-p2p/parley/star/cluster/natstest"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

const (
	addrA = "/ip4/1.1.1.1"
	addrB = "/ip4/2.2.2.2"
	addrC = "/ip4/3.3.3.3"
)

// pair is two stars of one cluster over one NATS server.
func pair(t *testing.T, times cluster.Times) (a, b *node) {
	t.Helper()
	url := natstest.Start(t, 1).URL()
	return start(t, url, open, cluster.Options{Times: times}), start(t, url, open, cluster.Options{Times: times})
}

func TestMembersAreKnownEverywhere(t *testing.T) {
	a, b := pair(t, calm)
	pa := a.joinExtended(addrA)
	b.knows(addrA)
	pb := connect(t, b.url, socketio.DialOptions{})
	if got := pb.call("ss-join", addrB, ""); got != `[null,null,["`+addrA+`"]]` {
		t.Errorf("the list at the other server: %s", got)
	}
	pa.wait(`["parley.peers",`)
	a.knows(addrA, addrB)
	pa.emit("ss-leave", addrA)
	b.knows(addrB)
	_ = pb.stop()
	a.knows()
}

func TestDialAcrossServers(t *testing.T) {
	a, b := pair(t, calm)
	pa, pb := a.join(addrA), b.join(addrB)
	a.knows(addrA, addrB)
	b.knows(addrA, addrB)
	pa.dial(addrA, addrB, "d")
	if got := pb.wait(`["ss-incomming"`); got != `["ss-incomming","d","`+addrA+`"]` {
		t.Errorf("the callee hears %s", got)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 60_000) // more than a window
	pa.chunk("d.dialer", []byte("small"))
	pa.chunk("d.dialer", nil)
	pa.chunk("d.dialer", large)
	pb.chunk("d.listener", large)
	if got := pb.received("d.dialer", 5+len(large)); !bytes.Equal(got, append([]byte("small"), large...)) {
		t.Errorf("the callee has %d bytes that differ", len(got))
	}
	if got := pa.received("d.listener", len(large)); !bytes.Equal(got, large) {
		t.Errorf("the dialer has %d bytes that differ", len(got))
	}
	pa.emit(proxy.Error+"d.dialer", "=true") // one half, then the other
	if got := pb.wait(`["` + proxy.Error); got != `["`+proxy.Error+`d.dialer",true]` {
		t.Errorf("the callee hears %s", got)
	}
	pb.chunk("d.listener", []byte("still"))
	pa.received("d.listener", len(large)+5)
	pb.emit(proxy.Error+"d.listener", "an error")
	if got := pa.wait(`["` + proxy.Error); got != `["`+proxy.Error+`d.listener","an error"]` {
		t.Errorf("the dialer hears %s", got)
	}
	eventually(t, "nothing is left", func() bool {
		return a.star.Stats().Streams.Dials+b.star.Stats().Streams.Dials == 0 && a.star.Stats().Streams.Held+b.star.Stats().Streams.Held == 0
	})
	if a.shared.Bytes() < int64(2*len(large)) {
		t.Errorf("%d bytes counted", a.shared.Bytes())
	}
}

func TestDialAcrossServersIsAnswered(t *testing.T) {
	a, b := pair(t, calm)
	pa, pb := a.join(addrA), b.join(addrB)
	pb.mute = true
	a.knows(addrA, addrB)
	for i, c := range []struct{ say, want string }{{"no, thank you", `["no, thank you"]`}, {"={}", `["Dial refused"]`}, {"=null", "[]"}} {
		id := fmt.Sprint("d", i)
		answer := pa.start("ss-dial", addrA, addrB, id)
		pb.wait(`["ss-incomming","` + id)
		pb.ack(int64(i), c.say)
		if got := <-answer; got != c.want {
			t.Errorf("the callee says %s: %s, want %s", c.say, got, c.want)
		}
	}
	answer := pa.start("ss-dial", addrA, addrB, "gone")
	pb.wait(`["ss-incomming","gone"`)
	_ = pb.stop()
	if got := <-answer; got != `["Peer disconnected"]` {
		t.Errorf("the callee goes: %s", got)
	}
	if got := pa.wait(`["` + proxy.Error + "d2.listener"); !strings.HasSuffix(got, `",true]`) { // without extensions, as the reference
		t.Errorf("its stream ends with %s", got)
	}
	a.knows(addrA)
	if got := pa.call("ss-dial", addrA, addrB, "late"); got != `["Peer not found"]` {
		t.Errorf("nobody is there: %s", got)
	}
}

package topic

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	lnet "github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/parley-p2p/parley/identity"
)

// rawPeer speaks GossipSub by hand.
type rawPeer struct {
	host host.Host
	key  identity.Key
	out  lnet.Stream
}

// newRawPeer connects to n and says that it subscribes to topic. read is whether
// it reads what n sends.
func newRawPeer(t testing.TB, n *testNode, topic string, read bool) *rawPeer {
	t.Helper()
	h := newHost(t)
	t.Cleanup(func() { _ = h.Close() })
	connectHosts(t, h, n.host)
	return newRawPeerOn(t, h, n, topic, read)
}

// newRawPeerOn is newRawPeer on a host that is connected to n.
func newRawPeerOn(t testing.TB, h host.Host, n *testNode, topic string, read bool) *rawPeer {
	t.Helper()
	p := &rawPeer{host: h, key: newKey(t)}
	p.host.SetStreamHandler(pubsub.GossipSubID_v11, func(s lnet.Stream) {
		buffer := make([]byte, 4096)
		for read {
			if _, err := s.Read(buffer); err != nil {
				return
			}
		}
	})
	var err error
	if p.out, err = p.host.NewStream(context.Background(), n.host.ID(), pubsub.GossipSubID_v11); err != nil {
		t.Fatal(err)
	}
	subscribe := true
	if err := p.send(&pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Topicid: &topic, Subscribe: &subscribe}}}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *rawPeer) send(rpc *pb.RPC) error {
	raw, err := proto.Marshal(rpc)
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...))
	return err
}

// message makes a publication of p, signed if wanted.
func (p *rawPeer) message(t testing.TB, topic, text string, seq uint64, signed bool) *pb.Message {
	t.Helper()
	id := p.key.PeerID()
	m := &pb.Message{From: []byte(id), Data: []byte(text), Topic: &topic, Seqno: binary.BigEndian.AppendUint64(nil, seq)}
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Signature = make([]byte, 64); signed {
		m.Signature = p.key.Sign(append([]byte(pubsub.SignPrefix), raw...))
	}
	return m
}

func TestAbuse34_InvalidSignaturesAndReplay(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	good, bad := newRawPeer(t, n, "room", true), newRawPeer(t, n, "room", true)
	a.untilMember(t, "room", good.host.ID(), true)
	a.untilMember(t, "room", bad.host.ID(), true)

	m := good.message(t, "room", `"once"`, 1, true)
	for range 5 { // the same message again and again, from both
		if err := good.send(&pb.RPC{Publish: []*pb.Message{m, m}}); err != nil {
			t.Fatal(err)
		}
		if err := bad.send(&pb.RPC{Publish: []*pb.Message{m}}); err != nil {
			t.Fatal(err)
		}
	}
	a.untilCount(t, 1) // so that nobody's way through the validation is overtaken
	const forgeries = 500
	for i := range forgeries {
		if i == 50 { // what is on its way already is looked at
			eventually(t, "some forged ones to be counted", func() bool { return n.Stats().Dropped[pubsub.RejectInvalidSignature] >= 6 })
		}
		forged := bad.message(t, "room", fmt.Sprintf(`"forged %d"`, i), uint64(i), false)
		if err := bad.send(&pb.RPC{Publish: []*pb.Message{forged}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := good.send(&pb.RPC{Publish: []*pb.Message{good.message(t, "room", `"last"`, 2, true)}}); err != nil {
		t.Fatal(err)
	}
	a.until(t, "the last one", func() bool { return slices.Contains(a.texts(), `"last"`) })
	if got := a.texts(); !slices.Equal(got, []string{`"once"`, `"last"`}) {
		t.Errorf("got %q", got)
	}
	a.until(t, "forged ones counted and their sender ignored", func() bool {
		// Each try wakes the sink: what bad signs rightly no longer arrives once it is gray.
		d := n.Stats().Dropped
		a.publish(t, "room", `"tick"`)
		return d[pubsub.RejectInvalidSignature] >= 6
	})
	if looked := n.Stats().Dropped[pubsub.RejectInvalidSignature]; looked >= forgeries {
		t.Errorf("all %d forged ones were looked at: the sender isn't ignored", looked)
	}
}

func TestAbuse34_ControlSpam(t *testing.T) {
	n := newNode(t)
	a := n.page(t)
	a.subscribe(t, "room")
	spammer := newRawPeer(t, n, "room", true)
	a.untilMember(t, "room", spammer.host.ID(), true)
	topic := "room"
	for i := range 200 {
		var ids []string
		for j := range 100 {
			ids = append(ids, fmt.Sprint("no such message ", i, j))
		}
		err := spammer.send(&pb.RPC{Control: &pb.ControlMessage{
			Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: ids}},
			Iwant: []*pb.ControlIWant{{MessageIDs: ids}},
			Graft: []*pb.ControlGraft{{TopicID: &topic}},
		}})
		if err != nil {
			break // cut off
		}
	}
	b := n.page(t) // others are served as before
	b.subscribe(t, "room")
	a.publish(t, "room", `"hello"`)
	b.untilCount(t, 1)
}

// TestAbuse28_RoomGoesOn: a member that never reads holds a room up for a moment
// only, its loss is counted, and the others get everything in order.
func TestAbuse28_RoomGoesOn(t *testing.T) {
	m, n := newNodeWithQueue(t, 64), newNode(t)
	const count = 1000 // more than a stream's window and the queue hold
	b := newBurst(t, count, 2, m, n)
	watcher := m.page(t)
	watcher.subscribe(t, "room")
	deaf := newRawPeer(t, m, "room", false)
	watcher.untilMember(t, "room", deaf.host.ID(), true)
	watcher.Leave()
	b.run(t, count, 1000)
	for i, s := range b.sinks {
		if s.got.Load() != count || s.wrong.Load() != 0 {
			t.Errorf("subscriber %d got %d, %d out of order", i, s.got.Load(), s.wrong.Load())
		}
	}
	if d := m.Stats().Dropped; d[dropQueueFull] == 0 {
		t.Errorf("what the deaf one missed isn't counted: %v", d)
	}
}

// TestAbuse35_SybilMesh: twenty members that pass nothing on fill the meshes of
// three honest ones, who still get everything from each other: a publication goes
// to every connected member, not to the mesh alone.
func TestAbuse35_SybilMesh(t *testing.T) {
	honest := []*testNode{newNode(t), newNode(t), newNode(t)}
	var pages []*page
	for _, n := range honest {
		p := n.page(t)
		p.subscribe(t, "room")
		pages = append(pages, p)
	}
	for range 20 {
		sybil := newPlainPeer(t, "room", pubsub.WithAppSpecificRpcInspector(func(_ identity.PeerID, rpc *pubsub.RPC) error {
			if len(rpc.GetPublish()) > 0 {
				return context.Canceled // takes it, and that was it
			}
			return nil
		}))
		for i, n := range honest {
			connectHosts(t, sybil.host, n.host)
			pages[i].untilMember(t, "room", sybil.host.ID(), true)
		}
	}
	connect(t, honest...)
	for i, p := range pages {
		p.untilMember(t, "room", pages[(i+1)%3].id, true)
		p.untilMember(t, "room", pages[(i+2)%3].id, true)
	}
	for i := range 3 {
		pages[i].publish(t, "room", fmt.Sprintf(`"from %d"`, i))
	}
	for _, p := range pages {
		p.untilCount(t, 3)
	}
}

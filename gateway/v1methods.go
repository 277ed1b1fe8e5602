package gateway

import (
	"github.com/parley-p2p/parley/flow"
	v1 "github.com/parley-p2p/parley/gateway/v1"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// The requests of v1 behind peer, start and stop, in the order of gateway.md §2.4.

// send puts a message on its way. With an ack number the answer waits until the
// message is delivered, without one it comes when the outbox has it.
func (p *v1Session) send(q v1.Request) error {
	m, err := q.Send()
	if err != nil {
		p.answerParams(q, err)
		return nil
	}
	out := network.Outgoing{Protocol: network.Protocol(m.Protocol), Level: network.Handled,
		Content: network.Content{Type: network.JSON, Data: m.Data}}
	if out.To, err = identity.ParsePeerID(m.Peer); err == nil {
		err = p.checkSend(out)
	}
	if err != nil {
		p.fail(q.ID, err)
		return nil
	}
	if m.Ack < 0 {
		out.Level = network.Delivered
	}
	r, err := p.begin(p.l.Context(), q.ID, len(m.Data))
	if err != nil {
		return err
	}
	out.Done = func(o network.Outcome) { p.sent(r, m, o) }
	if _, err = p.peer.Send(out); err != nil {
		p.settle(r)
		p.fail(q.ID, sendText(err, m))
		return nil
	}
	if m.Ack < 0 {
		p.answered(r)
		p.result(q.ID, nil)
	}
	return nil
}

// sent is called when a message has reached its level or never will.
func (p *v1Session) sent(r *request, m v1.Send, o network.Outcome) {
	switch {
	case !p.settle(r):
	case m.Ack < 0 && o.Err != nil:
		p.g.stats.SendsFailed.Add(1)
		p.log.Debug("message without ack failed", "to", m.Peer, "protocol", m.Protocol, "err", o.Err)
	case m.Ack < 0:
	case o.Err != nil:
		p.fail(r.id, sendText(o.Err, m))
	default:
		p.push(flow.Control, item{kind: itemAck, id: r.id, n: m.Ack}, 0)
	}
}

// sendText gives a failed send the text of gateway.md §2.6.
func sendText(err error, m v1.Send) error {
	for code, text := range map[identity.Code]string{
		identity.CodeNotStarted: "protocol not started by peer: " + m.Protocol,
		identity.CodeQueueFull:  "send queue full: " + m.Peer + " " + m.Protocol,
		identity.CodeTimeout:    "send timed out",
		identity.CodeClosed:     "peer closed",
	} {
		err = sameText(err, code, text)
	}
	return err
}

// checkSend refuses what could never arrive.
func (s *session) checkSend(out network.Outgoing) error {
	if n := len(out.Content.Data); n > s.g.cfg.MaxMessage {
		return tooLarge(n, s.g.cfg.MaxMessage)
	}
	return checkProtocol(string(out.Protocol))
}

func tooLarge(n, limit int) error {
	return identity.Errorf(identity.CodeTooLarge, "message too large: %d bytes, limit %d", n, limit)
}

// maxPublication bounds the data of a publication (gateway.md §2.4).
const maxPublication = 1 << 20

func (p *v1Session) publishRequest(q v1.Request) error {
	topic, data, err := q.Publish()
	if err == nil {
		err = checkTopic(topic)
	}
	if err == nil && len(data) > maxPublication {
		err = tooLarge(len(data), maxPublication)
	}
	if err == nil {
		err = p.limited()
	}
	if err != nil {
		p.answerParams(q, err)
		return nil
	}
	r, err := p.begin(p.l.Context(), q.ID, len(data))
	if err == nil {
		p.publish(r, topic, network.Content{Type: network.JSON, Data: data})
	}
	return err
}

func (p *v1Session) subscribeRequest(q v1.Request) error {
	topic, err := q.Topic()
	if err != nil {
		return err
	}
	_, opened, err := p.subscribe(topic, nil)
	if err == nil {
		p.result(q.ID, nil)
		opened()
	}
	return err
}

func (p *v1Session) unsubscribeRequest(q v1.Request) error {
	topic, err := q.Topic()
	if err == nil {
		err = p.unsubscribe(topic)
	}
	if err == nil {
		p.result(q.ID, nil)
	}
	return err
}

func (p *v1Session) listPeers(q v1.Request) error {
	topic, err := q.Topic()
	if err != nil {
		return err
	}
	members := p.peer.Members(topic)
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.Peer.String()
	}
	p.result(q.ID, v1.PeersResult(ids))
	return nil
}

func (p *v1Session) addPeers(q v1.Request) error {
	ids, err := peerIDs(q)
	if err == nil {
		err = p.peer.AddPeers(ids, nil)
	}
	if err == nil {
		p.result(q.ID, nil)
	}
	return err
}

func (p *v1Session) removePeers(q v1.Request) error {
	ids, err := peerIDs(q)
	if err == nil {
		p.peer.RemovePeers(ids)
		p.result(q.ID, nil)
	}
	return err
}

// peerIDs leaves out ids that aren't ids.
func peerIDs(q v1.Request) ([]identity.PeerID, error) {
	texts, err := q.PeerIDs()
	if err != nil {
		return nil, err
	}
	if len(texts) > maxPeers {
		return nil, limitError("too many peers in one request, limit " + itoa(maxPeers))
	}
	ids := make([]identity.PeerID, 0, len(texts))
	for _, text := range texts {
		if id, err := identity.ParsePeerID(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// maxPeers bounds the ids of one request.
const maxPeers = 1024

// listFiles and getFile answer as gateway.md §3 rule 6 asks: their push settles
// the call of the existing client.
func (p *v1Session) listFiles(q v1.Request) error {
	peer, err := q.PeerID()
	if err != nil {
		return err
	}
	p.fail(q.ID, errNoFiles)
	p.push(flow.Control, item{kind: itemNoFiles, text: peer}, len(peer))
	return nil
}

func (p *v1Session) getFile(q v1.Request) error {
	cid, _, err := q.CID()
	if err != nil {
		return err
	}
	p.result(q.ID, nil)
	p.push(flow.Control, item{kind: itemNoFile, text: cid, ref: errNoFiles}, len(cid))
	return nil
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}

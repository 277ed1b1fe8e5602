package gateway

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/socket"
	v1 "github.com/parley-p2p/parley/gateway/v1"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// v1Session reads the frames of a v1 page. Its fields belong to the reader.
//
//  1. decode the envelope; what isn't one is dropped and counted
//  2. peer, which everything behind it waits for
//  3. the method, which answers at once, or later by the session's requests
type v1Session struct {
	*session
	l   *link
	bad *flow.Bucket
}

// serveV1 serves a page until its socket is gone.
func (g *Gateway) serveV1(l *link, s *session) {
	page := &v1Session{session: s, l: l, bad: flow.NewBucket(badPerMinute/60.0, badPerMinute-1)}
	out := &v1Outlet{session: s, l: l}
	why := l.run(page.readLoop, func() error { return l.writeLoop(s.queue, out) })
	s.log.Debug("socket ended", "code", int(why.code), "reason", why.reason, "theirs", why.theirs)
	s.end() // the peer is free before the socket's last words
	l.hangUp(why)
}

func (p *v1Session) readLoop() error {
	var buf []byte
	for {
		kind, msg, err := p.l.read(buf[:0])
		if err != nil {
			return err
		}
		if kind == socket.Text && !utf8.Valid(msg) {
			return violation(socket.BadText, "text that is not UTF-8")
		}
		if err := p.frame(msg); err != nil {
			return err
		}
		if buf = msg; cap(buf) > maxBatch {
			buf = nil // a large frame must not keep its memory
		}
	}
}

// frame serves one frame. An error ends the socket.
func (p *v1Session) frame(msg []byte) error {
	q, err := v1.Decode(msg)
	switch {
	case errors.Is(err, v1.ErrMalformed):
		p.g.stats.Malformed.Add(1)
		if ok, _ := p.bad.Allow(1, time.Now()); !ok {
			return violation(socket.Policy, "too many malformed frames, limit 20 a minute")
		}
		return nil
	case err != nil:
		p.failure(q.ID, v1.CodeMalformed, "invalid params")
		return nil
	case q.Method == v1.MethodPeer:
		p.answerParams(q, p.makePeer(q))
		return nil
	}
	serve, known := v1Methods[q.Method]
	switch {
	case !known:
		p.failure(q.ID, v1.CodeMalformed, "unknown method: "+clip(q.Method, maxName))
	case p.peer == nil:
		p.failure(q.ID, v1.CodeNoPeer, "peer not found: ")
	case q.Method == v1.MethodSend:
		return p.send(q)
	case q.Method == v1.MethodPublish:
		return p.publishRequest(q)
	default:
		err := p.limited()
		if err == nil {
			err = serve(p, q)
		}
		p.answerParams(q, err)
	}
	return nil
}

// v1Methods are the requests besides peer. Those that give an error have not
// answered yet.
var v1Methods = map[string]func(*v1Session, v1.Request) error{
	v1.MethodStart:       (*v1Session).startRequest,
	v1.MethodStop:        (*v1Session).stopRequest,
	v1.MethodSend:        nil, // send
	v1.MethodPublish:     nil, // publishRequest
	v1.MethodSubscribe:   (*v1Session).subscribeRequest,
	v1.MethodUnsubscribe: (*v1Session).unsubscribeRequest,
	v1.MethodListPeers:   (*v1Session).listPeers,
	v1.MethodAddPeers:    (*v1Session).addPeers,
	v1.MethodRemovePeers: (*v1Session).removePeers,
	v1.MethodListFiles:   (*v1Session).listFiles,
	v1.MethodGetFile:     (*v1Session).getFile,
	v1.MethodStoreFile:   func(*v1Session, v1.Request) error { return errNoFiles },
	v1.MethodRemoveFile:  func(*v1Session, v1.Request) error { return errNoFiles },
}

var errNoFiles = &identity.Error{Code: identity.CodeUnsupported, Text: "files are not available on this node"}

// answerParams answers a request whose serving failed.
func (p *v1Session) answerParams(q v1.Request, err error) {
	switch {
	case err == nil:
	case errors.Is(err, v1.ErrParams):
		p.failure(q.ID, v1.CodeMalformed, "invalid params")
	default:
		p.fail(q.ID, err)
	}
}

// failure answers with a code of v1; fail gives every other error code 500.
func (p *v1Session) failure(id int64, code int64, text string) {
	p.push(flow.Control, item{kind: itemFailure, id: id, n: code, text: text}, len(text))
}

func (p *v1Session) makePeer(q v1.Request) error {
	keyText, root, err := q.Peer()
	if err != nil {
		return err
	}
	if p.peer != nil {
		return identity.Errorf(identity.CodeAlreadyStarted, "peer already created on this connection")
	}
	if root != "" {
		return errNoFiles
	}
	key, err := keyOf(keyText)
	if err != nil {
		return err
	}
	if err := p.g.joinFree(p.l.ctx, p.session, key); err != nil {
		if identity.CodeOf(err) == identity.CodePeerInUse {
			err = errInUse
		}
		return err
	}
	p.l.sock.SetLimit(p.g.cfg.MaxFrame)
	p.result(q.ID, v1.PeerResult(key.PeerID().String(), key.String()))
	return nil
}

var errInUse = &identity.Error{Code: identity.CodePeerInUse, Text: "peer ID already in use (possible duplicate browser tab)"}

func keyOf(text string) (identity.Key, error) {
	if text == "" {
		return identity.NewKey()
	}
	return identity.ParseKey(text)
}

func (p *v1Session) startRequest(q v1.Request) error {
	name, err := q.Protocol()
	if err != nil {
		return err
	}
	opened, err := p.start(name)
	if err != nil {
		return sameText(err, identity.CodeReserved, "protocol is reserved: "+clip(name, maxName))
	}
	p.result(q.ID, nil)
	opened()
	return nil
}

// sameText gives an error of a code the text that existing pages know.
func sameText(err error, code identity.Code, text string) error {
	if identity.CodeOf(err) == code {
		return &identity.Error{Code: code, Text: text, Err: err}
	}
	return err
}

func (p *v1Session) stopRequest(q v1.Request) error {
	name, err := q.Protocol()
	if err == nil {
		err = p.stopProtocol(name)
	}
	if err == nil {
		p.result(q.ID, nil)
	}
	return err
}

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
	r, err := p.begin(p.l.ctx, q.ID, len(m.Data))
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
	r, err := p.begin(p.l.ctx, q.ID, len(data))
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

package gateway

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/gateway/access"
	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/gateway/socket"
	v1 "github.com/parley-p2p/parley/gateway/v1"
	"github.com/parley-p2p/parley/identity"
)

// v1Session reads the frames of a v1 page. Its fields belong to the reader.
//
//  1. decode the envelope; what isn't one is dropped and counted
//  2. peer, which everything behind it waits for
//  3. the method, which answers at once, or later by the session's requests
type v1Session struct {
	*session
	l   *link.Link
	w   *link.Writer[item]
	bad *flow.Bucket
}

// serveV1 serves a page until its socket is to be closed the way the error says.
func (g *Gateway) serveV1(l *link.Link, v access.Visitor) error {
	s := newSession(g, 1, v, g.cfg.SessionBuffer)
	s.link = l
	if err := g.add(s); err != nil {
		return link.Violation(socket.Overloaded, err.Error())
	}
	w := link.NewWriter[item](l, s.queue, &v1Outlet{session: s, l: l})
	page := &v1Session{session: s, l: l, w: w, bad: flow.NewBucket(badPerMinute/60.0, badPerMinute-1)}
	why := l.Run(page.readLoop, w.Run)
	s.log.Debug("socket ended", "code", int(why.Code), "reason", why.Reason, "theirs", why.Theirs)
	s.end() // the peer is free before the socket's last words
	return why
}

func (p *v1Session) readLoop() error {
	var buf []byte
	for {
		kind, msg, err := p.l.Read(buf)
		if err != nil {
			return err
		}
		if kind == socket.Text && !utf8.Valid(msg) {
			return link.Violation(socket.BadText, "text that is not UTF-8")
		}
		if err := p.ask(p.l, p.w); err != nil {
			return err
		}
		if err := p.frame(msg); err != nil {
			return err
		}
		buf = socket.Reuse(msg) // decoding has copied what it keeps
	}
}

// frame serves one frame. An error ends the socket.
func (p *v1Session) frame(msg []byte) error {
	q, err := v1.Decode(msg)
	switch {
	case errors.Is(err, v1.ErrMalformed):
		p.g.stats.Malformed.Add(1)
		if ok, _ := p.bad.Allow(1, time.Now()); !ok {
			return link.Violation(socket.Policy, "too many malformed frames, limit 20 a minute")
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
	if err := p.g.joinFree(p.l.Context(), p.session, key); err != nil {
		if identity.CodeOf(err) == identity.CodePeerInUse {
			err = errInUse
		}
		return err
	}
	p.l.SetLimit(p.g.cfg.MaxFrame)
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

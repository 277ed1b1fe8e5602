package gateway

import (
	"bytes"
	"errors"
	"time"

	"github.com/parley-p2p/parley/gateway/link"
	v2 "github.com/parley-p2p/parley/gateway/v2"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// method is a request of v2: the parameters that it must have, and what does it.
// It answers itself, or gives an error.
type method struct {
	needs v2.Params
	serve func(s *v2Session, id int64, q v2.Request) error
}

var v2Methods = map[string]method{
	"start":       {v2.HasProtocol, (*v2Session).startRequest},
	"stop":        {v2.HasProtocol, (*v2Session).stopRequest},
	"subscribe":   {v2.HasTopic, (*v2Session).subscribeRequest},
	"unsubscribe": {v2.HasTopic, (*v2Session).unsubscribeRequest},
	"members":     {v2.HasTopic, (*v2Session).membersRequest},
	"addPeers":    {v2.HasPeers, (*v2Session).addPeers},
	"removePeers": {v2.HasPeers, (*v2Session).removePeers},
	"path":        {v2.HasPeer, (*v2Session).pathRequest},
	"exportKey":   {0, (*v2Session).exportKey},
	"status":      {0, (*v2Session).status},
	"leave":       {v2.HasSpace, (*v2Session).leaveRequest},
	"listen":      {v2.HasSpace | v2.HasProtocol | v2.HasWindow, (*v2Session).listenRequest},
	"unlisten":    {v2.HasSpace | v2.HasProtocol, (*v2Session).unlistenRequest},
	"info":        {v2.HasChannel, (*v2Session).infoRequest},

	// These wait.
	"publish": {v2.HasTopic | v2.HasData, nil},
	"join":    {v2.HasSpace, nil},
	"open":    {v2.HasSpace | v2.HasPeer | v2.HasProtocol | v2.HasChannel | v2.HasWindow, nil},
}

// waits does a request that may wait: it counts as unsettled until it is
// answered. An error ends the socket.
func (s *v2Session) waits(l *link.Link, id int64, q v2.Request) error {
	switch q.Method {
	case "publish":
		return s.publishRequest(l, id, q)
	case "join":
		return s.joinRequest(l, id, q)
	}
	return s.openRequest(l, id, q)
}

// request serves a request frame.
func (s *v2Session) request(l *link.Link, f v2.Frame) error {
	q, err := f.Request()
	if errors.Is(err, v2.ErrFrame) {
		return err
	}
	id := int64(q.ID)
	if err == nil {
		err = s.limited()
	}
	m, known := v2Methods[q.Method]
	switch {
	case err != nil:
	case !known:
		err = identity.Errorf(identity.CodeUnknownMethod, "unknown method: %s", q.Method)
	case q.Has&m.needs != m.needs:
		err = identity.Errorf(identity.CodeMalformed, "invalid params")
	case m.serve == nil:
		return s.waits(l, id, q)
	default:
		err = m.serve(s, id, q)
	}
	if err != nil {
		s.fail(id, err)
	}
	return nil
}

func (s *v2Session) publishRequest(l *link.Link, id int64, q v2.Request) error {
	err := checkTopic(q.Topic)
	if err == nil {
		err = s.mayTopic(q.Topic)
	}
	if n := len(q.Data.Data); err == nil && n > maxPublication {
		err = tooLarge(n, maxPublication)
	}
	if err != nil {
		s.fail(id, err)
		return nil
	}
	r, err := s.begin(l.Context(), id, len(q.Data.Data))
	if err != nil {
		return err
	}
	q.Data.Data = bytes.Clone(q.Data.Data)
	s.publish(r, q.Topic, q.Data)
	return nil
}

func (s *v2Session) startRequest(id int64, q v2.Request) error {
	if err := s.mayProtocol(q.Protocol); err != nil {
		return err
	}
	opened, err := s.start(q.Protocol)
	if err == nil {
		s.result(id, nil)
		opened()
	}
	return err
}

func (s *v2Session) stopRequest(id int64, q v2.Request) error {
	err := s.stopProtocol(q.Protocol)
	if err == nil {
		s.result(id, nil)
	}
	return err
}

func (s *v2Session) subscribeRequest(id int64, q v2.Request) error {
	if len(q.State) > maxState {
		return identity.Errorf(identity.CodeTooLarge, "state has %d bytes, limit %d", len(q.State), maxState)
	}
	if err := s.mayTopic(q.Topic); err != nil {
		return err
	}
	members, opened, err := s.subscribe(q.Topic, bytes.Clone(q.State))
	if err == nil {
		s.result(id, encodeMembers(members))
		opened()
	}
	return err
}

// maxState bounds a presence state; it is what fits into a presence record.
const maxState = 1 << 10

func (s *v2Session) unsubscribeRequest(id int64, q v2.Request) error {
	err := s.unsubscribe(q.Topic)
	if err == nil {
		s.result(id, nil)
	}
	return err
}

func (s *v2Session) membersRequest(id int64, q v2.Request) error {
	err := s.mayTopic(q.Topic)
	if err == nil {
		s.result(id, encodeMembers(s.peer.Members(q.Topic)))
	}
	return err
}

func (s *v2Session) addPeers(id int64, q v2.Request) error {
	ids, err := parsePeers(q.Peers)
	if err == nil {
		err = s.mayDial(q.Addresses)
	}
	if err == nil {
		err = s.peer.AddPeers(ids, q.Addresses)
	}
	if err == nil {
		s.result(id, nil)
	}
	return err
}

func (s *v2Session) removePeers(id int64, q v2.Request) error {
	ids, err := parsePeers(q.Peers)
	if err == nil {
		s.peer.RemovePeers(ids)
		s.result(id, nil)
	}
	return err
}

func parsePeers(texts []string) ([]identity.PeerID, error) {
	ids := make([]identity.PeerID, len(texts))
	for i, text := range texts {
		var err error
		if ids[i], err = identity.ParsePeerID(text); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func (s *v2Session) pathRequest(id int64, q v2.Request) error {
	peer, err := identity.ParsePeerID(q.Peer)
	if err == nil {
		s.result(id, encodePath(s.peer.Path(peer)))
	}
	return err
}

// exportKey is the one way for a private key to leave the node (G-S8).
func (s *v2Session) exportKey(id int64, _ v2.Request) error {
	s.result(id, v2.AppendText(v2.AppendText(v2.AppendMap(nil, 1), "key"), s.peer.Key().String()))
	return nil
}

func (s *v2Session) status(id int64, _ v2.Request) error {
	peers := len(s.peer.Members(""))
	s.mu.Lock()
	topics, protocols := len(s.topics), len(s.protocols)
	s.mu.Unlock()
	dst := v2.AppendMap(nil, 4)
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"peers", int64(peers)}, {"topics", int64(topics)}, {"protocols", int64(protocols)},
		{"uptime", time.Since(s.g.started).Milliseconds()},
	} {
		dst = v2.AppendUint(v2.AppendText(dst, field.name), uint64(field.value))
	}
	s.result(id, dst)
	return nil
}

// encodeMembers leaves out states that can't be put into a frame.
func encodeMembers(members []network.Member) []byte {
	texts := make([]v2.MemberText, len(members))
	for i, m := range members {
		texts[i].Peer = m.Peer.String()
		if len(m.State) > 0 && v2.CheckData(m.State) == nil {
			texts[i].State = m.State
		}
	}
	return v2.AppendMembers(nil, texts)
}

// encodePath gives {peer, path, address, rtt, tried: [{path, error}]}.
func encodePath(p PathInfo) []byte {
	dst := v2.AppendMap(nil, 5)
	dst = v2.AppendText(v2.AppendText(dst, "peer"), p.Peer.String())
	dst = v2.AppendText(v2.AppendText(dst, "path"), string(p.Path))
	dst = v2.AppendText(v2.AppendText(dst, "address"), v2.ValidText(p.Address))
	dst = v2.AppendFloat(v2.AppendText(dst, "rtt"), p.RTT)
	dst = v2.AppendArray(v2.AppendText(dst, "tried"), len(p.Tried))
	for _, t := range p.Tried {
		dst = v2.AppendText(v2.AppendText(v2.AppendMap(dst, 2), "path"), string(t.Path))
		dst = v2.AppendText(v2.AppendText(dst, "error"), v2.ValidText(t.Error))
	}
	return dst
}

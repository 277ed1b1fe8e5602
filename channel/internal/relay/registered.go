package relay

import (
	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// Create is a channel that a peer wants to create.
type Create struct {
	Client   Client       // over which it came
	Message  *mux.Message // holds until the call returns
	From, To identity.AgentID
	Verified bool // From has proved itself
}

// Registration accepts the channel by which an agent registers: to the node's own
// id, under a contract. It carries nothing, and its end ends the registration.
// prove makes the node's toProof. handled is false without a contract.
func (s *Service) Registration(in Create, prove func() []byte) (err *conn.Error, handled bool) {
	s.mu.Lock()
	mine := s.live(in.Client) != nil
	ok := mine && in.Verified && s.register(in.Client, in.From)
	s.mu.Unlock()
	if !mine {
		return nil, false
	}
	if !ok {
		return &conn.Error{Code: conn.RelayRefused, Text: "the agent is not proven, or there are too many"}, true
	}
	in.Client.Conn().Accept(in.Message, conn.Accepting{
		Proof: prove(), Sink: &registered{service: s, client: in.Client, agent: in.From},
	})
	return nil, true
}

// registered is the channel of a registered agent.
type registered struct {
	service *Service
	client  Client
	agent   identity.AgentID
}

// Content is dropped: the channel carries nothing.
func (*registered) Content(*conn.Stream, []byte, []byte) {}

// Window is of no use here.
func (*registered) Window(*conn.Stream, uint32) {}

// Sent is of no use here.
func (*registered) Sent(*conn.Stream) {}

// Ended removes the agent.
func (g *registered) Ended(*conn.Stream, *conn.Error) {
	g.service.mu.Lock()
	defer g.service.mu.Unlock()
	g.service.unregister(g.client, g.agent)
}

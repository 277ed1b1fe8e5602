// Package relay is what a node does as a relay of channels
// (docs/spec/channels.md §11): it grants contracts to connections, knows which
// agents are reached over them, and joins two channels into a bridge, which it
// can't read. A Service belongs to one node, whose connections are its Clients.
//
//	agent ── contract ──▶ Service ◀── create with hops 1 ── stranger
//	  ▲                      │                                 ▲
//	  └──── far leg ◀──── bridge ────▶ near leg ───────────────┘
//
// Locks are taken in this order: a bridge's, the Service's, the node's.
package relay

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// Times and bounds of a relay, docs/spec/channels.md §11.
const (
	expiryGrace   = 30 * time.Second // bridges of an expired contract
	idleBridge    = 2 * time.Minute  // a bridge that carries nothing ends
	refusalMemory = time.Minute      // how long a refusal is answered by the relay
	maxRefusals   = 4096
	maxRegistered = 1024 // agents a contract registers
	tickEvery     = time.Second
)

// Client is a connection of the node. Two are the same where they are equal.
type Client interface {
	Conn() *conn.Conn
	Peer() identity.PeerID // empty where the carrier has not authenticated it
	Address() string       // what counts as one address
}

// Node is the node that a Service belongs to. Its methods must not call the
// Service.
type Node interface {
	// Start runs f in a goroutine that the node waits for. It reports false where
	// the node has stopped.
	Start(f func(ctx context.Context)) bool
	// Reach gives a live connection on which an agent has proved itself, or nil.
	Reach(agent identity.AgentID) Client
	// Proven reports whether ok holds for an agent that has proved itself on c.
	Proven(c Client, ok func(identity.AgentID) bool) bool
}

// Service is the relay service of a node.
type Service struct {
	// static after New
	node   Node
	policy Policy

	bytes atomic.Int64 // forwarded in all

	// guarded by mu
	mu        sync.Mutex
	contracts map[Client]*contract
	agents    map[identity.AgentID][]Client // registered, newest last
	bridges   map[*bridge]struct{}
	refusals  map[[2]identity.AgentID]time.Time
	buffer    int64 // allowances of all bridges
	refused   int64 // requests and bridges refused
	full      int64 // bridges among them for which there was no memory
	ticking   bool  // somebody looks after times
}

// contract is what a connection was granted. Its fields are guarded by
// Service.mu but for the first two, which are static.
type contract struct {
	policy  *Policy
	asn     uint32
	expires time.Time
	bridges int
	agents  map[identity.AgentID]struct{}
}

// New makes the service of a node.
func New(n Node, p Policy) *Service {
	return &Service{
		node: n, policy: p.withDefaults(), contracts: make(map[Client]*contract),
		agents: make(map[identity.AgentID][]Client), bridges: make(map[*bridge]struct{}),
		refusals: make(map[[2]identity.AgentID]time.Time),
	}
}

// Request answers a peer that asks for a contract, or renews it. A nil Service
// refuses.
func (s *Service) Request(c Client) {
	why := "this node does not relay"
	if s != nil {
		s.mu.Lock()
		why = s.grant(c)
		s.mu.Unlock()
	}
	if why != "" {
		c.Conn().SendError(conn.RelayRefused, why)
		return
	}
	c.Conn().Send(&mux.Message{Kind: mux.RelayAccept})
	if !c.Conn().DocumentOnly() {
		p := &s.policy
		c.Conn().Send(&mux.Message{Kind: mux.RelayTerms, Terms: mux.Terms{
			ExpireMs:    uint64(p.Duration.Milliseconds()),
			MaxCircuits: uint32(p.Bridges), MaxBytes: p.Bytes, MaxMs: uint64(p.Time.Milliseconds()),
		}})
	}
	s.keepTime()
}

// grant gives or renews a contract; it returns why not. It is called with the
// lock held.
func (s *Service) grant(client Client) string {
	now := time.Now()
	if c := s.contracts[client]; c != nil {
		c.expires = now.Add(s.policy.Duration)
		return ""
	}
	asn := uint32(0)
	if s.policy.ASN != nil {
		asn = s.policy.ASN(client.Address())
	}
	sameAddress, sameASN := 0, 0
	for other, c := range s.contracts {
		if other.Address() == client.Address() {
			sameAddress++
		}
		if c.asn == asn && asn != 0 {
			sameASN++
		}
	}
	why := ""
	switch {
	case client.Peer() == "":
		why = "the connection does not prove who asks"
	case !s.allows(client):
		why = "this relay is not for you"
	case len(s.contracts) >= s.policy.Contracts:
		why = "this relay has no contract left"
	case sameAddress >= s.policy.PerAddress:
		why = "this relay has no contract left for your address"
	case sameASN >= s.policy.PerASN:
		why = "this relay has no contract left for your network"
	}
	if why != "" {
		s.refused++
		return why
	}
	s.contracts[client] = &contract{policy: &s.policy, asn: asn, expires: now.Add(s.policy.Duration), agents: make(map[identity.AgentID]struct{})}
	return ""
}

// live is the contract of a connection, if it has not expired. It is called
// with the lock held.
func (s *Service) live(client Client) *contract {
	if c := s.contracts[client]; c != nil && time.Now().Before(c.expires) {
		return c
	}
	return nil
}

// Gone ends what a connection had that is over.
func (s *Service) Gone(client Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone(client)
}

// gone is called with the lock held.
func (s *Service) gone(client Client) {
	if c := s.contracts[client]; c != nil {
		for a := range c.agents {
			s.unregister(client, a)
		}
		delete(s.contracts, client)
	}
}

// Holds reports whether a connection has a contract.
func (s *Service) Holds(client Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contracts[client] != nil
}

// Stats is the service at one moment.
type Stats struct {
	Contracts, MaxContracts int
	Registered              int // agents reached through this node
	Bridges                 int
	Bytes                   int64 // forwarded
	Buffer, MaxBuffer       int64 // what bridges may hold, bytes
	Refused                 int64 // requests and bridges
	Full                    int64 // bridges among them for which there was no memory
}

// Stats counts.
func (s *Service) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Contracts: len(s.contracts), MaxContracts: s.policy.Contracts, Registered: len(s.agents), Bridges: len(s.bridges),
		Bytes: s.bytes.Load(), Buffer: s.buffer, MaxBuffer: s.policy.Buffer, Refused: s.refused, Full: s.full,
	}
}

// Register notes that an agent has proved itself on a connection: under a
// contract it is reached from then on. It reports whether it is.
func (s *Service) Register(client Client, a identity.AgentID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.register(client, a)
}

// register is called with the lock held.
func (s *Service) register(client Client, a identity.AgentID) bool {
	c := s.contracts[client]
	if c == nil || len(c.agents) >= maxRegistered {
		return false
	}
	if _, there := c.agents[a]; !there {
		c.agents[a] = struct{}{}
		s.agents[a] = append(s.agents[a], client)
	}
	return true
}

// unregister is called with the lock held.
func (s *Service) unregister(client Client, a identity.AgentID) {
	if c := s.contracts[client]; c != nil {
		delete(c.agents, a)
	}
	if rest := slices.DeleteFunc(s.agents[a], func(o Client) bool { return o == client }); len(rest) > 0 {
		s.agents[a] = rest
	} else {
		delete(s.agents, a)
	}
}

package channel

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/channel/internal/conn"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/wire/mux"
)

// Times and bounds of a relay, docs/spec/channels.md §11.
const (
	expiryGrace    = 30 * time.Second // bridges of an expired contract
	idleBridge     = 2 * time.Minute
	refusalMemory  = time.Minute
	maxRefusals    = 4096
	maxRegistered  = 1024 // agents a contract registers
	relayTick      = time.Second
	registryDomain = "parley/relay"
)

// RelayPolicy says for whom a node relays, and how much. Zero values are the
// defaults, given behind each.
type RelayPolicy struct {
	Duration   time.Duration // of a contract; 1 h
	Contracts  int           // 128
	PerAddress int           // contracts from one address; 8
	PerASN     int           // contracts from one autonomous system, where ASN is set; 32
	Bridges    int           // at once, per contract; 16
	Bytes      uint64        // per bridge and direction; no limit
	Time       time.Duration // per bridge; no limit
	Buffer     int64         // what all bridges may hold, bytes; 384 MiB

	// Contract says whether a peer may have a contract, and Agent whether a peer
	// may on whose connection this agent has proved itself. Where both are nil
	// everybody may.
	Contract func(peer identity.PeerID) bool
	Agent    func(agent identity.AgentID) bool
	// Bridge says whether one agent may reach the other; nil lets everybody.
	Bridge func(from, to identity.AgentID) bool
	// ASN gives the number of the autonomous system of an address: an IPv4 address
	// or the first of an IPv6 /64. 0 where it is not known; nil knows none.
	ASN func(address string) uint32
}

// PublicRelay is the profile that serves strangers: enough to find a direct path.
func PublicRelay() RelayPolicy { return RelayPolicy{Bytes: 128 << 10, Time: 2 * time.Minute} }

// OwnRelay is the profile that serves the agents and peers of a list, without
// limits on bytes and time.
func OwnRelay(allow ...identity.PeerID) RelayPolicy { return RelayPolicy{}.For(allow...) }

// For is p for the agents and peers of a list alone; an agent may be named by its
// peer id.
func (p RelayPolicy) For(allow ...identity.PeerID) RelayPolicy {
	agents := make(map[identity.AgentID]struct{}, len(allow))
	for _, id := range allow {
		if a, err := identity.AgentOf(id); err == nil {
			agents[a] = struct{}{}
		}
	}
	p.Contract = func(id identity.PeerID) bool { return slices.Contains(allow, id) }
	p.Agent = func(a identity.AgentID) bool { _, ok := agents[a]; return ok }
	return p
}

// allows reports whether the policy serves a connection. It is called with the
// node's lock held.
func (p *RelayPolicy) allows(l *link) bool {
	if p.Contract == nil && p.Agent == nil || p.Contract != nil && p.Contract(l.remote) {
		return true
	}
	if p.Agent != nil {
		for a := range l.proven {
			if p.Agent(a) {
				return true
			}
		}
	}
	return false
}

func (p RelayPolicy) withDefaults() RelayPolicy {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&p.Contracts, 128)
	def(&p.PerAddress, 8)
	def(&p.PerASN, 32)
	def(&p.Bridges, 16)
	if p.Duration == 0 {
		p.Duration = time.Hour
	}
	if p.Buffer == 0 {
		p.Buffer = 384 << 20
	}
	return p
}

// relay is the relay service of a node. Its fields are guarded by Node.mu where
// nothing else is said.
type relay struct {
	node      *Node       // static
	policy    RelayPolicy // static
	contracts map[*link]*contract
	agents    map[identity.AgentID][]*link // registered, newest last
	bridges   map[*bridge]struct{}
	refusals  map[[2]identity.AgentID]time.Time
	buffer    int64        // allowances of all bridges
	bytes     atomic.Int64 // forwarded in all
	refused   int64        // requests and bridges refused
	ticking   bool         // somebody looks after times
}

// contract is what a connection was granted.
type contract struct {
	policy  *RelayPolicy // static
	asn     uint32       // static
	expires time.Time    // guarded by Node.mu, as what follows
	bridges int
	agents  map[identity.AgentID]struct{}
}

// RelayFor begins to relay for others by a policy, from now on. The node needs
// Config.Key for it.
func (n *Node) RelayFor(p RelayPolicy) error {
	if n.cfg.Key == nil {
		return identity.Errorf(identity.CodeInternal, "channel: a relay needs the node's key")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.relay = &relay{
		node: n, policy: p.withDefaults(), contracts: make(map[*link]*contract),
		agents: make(map[identity.AgentID][]*link), bridges: make(map[*bridge]struct{}),
		refusals: make(map[[2]identity.AgentID]time.Time),
	}
	return nil
}

// request answers a peer that asks for a contract, or renews it.
func (n *Node) request(l *link) {
	n.mu.Lock()
	r := n.relay
	why := "this node does not relay"
	if r != nil {
		why = r.grant(l)
	}
	n.mu.Unlock()
	if why != "" {
		l.conn.Send(&mux.Message{Kind: mux.Error, Channel: mux.WholeConnection, Code: mux.RelayRefused, Text: why})
		return
	}
	l.conn.Send(&mux.Message{Kind: mux.RelayAccept})
	if !l.conn.DocumentOnly() {
		p := &r.policy
		l.conn.Send(&mux.Message{Kind: mux.RelayTerms, Terms: mux.Terms{
			ExpireMs:    uint64(p.Duration.Milliseconds()),
			MaxCircuits: uint32(p.Bridges), MaxBytes: p.Bytes, MaxMs: uint64(p.Time.Milliseconds()),
		}})
	}
	n.keepRelay(r)
}

// grant gives or renews a contract; it returns why not. It is called with the
// lock held.
func (r *relay) grant(l *link) string {
	now := time.Now()
	if c := r.contracts[l]; c != nil {
		c.expires = now.Add(r.policy.Duration)
		return ""
	}
	asn := uint32(0)
	if r.policy.ASN != nil {
		asn = r.policy.ASN(l.address)
	}
	sameAddress, sameASN := 0, 0
	for other, c := range r.contracts {
		if other.address == l.address {
			sameAddress++
		}
		if c.asn == asn && asn != 0 {
			sameASN++
		}
	}
	why := ""
	switch {
	case l.remote == "":
		why = "the connection does not prove who asks"
	case !r.policy.allows(l):
		why = "this relay is not for you"
	case len(r.contracts) >= r.policy.Contracts:
		why = "this relay has no contract left"
	case sameAddress >= r.policy.PerAddress:
		why = "this relay has no contract left for your address"
	case sameASN >= r.policy.PerASN:
		why = "this relay has no contract left for your network"
	}
	if why != "" {
		r.refused++
		return why
	}
	r.contracts[l] = &contract{policy: &r.policy, asn: asn, expires: now.Add(r.policy.Duration), agents: make(map[identity.AgentID]struct{})}
	return ""
}

// register notes that an agent is reached over a connection under a contract. It
// is called with the lock held.
func (r *relay) register(l *link, a identity.AgentID) bool {
	c := r.contracts[l]
	if c == nil || len(c.agents) >= maxRegistered {
		return false
	}
	if _, there := c.agents[a]; !there {
		c.agents[a] = struct{}{}
		r.agents[a] = append(r.agents[a], l)
	}
	return true
}

// unregister is called with the lock held.
func (r *relay) unregister(l *link, a identity.AgentID) {
	if c := r.contracts[l]; c != nil {
		delete(c.agents, a)
	}
	if rest := slices.DeleteFunc(r.agents[a], func(o *link) bool { return o == l }); len(rest) > 0 {
		r.agents[a] = rest
	} else {
		delete(r.agents, a)
	}
}

// gone ends what a connection had. It is called with the lock held.
func (r *relay) gone(l *link) {
	if c := r.contracts[l]; c != nil {
		for a := range c.agents {
			r.unregister(l, a)
		}
		delete(r.contracts, l)
	}
}

// live is the contract of a connection, if it has not expired. It is called
// with the lock held.
func (r *relay) live(l *link) *contract {
	if c := r.contracts[l]; c != nil && time.Now().Before(c.expires) {
		return c
	}
	return nil
}

// registration accepts the channel by which an agent registers: to the node's own
// id, under a contract. It carries nothing, and its end ends the registration.
func (in *incoming) registration() (err *Error, handled bool) {
	l, n := in.link, in.link.node
	n.mu.Lock()
	mine := in.addr.to == n.self && n.relay != nil && n.relay.live(l) != nil
	ok := mine && in.verified && n.relay.register(l, in.addr.from)
	n.mu.Unlock()
	if !mine {
		return nil, false
	}
	if !ok {
		return errorf(RelayRefused, "the agent is not proven, or there are too many"), true
	}
	var proof []byte
	if binding, bound := l.conn.Binding(); bound {
		proof = n.cfg.Key.Sign(in.addr.toDigest(binding, in.msg.Channel))
	}
	l.conn.Accept(in.msg, conn.Accepting{Proof: proof, Sink: &registered{node: n, link: l, agent: in.addr.from}})
	return nil, true
}

// registered is the channel of a registered agent at the relay.
type registered struct {
	node  *Node
	link  *link
	agent identity.AgentID
}

// Content is dropped: the channel carries nothing.
func (*registered) Content(*conn.Stream, []byte, []byte) {}

// Window is of no use here.
func (*registered) Window(*conn.Stream, uint32) {}

// Sent is of no use here.
func (*registered) Sent(*conn.Stream) {}

// Ended removes the agent.
func (g *registered) Ended(*conn.Stream, *Error) {
	g.node.mu.Lock()
	defer g.node.mu.Unlock()
	if g.node.relay != nil {
		g.node.relay.unregister(g.link, g.agent)
	}
}

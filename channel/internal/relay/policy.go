package relay

import (
	"slices"
	"time"

	"github.com/parley-p2p/parley/identity"
)

// Policy says for whom a node relays, and how much. Zero values are the
// defaults, given behind each.
type Policy struct {
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

// Public is the profile that serves strangers: enough to find a direct path.
func Public() Policy { return Policy{Bytes: 128 << 10, Time: 2 * time.Minute} }

// For is p for the agents and peers of a list alone; an agent may be named by its
// peer id.
func (p Policy) For(allow ...identity.PeerID) Policy {
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

// allows reports whether the policy serves a connection.
func (s *Service) allows(c Client) bool {
	p := &s.policy
	if p.Contract == nil && p.Agent == nil || p.Contract != nil && p.Contract(c.Peer()) {
		return true
	}
	return p.Agent != nil && s.node.Proven(c, p.Agent)
}

func (p Policy) withDefaults() Policy {
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

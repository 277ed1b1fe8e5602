package topic

import (
	"slices"
	"time"

	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// Who is in a room: the sessions of this node, the nodes that the router sees in
// the topic, and the pages that those tell of. All of it runs in the room's loop.

// subscribe adds a session, or gives it a new state, and lists who is here.
func (r *room) subscribe(p *Page, state []byte) ([]network.Member, error) {
	s, there := r.sessions[p]
	if !there {
		if err := r.startReading(); err != nil {
			return nil, err
		}
		s = &session{page: p}
	}
	m, changed, full := r.members.set(p.id, "", state)
	if full {
		r.stopUnused()
		return nil, identity.Errorf(identity.CodeLimit, "too many members in the topic, limit %d", MaxMembers)
	}
	if !there {
		r.sessions[p] = s
		r.locals[p.id]++
	}
	s.told, s.pending = false, nil
	if changed {
		r.tell(m, true)
	}
	if changed || !there && r.locals[p.id] == 1 {
		r.node.announce(r.wire, p, state)
	}
	r.renewView()
	r.wakeKeeper()
	return r.members.others(p.id), nil
}

// tellPending tells the presence that came while Subscribe returned.
func (r *room) tellPending(p *Page) {
	s, ok := r.sessions[p]
	if !ok {
		return
	}
	for _, e := range s.pending {
		p.sink.Presence(r.name, e.member, e.joined)
	}
	s.told, s.pending = true, nil
}

func (r *room) unsubscribe(p *Page) {
	if _, there := r.sessions[p]; !there {
		return
	}
	delete(r.sessions, p)
	if r.locals[p.id]--; r.locals[p.id] == 0 {
		delete(r.locals, p.id)
		r.removeMember(p.id, "")
		r.node.withdraw(r.wire, p.id)
	}
	r.renewView()
	r.stopUnused()
}

func (r *room) stopUnused() {
	if len(r.sessions) == 0 {
		r.stopReading()
	}
}

func (r *room) peerJoined(p identity.PeerID) {
	if _, there := r.remotes[p]; there {
		return
	}
	q := &remote{plain: r.node.network == nil, since: time.Now()}
	r.remotes[p] = q
	r.order.disturb(time.Now())
	if r.node.network != nil {
		q.plain = r.node.meetNode(p, r.wire)
	}
	if r.node.router.meter.isUp(p) {
		r.peerReady(p)
	}
	r.renewView()
}

// peerReady is called when the router can send to p.
func (r *room) peerReady(p identity.PeerID) {
	q, there := r.remotes[p]
	if !there || q.ready {
		return
	}
	q.ready = true
	r.renewView()
	r.wakeKeeper()
	r.classify(p, q.plain)
	r.admit(p)
}

func (r *room) peerLeft(p identity.PeerID) {
	q, there := r.remotes[p]
	if !there {
		return
	}
	delete(r.remotes, p)
	if q.plain {
		r.removeMember(p, p)
	}
	r.order.disturb(time.Now())
	r.node.partNode(p, r.wire)
	r.renewView()
}

// classify records whether p speaks presence; if it doesn't it is a member
// itself.
func (r *room) classify(p identity.PeerID, plain bool) {
	q, there := r.remotes[p]
	if !there {
		return
	}
	if q.plain && !plain {
		r.removeMember(p, p)
	}
	q.plain = plain
	if plain && q.ready {
		r.setMember(p, p, nil)
	}
}

// remoteMember records what node says of one of its pages. It is told only when
// the router can send to that node, or soon after, so that a page which greets a
// new member is heard.
func (r *room) remoteMember(p, node identity.PeerID, state []byte, joined bool) {
	if !joined {
		delete(r.early[node], p)
		r.removeMember(p, node)
		return
	}
	if q, there := r.remotes[node]; there && q.ready {
		r.setMember(p, node, state)
		return
	}
	waiting, there := r.early[node]
	if !there {
		waiting = make(map[identity.PeerID][]byte)
		r.early[node] = waiting
		time.AfterFunc(earlyWait, func() { r.post(func() { r.admit(node) }) })
	}
	waiting[p] = state
}

// admit makes those members who waited for their node.
func (r *room) admit(node identity.PeerID) {
	waiting := r.early[node]
	delete(r.early, node)
	for p, state := range waiting {
		r.setMember(p, node, state)
	}
}

func (r *room) setMember(p, node identity.PeerID, state []byte) {
	m, changed, full := r.members.set(p, node, state)
	if full {
		r.node.counts.unlisted.Add(1)
	}
	if changed {
		r.tell(m, true)
	}
}

func (r *room) removeMember(p, node identity.PeerID) {
	m, left, changed := r.members.remove(p, node)
	if left {
		r.tell(m, false)
	} else if changed {
		r.tell(m, true)
	}
}

// tell tells every session but the member's own.
func (r *room) tell(m network.Member, joined bool) {
	for page, s := range r.sessions {
		if page.id == m.Peer {
			continue
		}
		if s.told {
			page.sink.Presence(r.name, m, joined)
		} else {
			s.pending = append(s.pending, presenceEvent{m, joined})
		}
	}
}

func (r *room) renewView() {
	v := &view{locals: len(r.locals), stale: make(chan struct{})}
	for p := range r.locals {
		if v.locals == 1 {
			v.one = p
		}
		break
	}
	for p, q := range r.remotes {
		if q.ready {
			v.ready = append(v.ready, p)
		} else {
			v.pending++
			if until := q.since.Add(readyWait); until.After(v.until) {
				v.until = until
			}
		}
	}
	slices.Sort(v.ready)
	close(r.view.Swap(v).stale)
}

func (r *room) wakeKeeper() {
	select {
	case r.somebody <- struct{}{}:
	default:
	}
}

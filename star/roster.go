package star

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/socketio/wire"
	"github.com/parley-p2p/parley/star/socketio/ws"
)

// notice is a member as others hear of it. It outlives the member in the log, so
// it holds nothing else.
type notice struct {
	// Static after construction.
	addr  string // canonical
	frame []byte // the announcement as a packet, framed
	head  int8   // of that, the header's length

	gone atomic.Bool
}

func newNotice(addr string) *notice {
	var b wire.Builder
	text := b.Event(nil, wire.NoAck, eventPeer).Str(addr).Done()
	frame := ws.AppendFrame(nil, ws.Text, text)
	return &notice{addr: addr, frame: frame, head: int8(len(frame) - len(text))}
}

// text is the announcement as a packet.
func (n *notice) text() []byte { return n.frame[n.head:] }

// quoted is the address as JSON.
func (n *notice) quoted() []byte {
	text := n.text()
	return text[len(`42["`+eventPeer+`",`) : len(text)-1]
}

// member is one address that somebody is at.
type member struct {
	// Static after construction.
	*notice
	place  string   // where it is in the table
	key    string   // hash of the id that was proven; "" without challenge
	sess   *session // nil where another server has it
	server string   // that server

	// Guarded by roster.mu.
	epoch     uint64    // of several owners of an address the highest counts (S-8)
	at        int       // in roster.order
	logged    uint64    // its entry in the log
	announced time.Time // last, to all; or since when it is there
}

// change is one entry of the roster's log.
type change struct {
	*notice
	left bool
}

// logSize is how many changes are kept for those who are behind.
const logSize = 1 << 12

// roster knows who is where. It is one table behind one lock: what is done under
// it takes well under a microsecond.
type roster struct {
	// Static after construction.
	limits *Limits
	names  map[string]bool // hosts that are equal

	mu      sync.RWMutex
	byAddr  map[string]*member
	order   []*member // all, in no particular order
	own     int       // of them, those at this server
	perKey  map[string]int
	perIP   map[netip.Prefix]int
	log     []change // ring; entry v is at v % logSize
	version uint64   // entries ever written
	epoch   uint64

	receivers []*session // those with an address here, in no particular order
}

func newRoster(limits *Limits, names []string) *roster {
	r := &roster{limits: limits, names: map[string]bool{}, byAddr: map[string]*member{}, perKey: map[string]int{},
		perIP: map[netip.Prefix]int{}}
	for _, n := range names {
		r.names[strings.ToLower(n)] = true
	}
	return r
}

// lookup is the key of the table: the address, with one name for hosts that are
// equal.
func (r *roster) lookup(addr string) string {
	if len(r.names) == 0 {
		return addr
	}
	s, err := address.Parse(addr)
	if err != nil || !r.names[strings.ToLower(s.Host)] {
		return addr
	}
	s.Kind, s.Host = "dns", "*"
	return s.String()
}

// find gives the member at an address; nil where there is none.
func (r *roster) find(addr string) *member {
	key := r.lookup(addr)
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byAddr[key]
}

// holds says whether sess is at addr, as it was joined.
func (r *roster) holds(sess *session, addr string) bool {
	m := r.find(addr)
	return m != nil && m.sess == sess && m.addr == addr
}

// joined is the outcome of a join.
type joined struct {
	m    *member
	prev *member // whose place it takes; nil where there was none
	say  string  // why not; "" is success
	hit  string  // the limit that was met
	same bool    // the session was there already
}

// may says what a join would come to now.
func (r *roster) may(sess *session, addr, key string) joined {
	at := r.lookup(addr)
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.judge(at, sess, addr, key)
}

// judge is may; the caller holds mu.
func (r *roster) judge(at string, sess *session, addr, key string) joined {
	prev := r.byAddr[at]
	switch {
	case prev != nil && prev.sess == sess && prev.addr == addr:
		return joined{m: prev, same: true}
	case prev != nil && prev.sess != sess && key == "":
		return joined{prev: prev, say: sayInUse}
	}
	if limit := r.roomFor(sess, key, prev); limit != "" {
		return joined{prev: prev, say: sayTooMany, hit: limit}
	}
	return joined{prev: prev}
}

// join puts sess at addr. With a key, which must be proven, it takes the address
// from another session (S-8); without, a taken address is in use. An epoch, where
// it isn't 0, is the registry's; a higher one that came meanwhile stays.
func (r *roster) join(sess *session, addr, key string, epoch uint64, now time.Time) joined {
	at := r.lookup(addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.judge(at, sess, addr, key)
	if j.say != "" || j.same {
		return j
	}
	if epoch == 0 {
		r.epoch++
		epoch = r.epoch
	} else if j.prev != nil && j.prev.epoch > epoch {
		return joined{prev: j.prev, say: sayInUse}
	}
	j.m = &member{notice: newNotice(addr), place: at, key: key, sess: sess, epoch: epoch, announced: now}
	if j.prev != nil {
		r.takeOut(j.prev)
	}
	r.putIn(j.m)
	return j
}

// roomFor names the limit of addresses that another one would be above; "" where
// there is room. The caller holds mu.
func (r *roster) roomFor(sess *session, key string, prev *member) (limit string) {
	l := r.limits
	switch {
	case len(sess.members) >= l.AddressesPerSession:
		return limitAddrsSession
	case (prev == nil || prev.sess == nil) && r.own >= l.Addresses:
		return limitAddrs
	case key != "" && prev == nil && r.perKey[key] >= l.AddressesPerKey:
		return limitAddrsKey
	case r.perIP[sess.ip] >= l.AddressesPerIP:
		return limitAddrsIP
	}
	return ""
}

// putIn and takeOut keep all tables in step. The caller holds mu.
func (r *roster) putIn(m *member) {
	r.byAddr[m.place] = m
	m.at = len(r.order)
	r.order = append(r.order, m)
	if m.key != "" {
		r.perKey[m.key]++
	}
	if m.sess != nil {
		r.own++
		r.perIP[m.sess.ip]++
		if m.sess.members = append(m.sess.members, m); len(m.sess.members) == 1 {
			m.sess.at = len(r.receivers)
			r.receivers = append(r.receivers, m.sess)
		}
	}
	m.logged = r.version
	r.write(change{notice: m.notice})
}

func (r *roster) takeOut(m *member) {
	m.gone.Store(true)
	delete(r.byAddr, m.place)
	last := r.order[len(r.order)-1]
	r.order[m.at], last.at = last, m.at
	r.order[len(r.order)-1] = nil
	r.order = r.order[:len(r.order)-1]
	count(r.perKey, m.key)
	if s := m.sess; s != nil {
		r.own--
		count(r.perIP, s.ip)
		for i, own := range s.members {
			if own == m {
				s.members = append(s.members[:i:i], s.members[i+1:]...)
				break
			}
		}
		if len(s.members) == 0 {
			last := r.receivers[len(r.receivers)-1]
			r.receivers[s.at], last.at = last, s.at
			r.receivers[len(r.receivers)-1] = nil
			r.receivers = r.receivers[:len(r.receivers)-1]
			s.members = nil
		}
	}
	r.write(change{notice: m.notice, left: true})
}

// count takes one off, and the entry with the last.
func count[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}

func (r *roster) write(c change) {
	if len(r.log) < logSize {
		r.log = append(r.log, c)
	} else {
		r.log[r.version%logSize] = c
	}
	r.version++
}

// leave takes sess from addr; nil where it is not there.
func (r *roster) leave(sess *session, addr string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.byAddr[r.lookup(addr)]
	if m == nil || m.sess != sess || m.addr != addr {
		return nil
	}
	r.takeOut(m)
	return m
}

// leaveAll takes sess from everywhere: O(own) (S-16).
func (r *roster) leaveAll(sess *session) (left []*member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(sess.members) > 0 {
		m := sess.members[len(sess.members)-1]
		left = append(left, m)
		r.takeOut(m)
	}
	return left
}

// drop takes out a member that another server's word has replaced; false where it
// is gone already.
func (r *roster) drop(m *member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.gone.Load() {
		return false
	}
	r.takeOut(m)
	return true
}

// here is how many of the members are at this server.
func (r *roster) here() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.own
}

// size is the number of members, and of sessions that have an address here.
func (r *roster) size() (members, receivers int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.order), len(r.receivers)
}

// addresses lists all members.
func (r *roster) addresses() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]string, len(r.order))
	for i, m := range r.order {
		list[i] = m.addr
	}
	return list
}

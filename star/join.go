package star

import (
	"time"

	"github.com/parley-p2p/parley/flow"
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/socketio"
	"github.com/parley-p2p/parley/star/socketio/wire"
)

// A join (star.md §6.2), in the session's receive path:
//
//	1. arguments, rates, the address
//	2. without challenge: into the roster
//	3. a key that matches the address: a nonce
//	4. a signature to an open challenge: verified, at most as many at a time as
//	   there are cores (S-13); right ones enter the roster
//	5. others hear, then the answer with the list
//
// A step that fails answers with a word of words.go.

// onJoin is ss-join (address, data, ack).
func (s *session) onJoin(e *socketio.Event) {
	say, raw := s.join(e, time.Now())
	switch {
	case say != "":
		s.srv.metrics.join(false)
		s.ack(e, say)
	case e.AckID() == wire.NoAck:
	default:
		s.answerRaw(e.AckID(), raw)
	}
}

// answerRaw acknowledges with [null, …], raw being the rest.
func (s *session) answerRaw(id int64, raw []byte) {
	var b wire.Builder
	text := b.Ack(make([]byte, 0, len(raw)+32), id).Raw("null").RawBytes(raw).Done()
	_ = s.sock.Send(flow.Control, socketio.Msg{Text: text, By: s.sock.Flusher()}) // one that ends needs no answer
}

func (s *session) join(e *socketio.Event, now time.Time) (say string, raw []byte) {
	l, srv := s.srv.limits, s.srv
	addr, ok1 := e.Text(0)
	data, ok2 := e.Text(1)
	if !ok1 || !ok2 || e.AckID() == wire.NoAck {
		return sayBadArguments, nil
	}
	if s.joins.take(1, l.Joins, l.JoinBurst, now) > 0 {
		srv.metrics.limit(limitJoins)
		return sayRate, nil
	}
	if ok, _ := srv.joinRate.Allow(1, now); !ok {
		srv.metrics.limit(limitServerJoins)
		return sayBusy, nil
	}
	if srv.draining.Load() {
		return sayShutdown, nil
	}
	addr, err := srv.canonical(addr)
	if err != nil {
		return err.Error(), nil
	}
	switch {
	case srv.opts.OpenJoins:
		if say, raw = s.enter(addr, "", now); say == "" {
			srv.metrics.joinStarted()
		}
		return say, raw
	case data == "":
		return sayNoKey, nil
	}
	return s.prove(addr, data, now)
}

// canonical reads an address as the server's mode wants it.
func (srv *Server) canonical(addr string) (string, error) {
	if !srv.opts.AnyMultiaddr {
		s, err := address.Parse(addr)
		if err != nil {
			return "", err
		}
		return s.String(), nil
	}
	return address.Canonical(addr)
}

// prove is steps 3 and 4.
func (s *session) prove(addr, data string, now time.Time) (say string, raw []byte) {
	ch, stale := s.challenges.find(addr, now)
	if ch == nil || len(data) >= 2*minKeyBytes {
		if k, ok := parseKey(data); ok && k.id == address.ID(addr) {
			return s.challenge(addr, k, now)
		} else if ch == nil {
			return s.withoutChallenge(addr, stale, ok)
		}
	}
	start := time.Now()
	result, ok := s.verify(ch, data)
	if !ok {
		return sayBusy, nil
	}
	s.srv.metrics.verified(ch.key.kind(), time.Since(start))
	switch result {
	case impossible:
		return sayCryptoError, nil
	case wrong:
		if ch.tries++; ch.tries >= s.srv.limits.WrongTries {
			s.srv.metrics.limit(limitWrong)
			ch.over, ch.key = true, nil
		}
		return sayWrong, nil
	}
	s.challenges.drop(addr)
	return s.enter(addr, ch.key.id, now)
}

// minKeyBytes is the length of the shortest key, of Ed25519.
const minKeyBytes = 36

// withoutChallenge answers data that is no key for the address, where no challenge
// is open.
func (s *session) withoutChallenge(addr string, stale, isKey bool) (say string, raw []byte) {
	switch {
	case isKey:
		return sayOtherID, nil
	case s.srv.roster.holds(s, addr): // a signature once more: nothing changes
		return "", s.srv.listFor(s, addr)
	case stale:
		s.srv.metrics.limit(limitChallengeLife)
		return sayExpired, nil
	}
	return sayBadKey, nil
}

func (s *session) challenge(addr string, k *publicKey, now time.Time) (say string, raw []byte) {
	ch, dropped, err := s.challenges.open(addr, k, s.srv.nonces, &s.srv.limits, now)
	if dropped {
		s.srv.metrics.limit(limitChallenges)
	}
	if err != nil {
		s.srv.log.Error("no random bytes for a nonce", "error", err)
		return sayBusy, nil
	}
	s.srv.metrics.joinStarted()
	return "", wire.AppendQuote(nil, ch.nonce)
}

// verify checks a signature when its turn comes; false where too many wait. The
// session's own events wait meanwhile, those of others don't.
func (s *session) verify(ch *challenge, signature string) (v verdict, ok bool) {
	srv := s.srv
	if srv.verifying.Add(1) > int64(srv.limits.Verifying+cap(srv.verifiers)) {
		srv.verifying.Add(-1)
		srv.metrics.limit(limitVerifying)
		return wrong, false
	}
	defer srv.verifying.Add(-1)
	if !s.awaitVerifier() {
		return wrong, false
	}
	defer func() { <-srv.verifiers }()
	return ch.key.verify(ch.nonce, signature), true
}

// awaitVerifier waits for a place to verify; false where the session ends.
func (s *session) awaitVerifier() bool {
	select {
	case s.srv.verifiers <- struct{}{}:
		return true
	default:
	}
	s.sock.Hold()
	defer s.sock.Release()
	select {
	case s.srv.verifiers <- struct{}{}:
		return true
	case <-s.sock.Context().Done():
		return false
	}
}

// enter is step 5. key is the proven id, "" without challenge.
func (s *session) enter(addr, key string, now time.Time) (say string, raw []byte) {
	srv := s.srv
	key = keyHash(key)
	j := srv.roster.may(s, addr, key)
	if j.say == sayInUse && !j.prev.sess.awake(s) {
		j.prev.sess.sock.Close(closeStale, errStale)
		if srv.roster.drop(j.prev) {
			srv.left(j.prev)
		}
		j = srv.roster.may(s, addr, key)
	}
	if j.hit != "" {
		srv.metrics.limit(j.hit)
	}
	if j.say != "" {
		return j.say, nil
	}
	if !j.same {
		epoch, say := s.claim(addr, key)
		if say != "" {
			return say, nil
		}
		if j = srv.roster.join(s, addr, key, epoch, now); j.say != "" {
			if epoch != 0 {
				srv.opts.Registry.Release(srv.roster.lookup(addr), epoch)
			}
			return j.say, nil
		}
		if j.prev != nil && j.prev.sess != nil {
			j.prev.sess.tellLost(j.prev.addr, "taken over by its owner")
		}
		s.idleSince.Store(0)
		srv.announcer.start(s, j.m, s.since)
		srv.announcer.changed(now)
	}
	srv.metrics.join(true)
	return "", srv.listFor(s, addr)
}

// listFor is the end of a successful answer.
func (srv *Server) listFor(s *session, addr string) []byte {
	return srv.announcer.list(s, addr)
}

// awake probes the owner of an address (S-8): anything it sends counts.
func (s *session) awake(asker *session) bool {
	if s == nil {
		return true // another server's: its lease says that it lives
	}
	asker.sock.Hold()
	defer asker.sock.Release()
	return s.sock.Alive(asker.sock.Context(), s.srv.limits.Probe)
}

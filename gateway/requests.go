package gateway

import (
	"context"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-p2p/parley/gateway/link"
	"github.com/parley-p2p/parley/identity"
	"github.com/parley-p2p/parley/network"
)

// request is something that the page asked for and that is not settled.
type request struct {
	id     int64
	bytes  int64
	silent bool   // answered, but not settled: it holds bytes of the outbox alone (a v1 send without ack)
	cancel func() // nil where nothing can be stopped
}

// begin takes room for a request of size bytes, and waits for it: the page isn't
// read meanwhile. The error means that ctx ended and the request was not taken.
func (s *session) begin(ctx context.Context, id int64, size int) (*request, error) {
	r := &request{id: id, bytes: min(int64(size)+sendOverhead, int64(s.g.cfg.OutboxTotal))}
	if !s.requests.TryTake(1) {
		if err := s.requests.Take(ctx, 1); err != nil {
			return nil, err
		}
	}
	if !s.outgoing.TryTake(r.bytes) {
		if err := s.outgoing.Take(ctx, r.bytes); err != nil {
			s.requests.Give(1, int64(s.g.cfg.Requests))
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errClosed
	}
	if s.pending == nil {
		s.pending = make(map[*request]struct{})
	}
	s.pending[r] = struct{}{}
	return r, nil
}

// settle takes a request off the list; it is false where that has been done.
func (s *session) settle(r *request) bool {
	ok, _ := s.settleOne(r)
	return ok
}

// settleOne is settle, and tells whether it was the only request.
func (s *session) settleOne(r *request) (ok, lone bool) {
	s.mu.Lock()
	_, ok = s.pending[r]
	delete(s.pending, r)
	counts, lone := !r.silent, len(s.pending) == 0
	s.mu.Unlock()
	if ok && counts {
		s.requests.Give(1, int64(s.g.cfg.Requests))
	}
	if ok {
		s.outgoing.Give(r.bytes, int64(s.g.cfg.OutboxTotal))
	}
	return ok, lone
}

// cancellable notes how an unsettled request is stopped.
func (s *session) cancellable(r *request, cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[r]; ok {
		r.cancel = cancel
	}
}

// cancelRequest stops what can still be stopped of a request.
func (s *session) cancelRequest(id int64) {
	var stop []func()
	s.mu.Lock()
	for r := range s.pending {
		if r.id == id && r.cancel != nil {
			stop = append(stop, r.cancel)
		}
	}
	s.mu.Unlock()
	for _, f := range stop {
		f()
	}
}

// failPending answers everything that is unsettled with an error.
func (s *session) failPending(err error) {
	s.mu.Lock()
	all := make([]*request, 0, len(s.pending))
	for r := range s.pending {
		all = append(all, r)
	}
	s.mu.Unlock()
	for _, r := range all {
		if s.settle(r) && !r.silent {
			s.fail(r.id, err)
		}
	}
}

// answered makes a request one that holds bytes of the outbox alone; it is false
// where it has been settled.
func (s *session) answered(r *request) bool {
	s.mu.Lock()
	_, ok := s.pending[r]
	r.silent = true
	s.mu.Unlock()
	if ok {
		s.requests.Give(1, int64(s.g.cfg.Requests))
	}
	return ok
}

// publish puts a publication on its way, behind those of its topic that wait.
// done is called from another goroutine, unless the session ended.
func (s *session) publish(r *request, topic string, c network.Content) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.cancellable(r, cancel)
	job := func() {
		defer cancel()
		err := link.Guard(s.log, func() error { return s.peer.Publish(ctx, topic, c) })
		if err != nil && ctx.Err() != nil {
			err = &identity.Error{Code: identity.CodeCancelled, Text: "cancelled"}
		}
		if !s.settle(r) {
			return
		}
		if err != nil {
			s.fail(r.id, err)
		} else {
			s.result(r.id, nil)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		cancel()
		return
	}
	if waiting, busy := s.lanes[topic]; busy {
		s.lanes[topic] = append(waiting, job)
		return
	}
	if s.lanes == nil {
		s.lanes = make(map[string][]func())
	}
	s.lanes[topic] = nil
	s.work.Go(func() { s.runLane(topic, job) })
}

// runLane does the publications of one topic in their order, and ends when there
// are no more.
func (s *session) runLane(topic string, job func()) {
	for {
		job()
		s.mu.Lock()
		waiting := s.lanes[topic]
		if len(waiting) == 0 {
			delete(s.lanes, topic)
			s.mu.Unlock()
			return
		}
		job = waiting[0]
		s.lanes[topic] = waiting[1:]
		s.mu.Unlock()
	}
}

// checkTopic refuses names that are too long, empty, hard to tell apart, or
// parley's own (gateway.md §6.1; abuse row 24).
func checkTopic(topic string) error {
	if fault := nameFault(topic); fault != "" {
		return identity.Errorf(identity.CodeMalformed, "invalid topic: %s", fault)
	}
	if topic == "" || strings.HasPrefix(topic, "/parley/") {
		return identity.Errorf(identity.CodeReserved, "topic is reserved: %s", topic)
	}
	return nil
}

// checkProtocol is the same for protocols; what else is reserved the peer knows
// (gateway.md §5.5).
func checkProtocol(p string) error {
	if p == "" {
		return identity.Errorf(identity.CodeReserved, "protocol is reserved: ")
	}
	if fault := nameFault(p); fault != "" {
		return identity.Errorf(identity.CodeReserved, "protocol is reserved: %s", fault)
	}
	return nil
}

// nameFault says what is wrong with a name: length, control characters, or
// characters that turn the direction of writing, so that one name looks like
// another.
func nameFault(name string) string {
	if len(name) > maxName {
		return "over 256 bytes"
	}
	if !utf8.ValidString(name) {
		return "not UTF-8"
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return "has control characters"
		}
	}
	return ""
}

func itoa(n int) string { return strconv.Itoa(n) }

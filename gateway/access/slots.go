package access

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// Slots bounds the connections of an http.Server that are not in a request: who
// has not finished its first header, or keeps a connection open for another
// one. When there are too many the oldest is closed, so a flood of half-open
// upgrades (abuse row 18) costs itself and not the pages. How long one may take
// is the server's ReadHeaderTimeout (row 17).
type Slots struct {
	max int

	mu      sync.Mutex
	waiting *list.List // of net.Conn, oldest first
	at      map[net.Conn]*list.Element
	dropped uint64
}

// NewSlots allows max connections outside of a request; 1,024 when max is 0.
func NewSlots(max int) *Slots {
	if max <= 0 {
		max = 1024
	}
	return &Slots{max: max, waiting: list.New(), at: make(map[net.Conn]*list.Element)}
}

// Install puts the bound on a server. It must be called before the server
// serves, and takes ConnState and ConnContext for itself.
func (s *Slots) Install(server *http.Server) {
	server.ConnState = s.state
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			s.leave(c)
		}
		next.ServeHTTP(w, r)
	})
}

type connKey struct{}

// Waiting is the number of connections outside of a request, and how many were
// closed because there were too many.
func (s *Slots) Waiting() (now int, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting.Len(), s.dropped
}

func (s *Slots) state(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew, http.StateIdle:
		s.enter(c)
	case http.StateHijacked, http.StateClosed:
		s.leave(c)
	}
}

func (s *Slots) enter(c net.Conn) {
	s.mu.Lock()
	if s.at[c] == nil {
		s.at[c] = s.waiting.PushBack(c)
	}
	var oldest net.Conn
	if s.waiting.Len() > s.max {
		oldest = s.waiting.Remove(s.waiting.Front()).(net.Conn)
		delete(s.at, oldest)
		s.dropped++
	}
	s.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its goroutine ends with the error that this makes
	}
}

func (s *Slots) leave(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.at[c]; e != nil {
		s.waiting.Remove(e)
		delete(s.at, c)
	}
}

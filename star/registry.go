package star

import (
	"github.com/parley-p2p/parley/star/proxy"
)

// Registry is what several servers behind one name share (star.md §12). A server
// alone has none.
type Registry interface {
	// Ready says whether this server's lease is valid.
	Ready() bool
}

func (srv *Server) registryJoined(_ *session, _ *member) (say string) { return "" }

func (srv *Server) registryLeft(_ []*member) {}

func (srv *Server) dialRemote(_ *session, _ *member, req proxy.Request) { req.Answer(sayNotFound) }

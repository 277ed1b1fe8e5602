package gateway

import (
	"strings"

	"github.com/parley-p2p/parley/gateway/consent"
	"github.com/parley-p2p/parley/identity"
)

// This file keeps a page of another site within what the person allowed it
// (gateway.md §2.8; abuse row 6). A page without a scope may use everything.

func sameScope(a, b *consent.Scope) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

// mayProtocol is nil where the page may use a protocol.
func (s *session) mayProtocol(name string) error {
	if scope := s.visitor.Scope; scope != nil && !scope.Protocol(name) {
		return notAllowed("protocol", name, scope.Protocols)
	}
	return nil
}

// mayTopic is nil where the page may use a topic.
func (s *session) mayTopic(name string) error {
	if scope := s.visitor.Scope; scope != nil && !scope.Topic(name) {
		return notAllowed("topic", name, scope.Topics)
	}
	return nil
}

// mayDial is nil where the page may have the node dial addresses of its choice:
// another site's page could look around in the person's network that way.
func (s *session) mayDial(addresses []string) error {
	if s.visitor.Scope != nil && len(addresses) > 0 {
		return identity.Errorf(identity.CodeForbidden, "pages of other sites may name peers, but no addresses")
	}
	return nil
}

// maySpace is nil where the page may join spaces. The person is asked about
// protocols and topics, not about spaces, so a page with a scope has none.
func (s *session) maySpace() error {
	if s.visitor.Scope != nil {
		return identity.Errorf(identity.CodeForbidden, "pages of other sites can't join spaces: the person was not asked for that")
	}
	return nil
}

func notAllowed(kind, name string, allowed []string) error {
	list := "none"
	if len(allowed) > 0 {
		list = strings.Join(allowed, ", ")
	}
	return identity.Errorf(identity.CodeForbidden, "this page may not use %s %q; it was allowed: %s", kind, name, list)
}

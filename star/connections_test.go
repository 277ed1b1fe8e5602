package star

import (
	"net"
	"net/http"
	"testing"
)

// from is a connection that says where it comes from.
type from struct {
	net.Conn
	addr   string
	closed bool
}

func (c *from) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", c.addr)
	return a
}

func (c *from) Close() error { c.closed = true; return nil }

// TestAbuse18_ConnectionsWithoutSession: connections that have not said what they
// want are bounded by address and in all, and make room when they go.
func TestAbuse18_ConnectionsWithoutSession(t *testing.T) {
	hits := map[string]int{}
	o := &Options{}
	o.Limits.Sessions, o.Limits.SessionsPerIP = 100, 1
	c := newConnections(o, func(limit string) { hits[limit]++ })
	c.perIP, c.all = 3, 5
	open := func(addr string) *from {
		nc := &from{addr: addr}
		c.state(nc, http.StateNew)
		return nc
	}
	first := open("192.0.2.1:1")
	open("192.0.2.1:2")
	open("192.0.2.1:3")
	if nc := open("192.0.2.1:4"); !nc.closed || hits[limitConnsPerIP] != 1 {
		t.Errorf("the fourth of an address: closed %v, %v", nc.closed, hits)
	}
	open("192.0.2.2:1")
	open("192.0.2.3:1")
	if nc := open("192.0.2.4:1"); !nc.closed || hits[limitConns] != 1 {
		t.Errorf("the sixth: closed %v, %v", nc.closed, hits)
	}
	c.state(first, http.StateClosed)
	c.state(first, http.StateClosed) // counts once
	if nc := open("192.0.2.1:5"); nc.closed {
		t.Error("no room after one has gone")
	}
}

package conn

import (
	"fmt"
	"time"

	"github.com/parley-p2p/parley/wire"
	"github.com/parley-p2p/parley/wire/mux"
)

func (c *Conn) handle(m *mux.Message) error {
	if !c.known() {
		if err := c.first(m); err != nil || m.Kind == mux.Hello {
			return err
		}
	}
	switch m.Kind {
	case mux.Content:
		return c.onContent(m)
	case mux.Window:
		return c.onWindow(m)
	case mux.Create:
		return c.onCreate(m)
	case mux.Close:
		return c.onClose(m)
	case mux.Error:
		c.onError(m)
	case mux.RelayRequest, mux.RelayAccept, mux.RelayTerms:
		c.handler.Relay(c, m)
	case mux.Hello:
		return fmt.Errorf("%w: a second hello", wire.ErrMalformed)
	default:
		c.onUnknown(m)
	}
	return nil
}

// first takes the first record: a hello, or proof that the peer is document-only.
func (c *Conn) first(m *mux.Message) error {
	if m.Kind != mux.Hello {
		c.setPeer(peer{documentOnly: true, maxContent: defaultContent, maxChannels: 1 << 30}, [32]byte{})
		return nil
	}
	if len(m.Hello.Nonce) != 32 {
		return fmt.Errorf("%w: hello with a nonce of %d bytes", wire.ErrMalformed, len(m.Hello.Nonce))
	}
	if c.cfg.Local != "" && c.cfg.Local == c.cfg.Remote && !c.cfg.Loopback {
		return fmt.Errorf("%w: both ends are the same peer", wire.ErrMalformed)
	}
	if [32]byte(m.Hello.Nonce) == c.cfg.Nonce {
		return fmt.Errorf("%w: our own hello came back", wire.ErrMalformed)
	}
	c.setPeer(peerOf(&m.Hello), [32]byte(m.Hello.Nonce))
	return nil
}

func (c *Conn) setPeer(p peer, nonce [32]byte) {
	c.mu.Lock()
	if c.known() {
		c.mu.Unlock()
		return
	}
	c.peer, c.peerNonce = p, nonce
	close(c.ready)
	c.mu.Unlock()
	c.handler.Hello(c)
}

func (c *Conn) onContent(m *mux.Message) error {
	c.mu.Lock()
	c.keep.active = true
	c.waitForRoom(cost(len(m.Content)))
	s := c.streams[m.Channel]
	if s == nil {
		err := c.unknownID(m.Channel, mux.Content)
		c.mu.Unlock()
		c.signal()
		return err
	}
	if !c.arrived(s, len(m.Content)) {
		c.mu.Unlock()
		return nil
	}
	if s.system && s.hops == 0 && s.sink == nil && c.onPing(s, m.Content) {
		c.mu.Unlock()
		c.signal()
		return nil
	}
	if s.sink == nil {
		content := m.Content
		if len(content) > smallItem {
			content = append(c.cfg.Buffers.fit(len(content))[:0], content...)
		}
		c.keepContent(s, content)
		c.mu.Unlock()
		if c.peer.documentOnly {
			return c.waitForReader(s)
		}
		return nil
	}
	c.mu.Unlock()
	s.sink.Content(s, m.Content, nil)
	return nil
}

func (c *Conn) onWindow(m *mux.Message) error {
	c.mu.Lock()
	s := c.streams[m.Channel]
	if s == nil {
		err := c.unknownID(m.Channel, mux.Window)
		c.mu.Unlock()
		c.signal()
		return err
	}
	if c.peer.documentOnly {
		c.mu.Unlock()
		return nil
	}
	accepted := s.own && s.state == opening && s.created
	if s.credit+int64(m.Window) > MaxCredit {
		c.failStream(s, Limit, "more credit than there may be")
		c.mu.Unlock()
		return nil
	}
	s.credit += int64(m.Window)
	c.mu.Unlock()
	if accepted {
		c.onAccepted(s, m.Proof)
	}
	if s.sink != nil {
		s.sink.Window(s, m.Window)
		return nil
	}
	c.mu.Lock()
	s.writers.wake()
	c.mu.Unlock()
	return nil
}

// onAccepted asks the handler whether the proof of the acceptor holds.
func (c *Conn) onAccepted(s *Stream, proof []byte) {
	err := c.handler.Accepted(s, proof)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state != opening {
		return
	}
	if err != nil {
		c.failStream(s, err.Code, err.Text)
		return
	}
	c.keep.sample(time.Since(s.started))
	s.state = open
	s.writers.wakeAll()
}

func (c *Conn) onCreate(m *mux.Message) error {
	c.mu.Lock()
	if s := c.streams[m.Channel]; s != nil && c.peer.documentOnly && s.own && !c.cfg.Dialer {
		// Both sides chose the same id at once: the dialer's channel wins.
		c.endStream(s, &Error{Code: BadChannelID, Text: "the other end took the same id"})
	}
	code, text := c.checkCreate(m)
	if text != "" {
		c.refuse(m.Channel, code, text)
		c.mu.Unlock()
		c.signal()
		return nil
	}
	c.mu.Unlock()
	c.handler.Create(c, m)
	return nil
}

// checkCreate checks what does not depend on agents and spaces.
func (c *Conn) checkCreate(m *mux.Message) (Code, string) {
	if m.Channel == 0 || m.Channel == reservedID {
		return BadChannelID, "the id is reserved"
	}
	if c.peer.documentOnly {
		if c.streams[m.Channel] != nil {
			return BadChannelID, "the id is in use"
		}
	} else if odd := m.Channel&1 == 1; odd == c.cfg.Dialer || m.Channel <= c.lastID {
		return BadChannelID, "the id is not the next of its side"
	}
	c.lastID = max(c.lastID, m.Channel)
	c.used = true
	if c.draining {
		return BadTo, textStops
	}
	if ok, _ := c.creates.Allow(1, time.Now()); !ok {
		c.cfg.Metrics.Refused[RefusedCreates].Add(1)
		return Limit, "too many channels are created"
	}
	if len(c.streams) >= c.limits.Channels {
		c.cfg.Metrics.Refused[RefusedChannels].Add(1)
		return Limit, "too many channels are open"
	}
	code, text := checkSizes(m)
	if text != "" {
		c.cfg.Metrics.Refused[RefusedIDs].Add(1)
	}
	return code, text
}

func checkSizes(m *mux.Message) (Code, string) {
	switch {
	case badSize(m.SpaceHash):
		return BadSpace, "the space hash has no good size"
	case badSize(m.To):
		return BadTo, "the target has no good size"
	case badSize(m.From):
		return BadFrom, "the creator has no good size"
	}
	return Unknown, ""
}

func badSize(id []byte) bool { return len(id) == 0 || len(id) > MaxIDSize }

func (c *Conn) onClose(m *mux.Message) error {
	c.mu.Lock()
	s := c.streams[m.Channel]
	if s == nil {
		err := c.unknownID(m.Channel, mux.Close)
		c.mu.Unlock()
		c.signal()
		return err
	}
	c.sendControl(&mux.Message{Kind: mux.Close, Channel: s.id})
	c.endStream(s, nil)
	c.mu.Unlock()
	c.signal()
	if s.sink != nil {
		s.sink.Ended(s, nil)
	}
	return nil
}

// onError ends a channel. An error is never answered, so unknown ids are
// ignored.
func (c *Conn) onError(m *mux.Message) {
	if m.Code < mux.Code(len(c.cfg.Metrics.ErrorsIn)) {
		c.cfg.Metrics.ErrorsIn[m.Code].Add(1)
	}
	if m.Channel == mux.WholeConnection {
		c.handler.Relay(c, m)
		return
	}
	err := &Error{Code: Code(m.Code), Text: m.Text, Remote: true}
	c.mu.Lock()
	s := c.streams[m.Channel]
	if s != nil {
		c.endStream(s, err)
	}
	c.mu.Unlock()
	if s != nil && s.sink != nil {
		s.sink.Ended(s, err)
	}
}

// onUnknown answers a message of a newer protocol, once a second at most.
func (c *Conn) onUnknown(m *mux.Message) {
	now := time.Now()
	if now.Sub(c.unknown) < unknownTagInterval {
		return
	}
	c.unknown = now
	c.tellBroken(Unknown, fmt.Sprintf("no message has the tag %d", m.Kind))
}

// unknownID decides about a record for a channel there is none of. It is called
// with the lock held.
func (c *Conn) unknownID(id uint32, k mux.Kind) error {
	if c.ended.has(id, time.Now()) {
		if k == mux.Content {
			c.cfg.Metrics.Dropped.Add(1)
		}
		return nil
	}
	c.sendError(id, BadChannelID, "no such channel")
	c.blame()
	return nil
}

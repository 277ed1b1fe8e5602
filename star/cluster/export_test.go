package cluster

// What another server would say, for tests that speak for one.

// Ask is the message that asks for a dial.
func Ask(from string, dial, epoch, dialerEpoch uint64, credit int64, to, dialer, id string) []byte {
	m := message{kind: kindAsk, from: from, dialer: true, dial: dial, epoch: epoch, dialerEpoch: dialerEpoch, credit: credit,
		to: to, dialerAt: dialer, id: id}
	return m.appendTo(nil)
}

// Answer reads the answer to one; false for another message.
func Answer(b []byte) (dial uint64, reason string, ok bool) {
	m, err := decode(b)
	return m.dial, m.text, err == nil && m.kind == kindAnswer
}

// KeyOf is the key of a member.
func KeyOf(place string) string { return keyOf(place) }

// At is the NATS server that this star is connected to.
func (c *Cluster) At() string { return c.nc.ConnectedServerName() }

package socketio

// Flusher remembers which sockets messages were sent to (Msg.By), and has each
// written to once, by the goroutine that flushes, as far as the connection takes it:
// that costs less than to wake another for each, and joins what waits into one
// write. It belongs to one goroutine at a time. The zero Flusher is ready to use.
//
// Every socket has one for its receive path, which is flushed when there is nothing
// more to read, before the Handler waits (Hold), and when much waits.
type Flusher struct {
	sockets []*Socket
	bytes   int // of what was sent
	handled int // messages of the receive path, since there is something to flush
}

// flushAt is how many bytes a receive path sends before it flushes, though there is
// more to read: a little more than one chunk of 64 KiB, so that two leave in one
// write, and less than the system takes at once.
const flushAt = 68 << 10

// flushAfter is how many messages a receive path handles before it flushes however
// little it has sent: who never stops sending must not hold up what was said first.
const flushAfter = 64

// Flusher is that of the receive path: for what is sent from within the Handler's
// calls for s, to whichever socket.
func (s *Socket) Flusher() *Flusher { return &s.flusher }

func (f *Flusher) add(s *Socket, size int) {
	f.bytes += size
	if s.flushed.Swap(f) != f { // where two take turns it is named twice, which does no harm
		f.sockets = append(f.sockets, s)
	}
}

// keepSockets is how many places an empty Flusher keeps.
const keepSockets = 16

// Flush sees to it that what was sent leaves. It never blocks; receipts are told
// from within, so no locks may be held.
func (f *Flusher) Flush() {
	for i, s := range f.sockets {
		f.sockets[i] = nil
		s.flushed.CompareAndSwap(f, nil) // before the look at what waits
		s.kick()
	}
	f.bytes, f.handled = 0, 0
	if f.sockets = f.sockets[:0]; cap(f.sockets) > keepSockets {
		f.sockets = nil
	}
}

// mayWait is told of each message that the receive path has handled; false where a
// flush is due though there is more to read.
func (f *Flusher) mayWait() bool {
	if len(f.sockets) == 0 {
		return true
	}
	f.handled++
	return f.bytes < flushAt && f.handled < flushAfter
}

// flush is Flush for the receive path, outside of its calls.
func (s *Socket) flush() {
	s.turn <- struct{}{}
	s.flusher.Flush()
	<-s.turn
}

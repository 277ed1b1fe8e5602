package peer

import (
	"time"
)

// How soon the sender is told (gateway.md §5.4). A lone message's level is told
// at once, and so is the first after a while; while more are on the way they
// wait for company, but not longer than this.
const (
	ackAfter = 16
	ackDelay = 2 * time.Millisecond
	// That a message was taken, which its sender doesn't wait for, is mostly told
	// together with its handling.
	takenDelay = 50 * time.Millisecond
)

// fastTurn is the time for a window to be taken and settled within which it
// grows: longer than a round trip around the world, shorter than a page that
// labours.
const fastTurn = 500 * time.Millisecond

// tellSoon wakes the writer for what there is to tell, unless who settled may do
// its work. The caller holds mu.
func (st *inStream) tellSoon() {
	if !st.held {
		st.signal()
	}
}

// signal wakes the writer of a stream. It never blocks.
func (st *inStream) signal() {
	select {
	case st.kick <- struct{}{}:
	default:
	}
}

// takenNow notes that d has been taken. The caller holds mu.
func (st *inStream) takenNow(d *delivery) {
	switch {
	case d.flags&flagDelivered != 0:
		st.tell(!st.more)
	case d.flags&flagNoAck != 0: // all that will be told for long
		st.later(ackDelay)
	default:
		st.later(takenDelay)
	}
}

// settledNow notes that d has been settled. The caller holds mu.
func (st *inStream) settledNow(d *delivery) {
	waited := d.flags&flagNoAck == 0 && (d.flags&flagDelivered == 0 || d.seq > st.toldTaken)
	lone := !st.more && st.in.pending.len() == 0
	st.tell(waited && (lone || time.Since(st.told) >= ackDelay))
}

// tell counts one more thing to tell, and decides when. The caller holds mu.
func (st *inStream) tell(now bool) {
	st.news++
	if now || st.news >= ackAfter || st.newsBytes >= st.window/2 {
		st.flush = true
		st.tellSoon()
		return
	}
	st.later(ackDelay)
}

// later sees to it that what is not told now is told after some time. The caller
// holds mu.
func (st *inStream) later(after time.Duration) {
	if st.flush || st.finished {
		return
	}
	at := time.Now().Add(after)
	if st.armed && !at.Before(st.dueAt) {
		return
	}
	st.armed, st.dueAt = true, at
	if st.timer == nil {
		st.timer = time.AfterFunc(after, st.due)
		return
	}
	st.timer.Reset(after)
}

func (st *inStream) due() {
	st.peer.mu.Lock()
	defer st.peer.mu.Unlock()
	st.armed = false
	if st.finished || st.in == nil {
		return
	}
	if in := st.in; in.taken > max(st.toldTaken, in.final) || in.final > st.toldFinal || len(in.answers) > st.toldAnswers {
		st.flush = true
		st.tellSoon()
	}
}

// release gives back window, and more of it when the sessions turn a whole one
// over so fast that it is the window that holds the sender up. The caller holds
// mu.
func (st *inStream) release(cost int) {
	st.newsBytes += cost
	st.throughput += cost
	if st.throughput < st.window {
		return
	}
	now := time.Now()
	fast := now.Sub(st.turned) < fastTurn
	st.throughput, st.turned = 0, now
	if fast && st.window < st.peer.cfg.MaxWindow {
		st.window = min(2*st.window, st.peer.cfg.MaxWindow)
		st.flush = true
		st.tellSoon()
	}
}

// write is the stream's writer: welcome, answers, acks, windows, bye.
func (st *inStream) write() {
	var buf, payload []byte
	wrote, end := false, false
	for {
		<-st.kick
		for {
			var err error
			buf, payload, end, err = st.compose(buf[:0], wrote)
			wrote = len(buf) > 0
			if err == nil && !wrote && !end {
				break
			}
			for _, part := range [][]byte{buf, payload} {
				if err == nil && len(part) > 0 {
					_, err = st.stream.Write(part)
				}
			}
			if err != nil || end {
				st.close(err)
				return
			}
		}
	}
}

// close ends the stream; the reader has ended or ends by it.
func (st *inStream) close(err error) {
	p := st.peer
	p.mu.Lock()
	st.finished = true
	broken := st.broken || err != nil
	if st.timer != nil {
		st.timer.Stop()
	}
	if st.in != nil && st.in.stream == st {
		st.in.stream = nil
		st.in.touched = time.Now()
	}
	p.mu.Unlock()
	if broken {
		_ = st.stream.Reset()
		return
	}
	_ = st.stream.Close()
}

// compose puts together what the writer is to write now; payload follows buf.
// end says that nothing may follow. The caller does not hold mu.
func (st *inStream) compose(buf []byte, wrote bool) (_, payload []byte, end bool, err error) {
	p := st.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	if wrote {
		st.writing = false
	}
	if st.writing { // whoever writes signals when he is done
		return buf, nil, false, nil
	}
	if st.failed != nil {
		return buf, nil, false, st.failed
	}
	buf = append(buf, st.left...)
	st.left = nil
	switch {
	case st.finished:
		return buf, nil, true, nil
	case st.in == nil:
		return appendBye(buf, st.reason, 0, st.text), nil, true, nil
	}
	buf, payload, end = st.put(buf)
	st.writing = len(buf) > 0
	return buf, payload, end, nil
}

// put appends what there is to tell. The caller holds mu.
func (st *inStream) put(buf []byte) (_, payload []byte, end bool) {
	if !st.welcomed {
		st.welcomed = true
		buf = st.appendWelcome(buf)
	}
	if st.ending && !st.readDone() {
		return buf, nil, false // nothing more may be taken behind the bye
	}
	if !st.flush && !st.ending {
		return buf, nil, false
	}
	buf, payload = st.appendAnswers(buf)
	if payload != nil || st.toldAnswers < len(st.in.answers) {
		return buf, payload, false
	}
	buf = st.appendAcks(buf)
	st.flush, st.news, st.newsBytes, st.told = false, 0, 0, time.Now()
	if st.ending {
		buf = appendBye(buf, st.reason, st.in.taken, st.text)
	}
	return buf, nil, st.ending
}

func (st *inStream) appendWelcome(buf []byte) []byte {
	st.toldWindow = st.window
	return appendWelcome(buf, st.toldTaken, uint64(st.window), uint64(st.peer.cfg.MaxMessage),
		st.in.base, uint64(st.memory/time.Millisecond))
}

// readDone reports whether nothing more will be taken.
func (st *inStream) readDone() bool {
	select {
	case <-st.read:
		return true
	default:
		return false
	}
}

// appendAnswers appends refusals and replies, up to a batch. A large reply's
// payload is left to be written behind.
func (st *inStream) appendAnswers(buf []byte) (_, payload []byte) {
	in := st.in
	for st.toldAnswers < len(in.answers) && len(buf) < batchBytes {
		a := &in.answers[st.toldAnswers]
		st.toldAnswers++
		if a.reply == nil {
			buf = appendRefuse(buf, a.seq, a.code, a.text)
			continue
		}
		buf = appendContentHead(buf, kindReply, a.seq, a.reply.Type, 0, len(a.reply.Data))
		if len(a.reply.Data) >= largePayload {
			return buf, a.reply.Data
		}
		buf = append(buf, a.reply.Data...)
	}
	return buf, nil
}

// appendAcks appends what has reached a level since it was told.
func (st *inStream) appendAcks(buf []byte) []byte {
	in := st.in
	for _, r := range in.runs {
		if r.seq > st.toldFinal {
			buf = appendAck(buf, r.seq, r.level)
			st.toldFinal = r.seq
		}
	}
	if in.taken > max(st.toldTaken, in.final) {
		buf = appendAck(buf, in.taken, wireDelivered)
	}
	st.toldTaken = max(st.toldTaken, in.taken)
	if st.window > st.toldWindow {
		buf = appendWindow(buf, uint64(st.window))
		st.toldWindow = st.window
	}
	return buf
}

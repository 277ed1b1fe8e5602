package socket

import "time"

// Pace keeps sockets that are read only to be ended from being a reason to send
// more: what floods there is read one piece at a time, of all of them. Who sends
// little does not notice it.
type Pace struct{ turn chan struct{} }

const (
	turnTime = 2 * time.Millisecond   // after a piece, until the next of any socket
	turnWait = 100 * time.Millisecond // the most that one waits for its turn
)

// NewPace makes the pace of any number of sockets.
func NewPace() *Pace { return &Pace{turn: make(chan struct{}, 1)} }

// wait waits until the next piece may be read.
func (p *Pace) wait() {
	if p == nil {
		return
	}
	limit := time.NewTimer(turnWait)
	defer limit.Stop()
	select {
	case p.turn <- struct{}{}:
	case <-limit.C:
		return
	}
	limit.Reset(turnTime)
	<-limit.C
	<-p.turn
}
